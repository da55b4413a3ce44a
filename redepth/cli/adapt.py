"""The adapt command: one depth model for many photos."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from redepth.cli import console, options, progress
from redepth.cli.inputs import find_photos
from redepth.runtime import signals

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.adaptation.record import Adapted, Event


def adapt(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO|FOLDER|GLOB...", help="Photos, folders of photos, or patterns."),
    ],
    preset: options.PresetName = "re-depth-anything",
    overrides: options.Overrides = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the result.")] = Path("out/adapt"),
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHOTO|FOLDER|GLOB",
            help="Photos of other kinds, on which the model shall stay as it is; repeat.",
        ),
    ] = None,
    refined: Annotated[
        Path | None,
        typer.Option(help="Folder of the refined photos, to share between adaptations; by default in --out."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time limit, such as 30m or 8h: the result is then the best so far. If it ends before the "
            "training, there is none, and the exit code is 2."
        ),
    ] = None,
    vram: Annotated[str | None, typer.Option(help="Limit of GPU memory, such as 8GB.")] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_pixels: options.MaxPixels = 100_000_000,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the training in the folder and start again.")
    ] = False,
) -> None:
    """Adapt the depth model to many photos without labels; the same command continues a killed run."""
    from redepth.adaptation.run import adapt as run
    from redepth.runtime.work import use_threads

    if not is_first():
        console.set_quiet(True)
        logging.getLogger("redepth").setLevel(logging.ERROR)
    paths, rejected = find_photos(photos)
    resolved = options.resolved_preset(preset, overrides or [])
    use_threads(threads)
    stages: set[str] = set()
    with _kept(folder), progress.stages() as show:

        def on_event(event: Event) -> None:
            stages.add(event.stage)
            show(event)

        result = run(
            paths,
            resolved,
            folder,
            keep=keep or [],
            refined=refined,
            seed=seed,
            device=device,
            budget=budget,
            vram=vram,
            max_pixels=max_pixels,
            fresh=fresh,
            on_event=on_event,
        )
    # torchrun ends all processes when one fails: the first one alone does, after it has told why.
    if not is_first():
        return
    _print_result(result, already="write" not in stages)
    failed = len(result.failed) + rejected
    if failed:
        console.complain(f"{failed} photos could not be used: repair them, and start again with --fresh")
        raise typer.Exit(console.EXIT_ERROR)


def is_first() -> bool:
    """Return whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """End with the signal's exit code after Ctrl-C, terminate or hang-up, and say what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if is_first():
            console.complain(f"interrupted; what is done is kept in {folder}, and the same command continues")
        raise typer.Exit(signals.exit_code()) from None


def _print_result(result: Adapted, *, already: bool) -> None:
    from redepth.adaptation.record import PRESET_FILE, REPORT_FILE

    if already:
        console.note(Text(f"{result.folder} is finished already (--fresh starts again)"))
    photos = f"{result.training} photos learned from, {len(result.held_out)} held out"
    console.note(Text(f"{photos}, {len(result.left_out)} left out, {result.keep} to keep"))
    if result.before is not None and result.after is not None:
        change = f"{result.before:.2f} % -> {result.after:.2f} %"
        console.note(Text(f"distance to the refinements of held-out photos: {change}, step {result.chosen}"))
    else:
        console.warn("no photos were held out: nothing says whether the result is better (adapt.held_out)")
    if result.chosen == 0 and result.validations:
        console.warn("no step was better than the starting model, so the result is the starting model")
    if not result.finished:
        console.warn(f"{result.stopped}: this is the best so far, and the same command continues")
    console.note(
        Text(f"checkpoint: {result.checkpoint}"),
        Text(f"report: {result.folder / REPORT_FILE}"),
        Text(f"use it: redepth refine PHOTO --preset {quote(str(result.folder / PRESET_FILE))}"),
    )
