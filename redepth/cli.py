"""The command line: refine, list, show, doctor. Heavy modules are imported inside the commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from redepth import __version__
from redepth.errors import ConfigError, InputError, RedepthError

if TYPE_CHECKING:
    from redepth.optim.refiner import StepReport
    from redepth.pipeline import Pipeline
    from redepth.refinement import GroundTruth, Refinement

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="redepth",
    help="Refine the depth of a photo at test time: re-light it, let a 2D diffusion prior judge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Family(str, Enum):
    """What `redepth list` can list."""

    presets = "presets"
    depth_models = "depth-models"
    renderers = "renderers"
    priors = "priors"
    objectives = "objectives"


class TruthKind(str, Enum):
    """What the ground truth holds."""

    depth = "depth"
    disparity = "disparity"


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override, such as optim.members=3."),
]


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        app()
    except RedepthError as error:
        _complain(str(error))
        sys.exit(EXIT_ERROR)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command()
def refine(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO|FOLDER|GLOB...")],
    preset: Annotated[str, typer.Option(help="Preset name or YAML file.")] = "re-depth-anything",
    overrides: Overrides = None,
    prompt: Annotated[str, typer.Option(help="What the prior is told about the photo.")] = "",
    folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    gt: Annotated[
        Path | None,
        typer.Option(help="Ground truth of the photo: npy, npz, pfm, 16-bit png, tiff."),
    ] = None,
    gt_kind: Annotated[TruthKind, typer.Option(help="What it holds.")] = TruthKind.depth,
    mask: Annotated[Path | None, typer.Option(help="Where to measure: picture or npy.")] = None,
    sky_mask: Annotated[
        Path | None,
        typer.Option(help="Where the sky is: picture (white) or npy; for several photos, a folder of them."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse photos with more pixels than this.")
    ] = 100_000_000,
) -> None:
    """Refine photos and write disparity, normals, points, a comparison and a run record for each."""
    from redepth import io

    paths, rejected = _find_photos(photos)
    truth = _ground_truth(gt, gt_kind.value, mask, len(paths))
    masks = None if sky_mask is None else io.companions(paths, sky_mask, "--sky-mask")
    _check_writable(folder)
    # What cannot be used is found before minutes go into loading weights.
    failed = {path for path in paths if _unusable(path, max_pixels, truth, masks)}
    usable = [path for path in paths if path not in failed]
    total = len(paths) + rejected
    if not usable:
        raise typer.Exit(EXIT_ERROR)
    pipeline = _load(preset, overrides or [], device.value)
    job = _Job(pipeline, prompt, seed, max_pixels, truth, masks)
    folders = dict(zip(paths, io.output_folders(paths, folder), strict=True))
    results: dict[Path, Refinement] = {}
    interrupted = False
    for path in usable:
        try:
            result = job.run(path)
        except KeyboardInterrupt:
            _complain(f"{path}: interrupted before its first step, nothing of it is kept")
            interrupted = True
            break
        except RedepthError as error:
            _complain(_about(path, error))
            failed.add(path)
            continue
        try:
            result.save(folders[path])
        except (RedepthError, OSError) as error:
            _complain(_about(path, error))
            failed.add(path)
            continue
        results[path] = result
        for signature in result.flagged:
            _warn(f"{path}: {signature.warning}")
        if result.partial:
            _complain(_about(path, f"{result.outcome.reason}; what was done is kept, marked partial"))
            failed.add(path)
        # A member that diverges ends its own photo alone, Ctrl-C ends them all.
        interrupted = result.outcome.reason == "interrupted"
        if interrupted:
            break
    if results:
        out.print(_summary(results, folders))
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if failed or rejected:
        if total > 1:
            _complain(f"{len(failed) + rejected} of {total} inputs failed")
        raise typer.Exit(EXIT_ERROR)


@app.command("list")
def list_(
    family: Annotated[Family | None, typer.Argument(help="One family; all without it.")] = None,
) -> None:
    """List presets and components, those of installed third-party packages included."""
    from redepth.pipeline import list_components

    for name in [family.value] if family else [f.value for f in Family]:
        table = _table(name, "name", "what it is")
        for component, summary in list_components(name).items():
            table.add_row(Text(component), Text(summary))
        out.print(table)


@app.command()
def show(
    preset: Annotated[str, typer.Argument(help="Preset name or YAML file.")] = "re-depth-anything",
    overrides: Overrides = None,
) -> None:
    """Print a preset as it would run: parents merged, overrides applied, every default written out."""
    from redepth.config import load_preset
    from redepth.pipeline import resolve

    # Plain print: rich would wrap long lines, and the output is meant to be saved as a file.
    sys.stdout.write(resolve(load_preset(preset, overrides or [])).to_yaml())


@app.command()
def doctor() -> None:
    """Check this machine: versions, devices, extras, hub, cache, embedded weights, every component."""
    from redepth import doctor as checks

    healthy = True
    for section, rows in checks.report().items():
        table = _table(section, "", "what", "found", "to make it run")
        for row in rows:
            sign = Text("ok", "green") if row.ok else Text("no", "red")
            table.add_row(sign, Text(row.what), Text(row.found), Text(row.cure))
            healthy &= row.ok or not row.vital
        out.print(table)
    if not healthy:
        raise typer.Exit(EXIT_ERROR)


@dataclass(frozen=True)
class _Job:
    """What is the same for all photos of a call."""

    pipeline: Pipeline
    prompt: str
    seed: int
    max_pixels: int
    truth: GroundTruth | None
    sky_masks: dict[Path, Path] | None

    def run(self, path: Path) -> Refinement:
        from redepth import io

        sky = None
        if self.sky_masks is not None:
            sky = io.load_mask(self.sky_masks[path], max_pixels=self.max_pixels, may_be_empty=True)
        optim = self.pipeline.preset.optim
        with _progress(path.name, optim.steps, optim.members) as on_step:
            return self.pipeline.refine(
                path,
                prompt=self.prompt,
                seed=self.seed,
                on_step=on_step,
                ground_truth=self.truth,
                max_pixels=self.max_pixels,
                sky_mask=sky,
            )


def _load(preset: str, overrides: list[str], device: str) -> Pipeline:
    from redepth.pipeline import Pipeline

    with err.status(f"loading preset {preset}"):
        return Pipeline(preset, overrides=overrides, device=device)


def _ground_truth(path: Path | None, kind: Any, mask: Path | None, photos: int) -> GroundTruth | None:
    if path is None:
        if mask is not None:
            raise ConfigError("--mask says where to measure: it needs --gt")
        return None
    if photos != 1:
        raise ConfigError(f"--gt belongs to one photo, {photos} were given")
    from redepth import io
    from redepth.refinement import GroundTruth

    return GroundTruth(io.load_depth_map(path), kind, None if mask is None else io.load_mask(mask))


def _find_photos(inputs: list[str]) -> tuple[list[Path], int]:
    """Return the photos, and how many inputs have none; the others still run."""
    from redepth import io

    found: list[Path] = []
    rejected = 0
    for given in inputs:
        try:
            found += io.find_photos([given])
        except RedepthError as error:
            _complain(str(error))
            rejected += 1
    if not found:
        raise typer.Exit(EXIT_ERROR)
    # Once more, all together: a photo that two inputs name runs once.
    return io.find_photos(found), rejected


def _unusable(
    path: Path, max_pixels: int, truth: GroundTruth | None, sky_masks: dict[Path, Path] | None
) -> bool:
    """Say why a photo cannot be refined, if it cannot."""
    from redepth import io

    try:
        # Decoded in full: a truncated file shows only at its end, and minutes of work may come before it.
        photo = io.load_photo(path, max_pixels=max_pixels)
        if truth is not None:
            truth.check(*photo.shape[:2])
        if sky_masks is not None:
            _check_sky_mask(sky_masks.get(path), max_pixels, *photo.shape[:2])
    except RedepthError as error:
        _complain(_about(path, error))
        return True
    return False


def _check_sky_mask(path: Path | None, max_pixels: int, height: int, width: int) -> None:
    from redepth import io

    if path is None:
        raise InputError(
            "--sky-mask: its folder must hold one file of this photo's name, whatever the suffix"
        )
    mask = io.load_mask(path, max_pixels=max_pixels, may_be_empty=True)
    io.check_size(f"sky mask '{path}'", mask.shape, height, width)


def _check_writable(folder: Path) -> None:
    """Find now that the results could not be written."""
    nearest = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if not nearest.is_dir():
        raise ConfigError(f"--out {folder}: '{nearest}' is not a folder; choose another one")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"--out {folder}: '{nearest}' cannot be written to; choose another one")


@contextmanager
def _progress(name: str, steps: int, members: int) -> Iterator[Callable[[StepReport], None]]:
    """Show steps, members, loss and time left on stderr."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(name, total=steps * members, detail="")

        def on_step(report: StepReport) -> None:
            done = report.members.start * steps + report.step * len(report.members)
            loss = float(report.losses["total"].mean())
            # Short enough for a terminal of 80 columns.
            who = f"members {report.members.start + 1}-{report.members.stop}/{report.of_members}"
            detail = f"step {report.step}/{report.steps} {who} loss {loss:.3g}"
            progress.update(task, completed=done, detail=detail)

        yield on_step


