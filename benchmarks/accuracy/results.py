"""Measure everything that docs/results.md states, and write its tables.

    python -m benchmarks.accuracy.results run         # all studies, by `redepth experiment`: hours
    python -m benchmarks.accuracy.results run relief  # only this one
    python -m benchmarks.accuracy.results tune        # the settings that were tried, on the tuning images
    python -m benchmarks.accuracy.results tune decoder-4e-4  # only this one
    python -m benchmarks.accuracy.results page        # the tables of docs/results.md, from the stored rows

A study runs in ``runs/experiments/NAME``; started again, it continues there. Its rows are stored in
``benchmarks/results/accuracy/experiments/NAME``. Tuning uses ``runs/tuning`` and
``benchmarks/results/accuracy/tuning``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.accuracy.studies import (
    EXPERIMENTS,
    REPOSITORY,
    RUNS,
    STUDIES,
    TUNED,
    TUNING,
    TUNING_RUNS,
    arguments,
    tuning_arguments,
)
from benchmarks.accuracy.tables import with_tables
from redepth.experiments.run import IDENTITY
from redepth.io import save_text

app = typer.Typer(add_completion=False, help=__doc__)

PAGE = REPOSITORY / "docs" / "results.md"
PICTURES = REPOSITORY / "docs" / "pictures" / "experiments"
STUDY_FILES = (IDENTITY, "rows.jsonl", "summary.json")
TUNING_FILES = (IDENTITY, "rows.jsonl")
FIGURES = {
    "prior": "pictures/0-normals.jpg",
    "relief": "plot.png",
    "ensemble": "plot.png",
    "cost": "plot.png",
    "adapt": "plot.png",
}
"""Study -> the picture of it that the page shows, as `redepth experiment` names it."""

Workers = Annotated[int, typer.Option(help="Processes, one CPU thread each.")]


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all by default.")] = None,
    workers: Workers = 2,
) -> None:
    """Run studies and store their rows and figures."""
    _check_known(names, STUDIES)
    for name in names or STUDIES:
        experiment(arguments(name), workers, RUNS / name)
        store(RUNS / name, EXPERIMENTS / name, STUDY_FILES)
        if name in FIGURES:
            figure = RUNS / name / FIGURES[name]
            shutil.copyfile(figure, PICTURES / f"{name}{figure.suffix}")


@app.command()
def tune(
    names: Annotated[list[str] | None, typer.Argument(help="Settings; all by default.")] = None,
    workers: Workers = 2,
) -> None:
    """Try the settings, on images apart from those that are reported, and store their rows."""
    _check_known(names, TUNED)
    for name in names or TUNED:
        experiment(tuning_arguments(name), workers, TUNING_RUNS / name)
        store(TUNING_RUNS / name, TUNING / name, TUNING_FILES)


@app.command()
def page() -> None:
    """Write the tables of the page from the stored rows."""
    save_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))


def _check_known(names: Sequence[str] | None, known: Collection[str]) -> None:
    if unknown := set(names or []) - set(known):
        raise typer.BadParameter(f"no {', '.join(sorted(unknown))}; there are: {', '.join(known)}")


def experiment(options: list[str], workers: int, folder: Path) -> None:
    """Run `redepth experiment` in a folder; a run that was killed continues there."""
    command = [sys.executable, "-m", "redepth", "experiment", *options]
    command += ["--workers", str(workers), "--threads", "1", "--out", str(folder)]
    subprocess.run(command, check=True)


def store(run_folder: Path, stored: Path, files: Sequence[str]) -> None:
    """Copy files of a finished experiment."""
    stored.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(run_folder / file, stored / file)


if __name__ == "__main__":
    app()
