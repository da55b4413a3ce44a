"""Measure all that docs/results.md states, and write its tables.

    python -m tools.results run             # every study below, by `redepth experiment`; hours on 2 cores
    python -m tools.results run relief      # only this one
    python -m tools.results page            # the tables of docs/results.md, from what is stored

A study runs in ``runs/experiments/NAME`` and goes on there if it was killed; what it found is stored in
``docs/results/experiments/NAME``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from redepth.experiments.grids import SHIFTED
from redepth.experiments.run import IDENTITY, Row
from redepth.experiments.study import Study
from redepth.experiments.summary import summarize, table
from redepth.io import save_text

app = typer.Typer(add_completion=False, help=__doc__)

DOCS = Path(__file__).parents[1] / "docs"
STORED = DOCS / "results" / "experiments"
RUNS = Path("runs/experiments")
PAGE = DOCS / "results.md"
FOLDED_ABOVE = 7
"""Rows of a table that the page still shows unfolded."""

KEPT = (IDENTITY, "rows.jsonl", "summary.json", "plot.png")
PICTURES = ("0-normals.jpg", "1-depth.jpg")
"""Of those that an experiment draws."""

ALL_SPLITS = " ".join(f"--split {name}" for name in ("in-domain", *SHIFTED))
OTHER_SPLITS = "--split lighting --split texture --split degraded --split sky"
STUDIES: dict[str, str] = {
    "relief": "prior --images 128 --arm trained --arm 'random weights' --arm 'smoothness only'",
    "relief-seed-1": "prior --images 128 --arm trained "
    "--set prior.checkpoint=runs/seed-1/relief-relighting-prior",
    "unshifted": "shift --images 128 --split in-domain --split shapes --strength 1",
    "prior": "prior --images 16",
    "told": "prior --images 8 --arm 'told the photo only' --arm 'told nothing' --arm 'no guidance'",
    "targets": "targets --images 12",
    "ensemble": "ensemble --images 12",
    "renderer": "renderer --images 6",
    "cost": "cost --images 4",
    "splits": f"shift --images 12 --strength 1 {OTHER_SPLITS} --split broad --split path-traced",
    "half": f"shift --images 4 --strength 0.5 {OTHER_SPLITS} --split relief --split shapes",
    "gates": f"prior --images 4 --arm oracle --arm 'imperfect teacher' --arm 'smoothness only' {ALL_SPLITS}",
    "size-192": "prior --images 4 --size 192 --arm trained --arm 'smoothness only'",
}
"""Name -> arguments of `redepth experiment`."""


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all by default.")] = None,
    workers: Annotated[int, typer.Option(help="Processes, one CPU thread each.")] = 2,
) -> None:
    """Run studies and store what they found."""
    if unknown := set(names or []) - set(STUDIES):
        raise typer.BadParameter(f"no study {', '.join(sorted(unknown))}; there are: {', '.join(STUDIES)}")
    for name in names or STUDIES:
        command = [sys.executable, "-m", "redepth", "experiment", *arguments(name)]
        command += ["--workers", str(workers), "--threads", "1", "--out", str(RUNS / name)]
        subprocess.run(command, check=True)
        (STORED / name).mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            shutil.copyfile(RUNS / name / file, STORED / name / file)
        for picture in PICTURES:
            if (drawn := RUNS / name / "pictures" / picture).is_file():
                shutil.copyfile(drawn, STORED / name / picture)


def arguments(name: str) -> list[str]:
    """Return a study's arguments of `redepth experiment`."""
    return shlex.split(STUDIES[name])


@app.command()
def page() -> None:
    """Write the tables of the page from the stored rows."""
    save_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))


def with_tables(text: str) -> str:
    """Put each study's table between its marks, ``<!-- study: NAME -->`` and ``<!-- end -->``."""

    def filled(mark: re.Match[str]) -> str:
        return f"<!-- study: {mark[1]} -->\n\n{markdown(mark[1])}\n\n<!-- end -->"

    return re.sub(r"<!-- study: (\S+) -->.*?<!-- end -->", filled, text, flags=re.DOTALL)


def markdown(name: str) -> str:
    """Return a study's command and table."""
    folder = STORED / name
    study = Study.model_validate_json((folder / IDENTITY).read_text(encoding="utf-8"))
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[Any] = [Row.model_validate(json.loads(line)) for line in lines]
    title, headings, cells = table(study, summarize(study, rows))
    body = [headings, ["---"] * len(headings), *cells]
    grid = "\n".join(f"| {' | '.join(row)} |" for row in body)
    caption = title.splitlines()[-1]
    if len(cells) > FOLDED_ABOVE:
        grid = f"<details><summary>table</summary>\n\n{grid}\n\n</details>"
    return f"`redepth experiment {STUDIES[name]}`: {caption}.\n\n{grid}"


if __name__ == "__main__":
    app()
