"""Measure all that docs/results.md states, and write its tables.

    python -m benchmarks.accuracy.results run         # all studies, by `redepth experiment`: hours
    python -m benchmarks.accuracy.results run relief  # only this one
    python -m benchmarks.accuracy.results tune        # the settings that were tried, on the tuning images
    python -m benchmarks.accuracy.results page        # the tables of docs/results.md, from what is stored

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
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
import typer

from redepth.experiments.grids import SHIFTED
from redepth.experiments.run import IDENTITY, ArmResult
from redepth.experiments.study import Study
from redepth.experiments.summary import METRIC, NORMALS, RESAMPLES_SEED, Cell, percent, summarize, table
from redepth.io import save_text
from redepth.metrics import bootstrap_interval, paired_difference
from training.loop import json_lines
from training.train_embedded import FINETUNED_NAME, NORMALS_NAME, PRIOR_NAMES

app = typer.Typer(add_completion=False, help=__doc__)

DOCS = Path(__file__).parents[2] / "docs"
STORED = DOCS / "results" / "experiments"
RUNS = Path("runs/experiments")
TUNING_STORED, TUNING_RUNS = DOCS / "results" / "tuning", Path("runs/tuning")
PAGE, LABELS = DOCS / "results.md", DOCS / "results" / "supervised.json"
REFINED = {
    "relief": ("relief", "trained"),
    "shapes": ("unshifted", "preset"),
    "in-domain": ("unshifted", "preset"),
}
"""Split -> the study that refined its scenes and the arm, where labels are compared with."""
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
    "unshifted-seed-1": "shift --images 128 --split in-domain --split shapes --strength 1 "
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
UNTOLD_TUNING = "prior --images 16 --tuning --arm unconditional"
SLOW = "optim.learning_rates.embeddings=2e-3 optim.learning_rates.decoder=1.5e-4"
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
    "unconditional-as-it-ships": (UNTOLD_TUNING, ""),
    "unconditional-embeddings": (UNTOLD_TUNING, "optim.parameterization=embeddings"),
    "unconditional-slow": (UNTOLD_TUNING, SLOW),
    "unconditional-slow-no-smoothness": (UNTOLD_TUNING, f"{SLOW} optim.objectives.smoothness.weight=0"),
    "unconditional-slow-t-0.02-to-0.5": (UNTOLD_TUNING, f"{SLOW} prior.t_min=0.02 prior.t_max=0.5"),
    "unconditional-slow-t-0.5-to-0.98": (UNTOLD_TUNING, f"{SLOW} prior.t_min=0.5"),
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
    for name, grid in {"tuning": tuning_table, "labels": labels_table, "compute": compute_table}.items():
        marked = f"<!-- {name} -->\n\n{grid()}\n\n<!-- end -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, new=marked: new, text, flags=re.DOTALL)
    return text


def rows_of(folder: Path) -> list[ArmResult]:
    """Return the rows of a stored experiment."""
    return [ArmResult.model_validate(row) for row in json_lines(folder / "rows.jsonl")]


def stored(folder: Path) -> tuple[Study, list[Cell]]:
    """Return a stored experiment and its statistics."""
    study = Study.model_validate_json((folder / IDENTITY).read_text(encoding="utf-8"))
    return study, summarize(study, rows_of(folder))


def grid_of(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    body = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in body)


def tuning_table() -> str:
    """Return what every setting gave on the images for tuning."""
    rows = []
    for name in TUNED:
        _, (cell,) = stored(TUNING_STORED / name)
        wins = f"{100 * cell.wins:.0f} %"
        rows.append([f"`{name}`", cell.scenes, str(cell.images), percent(cell.change, cell.images), wins])
    return grid_of(["name", "scenes", "images", "change, 95 %", "wins"], rows)


def labels_table() -> str:
    """Return refinement beside what was trained on labels, on the same scenes, image by image."""
    found = json.loads(LABELS.read_text(encoding="utf-8"))["splits"]
    rows = [labels_row(split, found[split]["rows"], study, arm) for split, (study, arm) in REFINED.items()]
    headings = ["scenes", "initial", "refined, no labels", "fine-tuned on labels", "refined minus fine-tuned"]
    return grid_of([*headings, "normals: initial, refined, fine-tuned, photo to normals"], rows)


def labels_row(split: str, supervised: Sequence[dict[str, Any]], study: str, arm: str) -> list[str]:
    """Return one split's row of that table."""
    rows = {row.image: row for row in rows_of(STORED / study) if (row.split, row.arm) == (split, arm)}
    refined = [rows[row["image"]] for row in supervised]
    before, after = ([getattr(row, side)[METRIC] for row in refined] for side in ("before", "after"))
    tuned = [row[FINETUNED_NAME]["silog"] for row in supervised]

    def change(values: Sequence[float]) -> str:
        interval = bootstrap_interval(before, values, generator=resampling())
        return f"{mean(values):.2f}, {percent(interval, len(values))}"

    difference = percent(paired_difference(before, after, tuned, generator=resampling()), len(supervised))
    degrees = [
        mean(row.before[NORMALS] for row in refined),
        mean(row.after[NORMALS] for row in refined),
        mean(row[FINETUNED_NAME]["normals"] for row in supervised),
        mean(row["photo to normals"]["normals"] for row in supervised),
    ]
    normals = ", ".join(f"{angle:.1f}" for angle in degrees)
    return [split, f"{mean(before):.2f}", change(after), change(tuned), difference, f"{normals} deg"]


def resampling() -> torch.Generator:
    """Return the generator that intervals are drawn with."""
    return torch.Generator().manual_seed(RESAMPLES_SEED)


def compute_table() -> str:
    """Return what the shipped prior, and what is held against it, were trained with."""
    logs = {
        "the shipped prior": [f"{PRIOR_NAMES['relighting']}-0-first-cycle", f"{PRIOR_NAMES['relighting']}-0"],
        "depth model, fine-tuned": [f"{FINETUNED_NAME}-0"],
        "photo to normals": [f"{NORMALS_NAME}-0"],
    }
    rows = []
    for network, names in logs.items():
        spent = [training_spent(json_lines(DOCS / "results" / f"training-{name}.jsonl")) for name in names]
        pictures, minutes = (sum(part) for part in zip(*spent, strict=True))
        rows.append([network, f"{pictures:,}".replace(",", " "), f"{minutes:.0f}"])
    return grid_of(["network", "pictures", "minutes of one core"], rows)


def training_spent(log: Sequence[dict[str, Any]]) -> tuple[int, float]:
    """Return the pictures and the minutes of a training's log, whose clock starts anew where it resumed."""
    pictures = log[-1]["samples"] - log[0]["samples"] + (log[1]["samples"] - log[0]["samples"])
    ends = [row["seconds"] for row, after in pairwise(log) if after["seconds"] < row["seconds"]]
    return pictures, (sum(ends) + log[-1]["seconds"]) / 60


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
