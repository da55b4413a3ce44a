"""The experiment command: one of the paper's studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from redepth.cli import console, options, progress
from redepth.runtime.output import results_folder

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.experiments.run import ArmResult
    from redepth.experiments.study import Study


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Study: targets, ensemble, prior, generic, renderer, shift, cost, anchors or adapt.",
        ),
    ],
    preset: options.PresetName = "embedded-relief",
    overrides: options.Overrides = None,
    images: Annotated[
        int, typer.Option(max=1_000_000, help="Number of scenes per split, or of images.")
    ] = 16,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; by default out/experiments/NAME.")
    ] = None,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Run only this arm; repeat for more.")
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Split of the synthetic scenes; repeat for more.")
    ] = None,
    strengths: Annotated[
        list[float] | None,
        typer.Option("--strength", min=0, max=1, help="Strength of the shift, 0 to 1; repeat for more."),
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the synthetic scenes in pixels.")] = 96,
    dataset: Annotated[str, typer.Option(help="Data set; see `redepth list datasets`.")] = "synthetic",
    root: options.DatasetRoot = None,
    reader_options: options.ReaderOptions = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Use the images on which settings are tuned.")
    ] = False,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    threads: options.Threads = None,
    device: options.Device = "auto",
    max_pixels: options.MaxPixels = 100_000_000,
    fresh: options.Fresh = False,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
) -> None:
    """Run one of the paper's studies: compare settings on the same images, lights and seeds."""
    from redepth.experiments import output, planning, run

    planned = planning.plan(
        name,
        preset,
        overrides or [],
        images=images,
        arms=arms or [],
        splits=splits or [],
        strengths=strengths or [],
        size=size,
        dataset=dataset,
        options=options.reader_options(root, reader_options or []),
        tuning=tuning,
        seed=seed,
    )
    where = folder or Path("out/experiments") / (f"{name}-tuning" if tuning else name)
    for arm, reason in planned.skipped.items():
        console.warn(f"skipped: {arm}: {reason}")
    resources = options.resources(workers, None, threads, device)
    with results_folder(where), progress.resumable_tasks(where, len(planned.tasks())) as on_done:
        rows, failures = run.run_study(
            planned,
            where,
            resources,
            device=device,
            fresh=fresh,
            max_pixels=max_pixels,
            on_done=on_done,
            on_adapt=progress.adaptations(),
        )
    for (arm, scene), error in failures.items():
        console.complain(f"{scene} ({arm}): {error}")
    if rows:
        _print_summary(planned, rows)
        output.write(planned, rows, failures, where)
        console.note(Text(f"rows, summary and plot: {where}"))
    console.exit_if_failed(len(failures), len(planned.tasks()))


def _print_summary(study: Study, rows: Sequence[ArmResult]) -> None:
    """Print the table of a study."""
    from redepth.experiments import summary

    title, headings, lines = summary.table(study, summary.summarize(study, rows))
    table = console.table(title, *headings)
    for line in lines:
        table.add_row(*map(Text, line))
    console.note(table)
    for arm, reason in study.skipped.items():
        console.note(Text(f"skipped: {arm}: {reason}"))
