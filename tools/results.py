"""Measure all that docs/results.md states, and write its tables.

    python -m tools.results run             # every study below, by `redepth experiment`; hours on 2 cores
    python -m tools.results run relief      # only this one
    python -m tools.results tune            # the settings that were tried, on the images for tuning
    python -m tools.results page            # the tables of docs/results.md, from what is stored

A study runs in ``runs/experiments/NAME`` and goes on there if it was killed; what it found is stored in
``docs/results/experiments/NAME``. Tuning likewise, in ``runs/tuning`` and ``docs/results/tuning``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from redepth.experiments.grids import SHIFTED
from redepth.experiments.run import IDENTITY, Row
from redepth.experiments.study import Study
from redepth.experiments.summary import Cell, summarize, table
from redepth.io import save_text

app = typer.Typer(add_completion=False, help=__doc__)

DOCS = Path(__file__).parents[1] / "docs"
STORED = DOCS / "results" / "experiments"
RUNS = Path("runs/experiments")
TUNING_STORED, TUNING_RUNS = DOCS / "results" / "tuning", Path("runs/tuning")
PAGE = DOCS / "results.md"
FOLDED_ABOVE = 7
"""Rows of a table that the page still shows unfolded."""

KEPT = (IDENTITY, "rows.jsonl", "summary.json", "plot.png")
TUNING_KEPT = (IDENTITY, "rows.jsonl")
PICTURES = ("0-normals.jpg", "1-depth.jpg")
"""Of those that an experiment draws."""

ALL_SPLITS = " ".join(f"--split {name}" for name in ("in-domain", *SHIFTED))
OTHER_SPLITS = "--split lighting --split texture --split degraded --split sky"
SEED_1 = "prior.checkpoint=runs/seed-1/relief-relighting-prior"
STUDIES: dict[str, str] = {
    "relief": "prior --images 128 --arm trained --arm 'random weights' --arm 'smoothness only'",
    "relief-seed-1": f"prior --images 128 --arm trained --set {SEED_1}",
    "unshifted": "shift --images 128 --split in-domain --split shapes --strength 1",
    "unshifted-seed-1": "shift --images 32 --split in-domain --split shapes --strength 1 "
    f"--arm preset --set {SEED_1}",
    "prior": "prior --images 16",
    "told": "prior --images 8 --arm 'told the photo only' --arm 'told nothing' --arm 'no guidance'",
    "untold-embeddings": "prior --images 16 --arm trained --arm unconditional --arm 'smoothness only' "
    "--set optim.parameterization=embeddings",
    "targets": "targets --images 12",
    "ensemble": "ensemble --images 12",
    "renderer": "renderer --images 6",
    "cost": "cost --images 4",
    "splits": f"shift --images 12 --strength 1 {OTHER_SPLITS} --split broad --split path-traced",
    "half": f"shift --images 4 --strength 0.5 {OTHER_SPLITS} --split relief --split shapes",
    "gates": f"prior --images 4 --arm oracle --arm 'imperfect teacher' --arm 'smoothness only' {ALL_SPLITS}",
    "size-192": "prior --images 16 --size 192 --arm trained --arm 'smoothness only'",
    "size-192-whole": "prior --images 16 --size 192 --arm trained "
    "--set prior.view=whole --set optim.blend_scale=0.1",
}
"""Name -> arguments of `redepth experiment`."""

RELIEF_TUNING = "prior --images 16 --tuning --arm trained"
IN_DOMAIN_TUNING = "shift --images 16 --tuning --split in-domain"
LARGE_TUNING = "prior --images 8 --tuning --size 192 --arm trained"
FORMER = "renderer.lights=1 optim.members=5 optim.blend_scale=0.17"
EMBEDDINGS = f"{FORMER} optim.parameterization=embeddings optim.learning_rates.decoder=2e-6"
DECODER = f"{FORMER} optim.learning_rates.decoder"
TUNED: dict[str, tuple[str, str]] = {
    "embeddings": (RELIEF_TUNING, f"{EMBEDDINGS} prior.t_min=0.55"),
    "embeddings-t-from-0.02": (RELIEF_TUNING, f"{EMBEDDINGS} prior.t_min=0.02"),
    "embeddings-t-from-0.3": (RELIEF_TUNING, EMBEDDINGS),
    "embeddings-two-lights": (RELIEF_TUNING, f"{EMBEDDINGS} renderer.lights=2"),
    "embeddings-80-steps": (RELIEF_TUNING, f"{EMBEDDINGS} optim.steps=80 optim.members=3"),
    **{
        f"decoder-{rate}": (RELIEF_TUNING, f"{DECODER}={rate}")
        for rate in ("4e-4", "1e-3", "1.5e-3", "2e-3", "3e-3", "4e-3")
    },
    "decoder-1e-3-guidance-1.5": (
        RELIEF_TUNING,
        f"{DECODER}=1e-3 prior.t_min=0.55 prior.guidance_scale=1.5",
    ),
    "decoder-1e-3-embeddings-1e-2": (RELIEF_TUNING, f"{DECODER}=1e-3 optim.learning_rates.embeddings=1e-2"),
    "decoder-1e-3-embeddings-3e-2": (RELIEF_TUNING, f"{DECODER}=1e-3 optim.learning_rates.embeddings=3e-2"),
    "seed-1-decoder-1e-3": (RELIEF_TUNING, f"{SEED_1} {DECODER}=1e-3"),
    "seed-1-decoder-1.5e-3": (RELIEF_TUNING, f"{SEED_1} {DECODER}=1.5e-3"),
    "as-it-ships": (RELIEF_TUNING, ""),
    "in-domain-as-it-ships": (IN_DOMAIN_TUNING, ""),
    "in-domain-blend-scale-0.17": (IN_DOMAIN_TUNING, "optim.blend_scale=0.17"),
    "192-as-it-ships": (LARGE_TUNING, ""),
    "192-multiscale": (LARGE_TUNING, "prior.view=multiscale"),
    "192-whole": (LARGE_TUNING, "prior.view=whole"),
    "192-whole-blend-scale-0.1": (LARGE_TUNING, "prior.view=whole optim.blend_scale=0.1"),
}
"""Name -> arguments of `redepth experiment`, and the settings."""


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all by default.")] = None,
    workers: Annotated[int, typer.Option(help="Processes, one CPU thread each.")] = 2,
) -> None:
    """Run studies and store what they found."""
    if unknown := set(names or []) - set(STUDIES):
        raise typer.BadParameter(f"no study {', '.join(sorted(unknown))}; there are: {', '.join(STUDIES)}")
    for name in names or STUDIES:
        experiment(arguments(name), workers, RUNS / name)
        store(RUNS / name, STORED / name, KEPT)
        for picture in PICTURES:
            if (drawn := RUNS / name / "pictures" / picture).is_file():
                shutil.copyfile(drawn, STORED / name / picture)


@app.command()
def tune(
    workers: Annotated[int, typer.Option(help="Processes, one CPU thread each.")] = 2,
) -> None:
    """Try the settings, on images apart from those that are reported, and store what they gave."""
    for name in TUNED:
        experiment(tuning_arguments(name), workers, TUNING_RUNS / name)
        store(TUNING_RUNS / name, TUNING_STORED / name, TUNING_KEPT)


def experiment(options: list[str], workers: int, folder: Path) -> None:
    """Run `redepth experiment` in a folder, where it goes on if it was killed."""
    command = [sys.executable, "-m", "redepth", "experiment", *options]
    command += ["--workers", str(workers), "--threads", "1", "--out", str(folder)]
    subprocess.run(command, check=True)


def store(found: Path, kept: Path, files: Sequence[str]) -> None:
    """Copy files of a finished experiment."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(found / file, kept / file)