def _summary(results: dict[Path, Refinement], folders: dict[Path, Path]) -> Table:
    table = _table("", "photo", "size", "members x steps", "change", "SI-log", "seconds", "folder")
    for path, result in results.items():
        height, width = result.photo.shape[:2]
        span = float(result.initial.max() - result.initial.min())
        change = float(abs(result.refined - result.initial).mean()) / span if span else 0.0
        scores = [e.metrics["silog"] for e in result.evaluations.values()]
        table.add_row(
            Text.assemble(path.name, (" (partial)", "yellow") if result.partial else ""),
            f"{width} x {height}",
            f"{len(result.outcome.members)} x {max(result.outcome.steps_done)}",
            f"{100 * change:.1f} %",
            f"{scores[0]:.2f} -> {scores[1]:.2f}" if scores else "-",
            f"{result.outcome.seconds:.1f}",
            Text(str(folders[path])),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    """Make a table that folds what is too long; cutting it off would lose paths and commands."""
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _about(path: Path, problem: Exception | str) -> str:
    """Name the photo in front of a problem, once."""
    text = str(problem)
    return text if text.startswith(str(path)) else f"{path}: {text}"


def _complain(message: str) -> None:
    _say("[bold red]error:[/] ", message)


def _warn(message: str) -> None:
    _say("[bold yellow]warning:[/] ", message)


def _say(kind: str, message: str) -> None:
    err.print(kind, end="")
    err.print(" ".join(message.split()), markup=False, highlight=False, soft_wrap=True)
