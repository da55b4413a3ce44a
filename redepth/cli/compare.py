"""The compare command: every combination of some settings on one's own photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from redepth.cli import completion, console, options, progress
from redepth.cli.inputs import TruthReader, find_photos, prompt_overrides
from redepth.errors import ConfigError, RedepthError, one_line
from redepth.literals import Predicts
from redepth.runtime.output import results_folder

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.ablations import Ablation, Row
    from redepth.ground_truth import GroundTruth
    from redepth.runtime.executors import Done
    from redepth.runtime.resume import Task

_NAMED = 5
"""How many photos without ground truth are named."""


def compare(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO|FOLDER|GLOB...", help="Photos, folders of photos, or patterns."),
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUE,VALUE",
            help="Setting to vary, such as renderer.name=ggx,lambert; repeat for every combination.",
            autocompletion=completion.settings,
        ),
    ] = None,
    preset: options.PresetName = "embedded",
    overrides: options.Overrides = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt for the prior, the same for every photo; replaces captions.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("out/compare"),
    gt: Annotated[
        Path | None,
        typer.Option(help="Ground truth: a map, or for several photos a folder of maps of their names."),
    ] = None,
    gt_kind: options.TruthKind = "depth",
    gt_offset: options.TruthOffset = 0.0,
    protocol: options.TruthProtocol = "photo",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = 1,
    ray: options.RayAddress = None,
    threads: options.Threads = None,
    max_pixels: options.MaxPixels = 100_000_000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Also refine what is already done.")] = False,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
) -> None:
    """Compare settings on your photos: every combination, in one table and one contact sheet."""
    from redepth import ablations

    axes = ablations.parse_axes(vary or [], overrides or [])
    if prompt is not None and any(ablations.overlaps(key, "prompt.captioner") for key in axes):
        raise ConfigError("--prompt replaces all captions: leave it out, or do not vary prompt.captioner")
    paths, rejected = find_photos(photos)
    variants = ablations.variants_of(preset, [*(overrides or []), *prompt_overrides(prompt)], axes)
    truths, problems = _truths(gt, gt_kind, gt_offset, protocol, paths, max_pixels)
    ablation = ablations.Ablation(
        variants=variants,
        photos=paths,
        out=folder,
        device=device,
        seed=seed,
        prompt=prompt,
        max_pixels=max_pixels,
        truths=truths,
        problems=problems,
    )
    resources = options.resources(workers, ray, threads, device)
    total = len(variants) * len(paths)
    with results_folder(folder):
        with progress.resumable_tasks(folder, total) as show:
            made = []

            def on_done(done: Done[Task, Row], ended: int, of: int) -> None:
                made.append(done.result)
                show(done, ended, of)
                for warning in () if done.result is None else done.result.warnings:
                    console.warn(f"{_about(done.item)}: {warning}")

            def on_again(task: Task, reason: str) -> None:
                console.note_refined_again(_about(task), reason)

            rows, failures = ablations.run_ablation(
                ablation, resources, fresh=fresh, on_done=on_done, on_again=on_again
            )
        if earlier := len(rows) - sum(row is not None for row in made):
            console.note(f"{earlier} of {total} refinements were done already (--fresh refines them again)")
        for task, error in failures.items():
            console.complain(f"{_about(task)}: {error}")
        if rows:
            # First on the terminal: a disk that is full keeps the files from being written.
            _print_table(ablation, rows)
            _write(ablation, preset, rows, failures)
    console.exit_if_failed(len(failures) + rejected, total + rejected)


def _about(task: Task) -> str:
    """Name a refinement in a message."""
    variant, label = task
    return f"{label} ({variant})"


def _write(ablation: Ablation, preset: str, rows: Mapping[Task, Row], failures: Mapping[Task, str]) -> None:
    """Write the tables and the sheets, and print where they are."""
    from redepth import ablations

    ablations.write_tables(ablation, preset, rows, failures, ablation.out)
    with console.status("drawing the sheet"):
        sheets = ablations.draw_sheets(ablation, preset, rows, ablation.out)
    more = f" to {sheets[-1].name}" if len(sheets) > 1 else ""
    console.note(Text(f"sheet: {sheets[0]}{more}"), Text(f"table: {ablation.out / 'table.md'}, .csv, .json"))


def _print_table(ablation: Ablation, rows: Mapping[Task, Row]) -> None:
    """Print the table of the variants."""
    from redepth import ablations

    columns = ablations.headings(ablation, rows)
    means = ablations.averages(ablation, rows)
    keys = list(ablation.variants[0].values)
    # Short, because a terminal may be narrow; the files have the whole keys.
    table = console.table("", *ablations.short_names(keys), *columns[len(keys) :])
    for variant in ablation.variants:
        table.add_row(*map(Text, ablations.line(variant, means.get(variant.name), columns)))
    console.note(table)
    if ablation.protocol is not None:
        console.note(Text(ablation.protocol.line))


def _truths(
    path: Path | None,
    kind: Predicts,
    offset: float,
    protocol: str,
    photos: Sequence[Path],
    max_pixels: int,
) -> tuple[dict[Path, GroundTruth], dict[Path, str]]:
    """Return the ground truth of photos, and why that of others cannot be used; warn of those without one."""
    if path is None:
        return {}, {}
    from redepth import io

    reader = TruthReader.of(kind, offset, protocol, max_pixels)
    files = io.companions(photos, path, "ground truth")
    if not files:
        raise ConfigError(f"--gt {path}: has no map of a photo's name, whatever the suffix")
    missing = [photo for photo in photos if photo not in files]
    for photo in missing[:_NAMED]:
        console.warn(f"{photo}: is not measured, because --gt {path} has no map (or several) of its name")
    if len(missing) > _NAMED:
        console.warn(f"{len(missing) - _NAMED} more photos are not measured")
    truths, problems = {}, {}
    for photo, file in files.items():
        try:
            truths[photo] = reader.read(file)
        except RedepthError as error:
            if len(photos) == 1:  # There is nothing else to run.
                raise
            problems[photo] = one_line(error)
    return truths, problems