def arguments(name: str) -> list[str]:
    """Return a study's arguments of `redepth experiment`."""
    return shlex.split(STUDIES[name])


def tuning_arguments(name: str) -> list[str]:
    """Return the arguments of `redepth experiment` by which a setting was tried."""
    options, settings = TUNED[name]
    return [*shlex.split(options), *(part for s in settings.split() for part in ("--set", s))]


@app.command()
def page() -> None:
    """Write the tables of the page from the stored rows."""
    save_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))


def with_tables(text: str) -> str:
    """Put each study's table between its marks, ``<!-- study: NAME -->`` and ``<!-- end -->``."""

    def filled(mark: re.Match[str]) -> str:
        return f"<!-- study: {mark[1]} -->\n\n{markdown(mark[1])}\n\n<!-- end -->"

    text = re.sub(r"<!-- study: (\S+) -->.*?<!-- end -->", filled, text, flags=re.DOTALL)
    tried = f"<!-- tuning -->\n\n{tuning_table()}\n\n<!-- end -->"
    return re.sub(r"<!-- tuning -->.*?<!-- end -->", lambda _: tried, text, flags=re.DOTALL)


def stored(folder: Path) -> tuple[Study, list[Cell]]:
    """Return a stored experiment and its statistics."""
    study = Study.model_validate_json((folder / IDENTITY).read_text(encoding="utf-8"))
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return study, summarize(study, [Row.model_validate(json.loads(line)) for line in lines])


def grid_of(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    body = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in body)


def tuning_table() -> str:
    """Return what every setting gave on the images for tuning."""
    rows = []
    for name in TUNED:
        _, (cell,) = stored(TUNING_STORED / name)
        change = f"{cell.change.change:+.1f} % ({cell.change.low:+.1f} to {cell.change.high:+.1f})"
        rows.append([f"`{name}`", cell.scenes, str(cell.images), change, f"{100 * cell.wins:.0f} %"])
    return grid_of(["name", "scenes", "images", "change, 95 %", "wins"], rows)


def markdown(name: str) -> str:
    """Return a study's command and table."""
    title, headings, cells = table(*stored(STORED / name))
    grid = grid_of(headings, cells)
    caption = title.splitlines()[-1]
    if len(cells) > FOLDED_ABOVE:
        grid = f"<details><summary>table</summary>\n\n{grid}\n\n</details>"
    return f"`redepth experiment {STUDIES[name]}`: {caption}.\n\n{grid}"


if __name__ == "__main__":
    app()
