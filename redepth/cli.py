"""The command line: refine, list, show, doctor. Heavy modules are imported inside the commands."""

from __future__ import annotations

import logging
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

from redepth import __version__
from redepth.errors import RedepthError

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
    except KeyboardInterrupt:
        _complain("interrupted before anything was done")
        sys.exit(EXIT_INTERRUPTED)


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
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse photos with more pixels than this.")
    ] = 100_000_000,
) -> None:
    """Refine photos and write disparity, normals, points, a comparison and a run record for each."""
    from redepth import io

    paths = io.find_photos(photos)
    truth = _ground_truth(gt, gt_kind.value, mask, len(paths))
    # Photos that cannot be read are found before minutes go into loading weights.
    failures = {path: problem for path in paths if (problem := _unreadable(path, max_pixels))}
    for problem in failures.values():
        _complain(problem)
    readable = [path for path in paths if path not in failures]
    if not readable:
        raise typer.Exit(EXIT_ERROR)
    pipeline = _load(preset, overrides or [], device.value)
    job = _Job(pipeline, prompt, seed, max_pixels, truth)
    folders = dict(zip(paths, io.output_folders(paths, folder), strict=True))
    results: dict[Path, Refinement] = {}
    for path in readable:
        try:
            results[path] = job.run(path)
            results[path].save(folders[path])
        except RedepthError as error:
            failures[path] = str(error)
            _complain(f"{path}: {error}")
            continue
        if results[path].partial:
            break
    out.print(_summary(results, folders))
    _exit(results, failures, len(readable))


@app.command("list")
def list_(
    family: Annotated[Family | None, typer.Argument(help="One family; all without it.")] = None,
) -> None:
    """List presets and components, those of installed third-party packages included."""
    from redepth.pipeline import list_components

    for name in [family.value] if family else [f.value for f in Family]:
        table = Table("name", "what it is", title=name, title_justify="left")
        for component, summary in list_components(name).items():
            table.add_row(component, summary)
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
        table = Table("", "what", "found", "to make it run", title=section, title_justify="left")
        for row in rows:
            table.add_row("[green]ok[/]" if row.ok else "[red]no[/]", row.what, row.found, row.cure)
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

    def run(self, path: Path) -> Refinement:
        optim = self.pipeline.preset.optim
        with _progress(path.name, optim.steps, optim.members) as on_step:
            return self.pipeline.refine(
                path,
                prompt=self.prompt,
                seed=self.seed,
                on_step=on_step,
                ground_truth=self.truth,
                max_pixels=self.max_pixels,
            )


def _load(preset: str, overrides: list[str], device: str) -> Pipeline:
    from redepth.pipeline import Pipeline

    with err.status(f"loading preset {preset}"):
        return Pipeline(preset, overrides=overrides, device=device)


def _ground_truth(path: Path | None, kind: Any, mask: Path | None, photos: int) -> GroundTruth | None:
    if path is None:
        if mask is not None:
            raise typer.BadParameter("--mask says where to measure: it needs --gt")
        return None
    if photos != 1:
        raise typer.BadParameter(f"--gt belongs to one photo, {photos} were given")
    from redepth import io
    from redepth.refinement import GroundTruth

    return GroundTruth(io.load_depth_map(path), kind, None if mask is None else io.load_mask(mask))


def _unreadable(path: Path, max_pixels: int) -> str | None:
    """Return why a photo cannot be refined, or None."""
    from redepth import io

    try:
        io.load_photo(path, max_pixels=max_pixels)
    except RedepthError as error:
        return str(error)
    return None


@contextmanager
def _progress(name: str, steps: int, members: int) -> Iterator[Callable[[StepReport], None]]:
    """Show steps, members, loss and time left on stderr."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(name, total=steps * members, detail="")

        def on_step(report: StepReport) -> None:
            done = report.members.start * steps + report.step * len(report.members)
            loss = float(report.losses["total"].mean())
            last = report.members.stop
            who = f"members {report.members.start + 1}-{last} of {report.of_members}"
            detail = f"step {report.step}/{report.steps}, {who}, loss {loss:.4g}"
            progress.update(task, completed=done, detail=detail)

        yield on_step


def _summary(results: dict[Path, Refinement], folders: dict[Path, Path]) -> Table:
    table = Table("photo", "size", "members", "steps", "change", "SI-log", "seconds", "folder")
    for path, result in results.items():
        height, width = result.photo.shape[:2]
        span = float(result.initial.max() - result.initial.min())
        change = float(abs(result.refined - result.initial).mean()) / span if span else 0.0
        scores = [e.metrics["silog"] for e in result.evaluations.values()]
        table.add_row(
            path.name + (" [yellow](partial)[/]" if result.partial else ""),
            f"{width} x {height}",
            str(len(result.outcome.members)),
            str(max(result.outcome.steps_done)),
            f"{100 * change:.1f} % of range",
            f"{scores[0]:.2f} -> {scores[1]:.2f}" if scores else "-",
            f"{result.outcome.seconds:.1f}",
            str(folders[path]),
        )
    return table


def _exit(results: dict[Path, Refinement], failures: dict[Path, str], readable: int) -> None:
    if any(result.partial for result in results.values()):
        reasons = {r.outcome.reason for r in results.values() if r.partial}
        _complain(f"{', '.join(reasons)}: kept what was done, marked as partial")
        raise typer.Exit(EXIT_INTERRUPTED)
    if failures:
        total = readable + sum(path not in results for path in failures)
        _complain(f"{len(failures)} of {total} photos failed")
        raise typer.Exit(EXIT_ERROR)


def _complain(message: str) -> None:
    err.print("[bold red]error:[/] ", end="")
    err.print(" ".join(message.split()), markup=False, highlight=False, soft_wrap=True)
