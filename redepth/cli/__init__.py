"""The command line: refine, bench, experiment, list, show, doctor.

Heavy modules are imported inside the commands.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.table import Table
from rich.text import Text

from redepth import __version__
from redepth.errors import ConfigError, InputError, RedepthError

if TYPE_CHECKING:
    from redepth.batch import Photo, Refined
    from redepth.bench import Run, Summary
    from redepth.config import Preset
    from redepth.optim.outcome import StepReport
    from redepth.pipeline import Pipeline
    from redepth.priors.prompts import Prompt
    from redepth.refinement import GroundTruth, Refinement
    from redepth.runtime.executors import Resources

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


class Family(str, Enum):
    """What `redepth list` can list."""

    presets = "presets"
    depth_models = "depth-models"
    renderers = "renderers"
    priors = "priors"
    objectives = "objectives"
    datasets = "datasets"
    protocols = "protocols"


class MapKind(str, Enum):
    """What a finished map holds."""

    disparity = "disparity"
    depth = "depth"
    metric_depth = "metric-depth"


class Captioner(str, Enum):
    """Who writes the prompt."""

    none = "none"
    blip = "blip"
    blip2 = "blip2"


class TruthKind(str, Enum):
    """What the ground truth holds."""

    depth = "depth"
    disparity = "disparity"


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise typer.BadParameter(f"'{name}' is not one of auto, cpu, cuda, cuda:0, cuda:1, ..., mps")
    return name


Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N|mps",
        callback=_device,
        help="Where to compute; workers on cuda are spread over all GPUs.",
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override, such as optim.members=3."),
]


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # The plan for a time or memory limit is one line at level INFO.
    logging.getLogger("redepth.optim.planning").setLevel(logging.INFO)
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
    prompt: Annotated[str | None, typer.Option(help="What the prior is told about the photos.")] = None,
    caption: Annotated[
        Captioner | None,
        typer.Option(help="Model that writes the prompt of each photo; by default the preset's."),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams.")] = 0,
    device: Device = "auto",
    budget: Annotated[
        str | None,
        typer.Option(help="Time that each photo may take, such as 60s or 2m: fewer members, then steps."),
    ] = None,
    vram: Annotated[str | None, typer.Option(help="Memory of the GPU that may be used, such as 8GB.")] = None,
    gt: Annotated[
        Path | None,
        typer.Option(help="Ground truth of the photo: npy, npz, pfm, 16-bit png, tiff."),
    ] = None,
    gt_kind: Annotated[TruthKind, typer.Option(help="What it holds.")] = TruthKind.depth,
    mask: Annotated[Path | None, typer.Option(help="Where to measure: picture or npy.")] = None,
    depth: Annotated[
        Path | None,
        typer.Option(help="Refine this map of another tool; for several photos, a folder of maps."),
    ] = None,
    predicts: Annotated[MapKind | None, typer.Option(help="What --depth holds.")] = None,
    sky_mask: Annotated[
        Path | None,
        typer.Option(help="Where the sky is: picture (white) or npy; for several photos, a folder of them."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse photos with more pixels than this.")
    ] = 100_000_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one model copy each.")] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Ray cluster: its address, auto, or local to start one here.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Of several photos, also refine those done.")
    ] = False,
) -> None:
    """Refine photos and write disparity, normals, points, a comparison and a run record for each."""
    from redepth import io
    from redepth.batch import Photo, Refined

    overrides = [*(overrides or []), *_prompt_overrides(prompt, caption), *_limit_overrides(budget, vram)]
    paths, rejected = _find_photos(photos)
    truth = _ground_truth(gt, gt_kind.value, mask, len(paths))
    given = _given_map(depth, predicts, len(paths))
    masks = None if sky_mask is None else io.companions(paths, sky_mask, "--sky-mask")
    _check_writable(folder)
    # What cannot be used is found before minutes go into loading weights.
    failed = {path for path in paths if _unusable(path, max_pixels, truth, masks)}
    usable = [path for path in paths if path not in failed]
    total = len(paths) + rejected
    if not usable:
        raise typer.Exit(EXIT_ERROR)
    folders = dict(zip(paths, io.output_folders(paths, folder), strict=True))
    wanted = _resolved(preset, [*given, *overrides])
    # What a former call was told of the sky is not on record.
    if len(paths) > 1 and not fresh and masks is None:
        usable = _not_done(usable, folders, wanted, seed, prompt)
    if workers > 1 or ray is not None:
        where = _resources(workers, ray, None, device)
        job_options = {"device": device, "seed": seed, "prompt": prompt, "max_pixels": max_pixels}
        skies: dict[Path, Path] = masks or {}
        tasks = [Photo(path, folders[path], skies.get(path)) for path in usable]
        failed |= _refine_elsewhere(wanted, tasks, where, truth, job_options)
        raise typer.Exit(EXIT_ERROR if failed or rejected else 0)
    if not usable:
        raise typer.Exit(EXIT_ERROR if failed or rejected else 0)
    pipeline = _load(preset, [*given, *overrides], device)
    prompts = _prompts(pipeline, usable, prompt, max_pixels)
    job = _Job(pipeline, prompts, seed, max_pixels, truth, masks)
    results: dict[Path, Refined] = {}
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
        results[path] = Refined.of(result)
        for warning in results[path].warnings:
            _warn(f"{path}: {warning}")
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


class _MeasuresByDefault(typer.core.TyperGroup):
    """`redepth bench DATASET` is `redepth bench run DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_MeasuresByDefault,
    help="Measure presets on a data set with ground truth (bench DATASET), or compare two runs.",
    invoke_without_command=True,
)
app.add_typer(bench, name="bench")


@bench.callback()
def bench_default(ctx: typer.Context) -> None:
    """Run on `motorcycle` where no data set is named."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(bench_run, dataset="motorcycle")


@bench.command("run")
def bench_run(
    dataset: Annotated[str, typer.Argument(help="`redepth list datasets`.")] = "motorcycle",
    root: Annotated[Path | None, typer.Option(help="Folder of the official download.")] = None,
    presets: Annotated[list[str] | None, typer.Option("--preset", help="Name or file; repeat.")] = None,
    overrides: Overrides = None,
    protocol: Annotated[str | None, typer.Option(help="Name or file; the data set's own without it.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="Option of the data set's reader, KEY=VALUE; repeat.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="File of image names, one a line.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the run.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one model copy each.")] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Ray cluster: its address, auto, or local to start one here.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each worker.")] = None,
    device: Device = "auto",
    prompt: Annotated[
        str | None, typer.Option(help="What the prior is told about every photo, instead of captions.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams.")] = 0,
    arrays: Annotated[bool, typer.Option("--arrays", help="Also keep every image's maps.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds.")] = False,
) -> None:
    """Refine and measure every image; a run that was killed goes on where it stopped."""
    from redepth import bench as benchmark

    named = presets or ["embedded"]
    run = _benchmark(dataset, root, named, overrides or [], protocol, options or [], split, limit)
    run = run.model_copy(update={"prompt": prompt, "seed": seed})
    where = folder or Path("out/bench") / dataset
    _check_writable(where)
    resources = _resources(workers, ray, threads, device)
    with _task_progress(len(run.images) * len(run.presets), lambda done: done.result.silog) as on_done:
        results, failures = benchmark.run_benchmark(
            run,
            where,
            resources,
            device=device,
            fresh=fresh,
            keep_arrays=arrays,
            on_done=on_done,
        )
    for (preset, image), error in failures.items():
        _complain(f"{image} ({preset}): {error}")
    for preset, rows in benchmark.summarize(run.protocol, results).items() if results else ():
        out.print(_bench_table(f"{dataset}, {preset}, protocol {run.protocol.name}", rows))
    if results:
        out.print(Text(f"report: {where / 'report.html'}"))
    _exit_if_failed(len(failures), len(failures) + len(results))


@bench.command("compare")
def bench_compare(
    a: Annotated[Path, typer.Argument(help="Folder of one run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
) -> None:
    """Compare the refined results of two runs of one protocol, image by image."""
    from redepth.bench import compare

    for found in compare(a, b):
        title = f"{found.preset} ({a}) against {found.other} ({b})"
        out.print(_bench_table(title, found.summaries, before=found.preset, after=found.other))


@app.command("experiment")
def experiment_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="targets, ensemble, prior, renderer, shift or cost.")
    ],
    preset: Annotated[str, typer.Option(help="Preset name or YAML file.")] = "embedded",
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(help="Scenes of each split, or images.")] = 16,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder; by default out/experiments/NAME.")
    ] = None,
    arms: Annotated[list[str] | None, typer.Option("--arm", help="Only this arm; repeat.")] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Split of the synthetic scenes; repeat.")
    ] = None,
    strengths: Annotated[
        list[float] | None, typer.Option("--strength", help="Strength of its shift, 0 to 1; repeat.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the synthetic scenes in pixels.")] = 96,
    dataset: Annotated[str, typer.Option(help="Another data set, `redepth list datasets`.")] = "synthetic",
    root: Annotated[Path | None, typer.Option(help="Folder of its official download.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="Option of its reader, KEY=VALUE; repeat.")
    ] = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Take the images that settings are tuned on.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one model copy each.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each worker.")] = None,
    device: Device = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds.")] = False,
) -> None:
    """Run one of the paper's studies: arms side by side on the same images, lights and seeds."""
    from redepth.experiments import run, study, summary

    planned = study.plan(
        name,
        preset,
        overrides or [],
        images=images,
        arms=arms or [],
        splits=splits or [],
        strengths=strengths or [],
        size=size,
        dataset=dataset,
        options=_reader_options(root, options or []),
        tuning=tuning,
        seed=seed,
    )
    where = folder or Path("out/experiments") / (f"{name}-tuning" if tuning else name)
    _check_writable(where)
    for left_out, reason in planned.skipped.items():
        _warn(f"skipped: {left_out}: {reason}")
    resources = _resources(workers, None, threads, device)
    try:
        with _task_progress(len(planned.tasks()), lambda done: done.result.silog) as on_done:
            rows, failures = run.run_study(
                planned, where, resources, device=device, fresh=fresh, on_done=on_done
            )
    except KeyboardInterrupt:
        _complain(f"interrupted; what is done is kept in {where}, the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for (arm, scene), error in failures.items():
        _complain(f"{scene} ({arm}): {error}")
    if rows:
        title, head, lines = summary.table(planned, summary.write(planned, rows, failures, where))
        table = _table(title, *head)
        for line in lines:
            table.add_row(*map(Text, line))
        out.print(table)
        for left_out, reason in planned.skipped.items():
            out.print(Text(f"skipped: {left_out}: {reason}"))
        out.print(Text(f"rows, summary and plot: {where}"))
    _exit_if_failed(len(failures), len(planned.tasks()))


@app.command("list")
def list_(
    family: Annotated[Family | None, typer.Argument(help="One family; all without it.")] = None,
) -> None:
    """List presets and components, those of other packages included; one family with what each lacks here."""
    from redepth.cli import doctor as checks
    from redepth.components import list_components

    for name in [family.value] if family else [f.value for f in Family]:
        # Only the family that was asked for is tried: that imports its components and may ask the hub.
        needs = {check.what: check for check in checks.family(name)} if family else {}
        licences = _licences(name)
        columns = [*(["licence of the weights"] if licences else []), *(["to run it here"] if family else [])]
        table = _table(name, "name", "what it is", *columns)
        for component, summary in list_components(name).items():
            row = [Text(component), Text(summary)]
            if licences:
                row.append(Text(licences[component]))
            if component in needs:
                # What is missing; `doctor` has the rest of the line, what to do about it.
                row.append(Text(needs[component].cure.partition(": ")[0] or "nothing more"))
            table.add_row(*row)
        out.print(table)
        if any(check.cure for check in needs.values()):
            out.print("redepth doctor says how to get what is missing.", highlight=False)


def _licences(family: str) -> dict[str, str]:
    """Return the licence of each component's weights, where those of a family have any."""
    from redepth.components import FAMILIES

    entries = FAMILIES[family].entries() if family in FAMILIES else {}
    found = {name: entry.licence for name, entry in entries.items()}
    return found if any(found.values()) else {}


@app.command()
def show(
    preset: Annotated[str, typer.Argument(help="Preset name or YAML file.")] = "re-depth-anything",
    overrides: Overrides = None,
) -> None:
    """Print a preset as it would run: parents merged, overrides applied, every default written out."""
    from redepth.components import resolve
    from redepth.config import load_preset

    # Plain print: rich would wrap long lines, and the output is meant to be saved as a file.
    sys.stdout.write(resolve(load_preset(preset, overrides or [])).to_yaml())


@app.command()
def doctor() -> None:
    """Check this machine: versions, devices, extras, hub, cache, embedded weights, every component."""
    from redepth.cli import doctor as checks

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
    prompts: dict[Path, Prompt]
    seed: int
    max_pixels: int
    truth: GroundTruth | None
    sky_masks: dict[Path, Path] | None

    def run(self, path: Path) -> Refinement:
        from redepth import io

        sky = None
        if self.sky_masks is not None:
            sky = io.load_mask(self.sky_masks[path], max_pixels=self.max_pixels, may_be_empty=True)
        every = self.pipeline.preset.optim.performance.read_losses_every
        with _progress(path.name, every) as on_step:
            return self.pipeline.refine(
                path,
                prompt=self.prompts[path],
                seed=self.seed,
                on_step=on_step,
                ground_truth=self.truth,
                max_pixels=self.max_pixels,
                sky_mask=sky,
            )


def _prompt_overrides(prompt: str | None, caption: Captioner | None) -> list[str]:
    """Return what the options say of the preset's captioner."""
    if prompt is not None and caption is not None:
        raise ConfigError("--prompt and --caption exclude each other: the prompt is given, or it is written")
    if prompt is not None:
        return ["prompt.captioner=none"]
    return [] if caption is None else [f"prompt.captioner={caption.value}"]


def _limit_overrides(budget: str | None, vram: str | None) -> list[str]:
    """Return what the options say of time and memory."""
    given = {"budget": budget, "vram": vram}
    return [f"optim.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


def _prompts(
    pipeline: Pipeline, paths: list[Path], prompt: str | None, max_pixels: int
) -> dict[Path, Prompt]:
    """Return what the prior is told about each photo; captions are all written first, and shown."""
    from redepth.priors.prompts import Prompt

    if prompt is not None:
        return dict.fromkeys(paths, Prompt(prompt))
    with _status("captioning"):
        found = pipeline.captions(paths, max_pixels=max_pixels)
    for path, told in zip(paths, found, strict=True):
        if told.text:
            out.print(f"{path}: {told.text} ({told.origin['from']})", markup=False, highlight=False)
    return dict(zip(paths, found, strict=True))


def _resolved(preset: str, overrides: list[str]) -> Preset:
    from redepth.components import resolve
    from redepth.config import load_preset

    return resolve(load_preset(preset, overrides))


def _resources(workers: int, ray: str | None, threads: int | None, device: str) -> Resources:
    """Say where work runs; a GPU that is named is every worker's, else all GPUs are shared out."""
    import torch

    from redepth.runtime.device import choose_device
    from redepth.runtime.executors import Resources

    if ray is not None and device.startswith("cuda:"):
        raise ConfigError(f"Ray gives each worker its own GPU: --device cuda in place of {device}")
    # Ray's workers may find what is not here.
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if ray is not None:
        gpus = max(gpus, int(device == "cuda"))
    else:
        choose_device(device)
    return Resources(workers=workers, ray=ray, threads=threads, gpus=min(gpus, workers))


def _not_done(
    paths: list[Path], folders: dict[Path, Path], preset: Preset, seed: int, prompt: str | None
) -> list[Path]:
    """Return the photos that a former call has not refined already; the others are counted."""
    from redepth.batch import Photo, is_done

    left = [path for path in paths if not is_done(Photo(path, folders[path]), preset, seed, prompt)]
    if len(left) < len(paths):
        out.print(
            f"{len(paths) - len(left)} of {len(paths)} photos are done already (--fresh does them again)"
        )
    return left


def _refine_elsewhere(
    preset: Preset,
    photos: list[Photo],
    resources: Resources,
    truth: GroundTruth | None,
    options: dict[str, Any],
) -> set[Path]:
    """Refine photos in other processes, print what became of them, and return those that failed."""
    from rich.progress import track

    from redepth.batch import refine_photos

    if truth is not None:
        raise ConfigError("--gt belongs to one photo: leave --workers and --ray out")
    results, failed = {}, set()
    outcomes = refine_photos(preset, photos, resources, **options)
    for done in track(outcomes, "refining", total=len(photos), console=err):
        path = done.given.path
        if done.result is None:
            _complain(_about(path, done.error))
            failed.add(path)
            continue
        results[path] = done.result
        for warning in done.result.warnings:
            _warn(f"{path}: {warning}")
        if done.result.reason:
            _complain(_about(path, f"{done.result.reason}; what was done is kept, marked partial"))
            failed.add(path)
    if results:
        folders = {photo.path: photo.folder for photo in photos}
        out.print(_summary({path: results[path] for path in folders if path in results}, folders))
    return failed


def _load(preset: str, overrides: list[str], device: str) -> Pipeline:
    from redepth.pipeline import Pipeline
    from redepth.runtime.allocator import keep_freed_memory

    with _status(f"loading preset {preset}"):
        pipeline = Pipeline(preset, overrides=overrides, device=device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()
    return pipeline


def _benchmark(
    dataset: str,
    root: Path | None,
    presets: list[str],
    overrides: list[str],
    protocol: str | None,
    options: list[str],
    split: Path | None,
    limit: int | None,
) -> Run:
    """Check everything about a run before any image is read."""
    from redepth import protocols
    from redepth.bench import Run

    chosen = protocols.load_protocol(protocol or protocols.protocol_for(dataset))
    given = _reader_options(root, options)
    reader = protocols.open_dataset(chosen, dataset, given)
    listed = protocols.read_names(split) if split is not None else None
    if limit is not None:
        listed = (listed or protocols.select(chosen, reader, partial=True)[1])[:limit]
    pinned, images = protocols.select(chosen, reader, listed, partial=limit is not None)
    resolved = {}
    for name in presets:
        preset = _resolved(name, overrides)
        resolved[preset.name if preset.name not in resolved else name] = preset
    return Run(dataset=dataset, options=given, images=images, protocol=pinned, presets=resolved)


def _reader_options(root: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the options of a data set's reader, as JSON can hold them."""
    import yaml

    given: dict[str, Any] = {} if root is None else {"root": str(root)}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"--option {option}: give KEY=VALUE")
        given[key] = yaml.safe_load(value)
    return given


@contextmanager
def _task_progress(
    total: int, silog: Callable[[Any], tuple[float, float]]
) -> Iterator[Callable[[Any, int, int], None]]:
    """Show tasks done, the last one's result and time left on stderr.

    ``silog`` reads a done task's SI-log before and after.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=total)

        def on_done(done: Any, ended: int, of: int) -> None:
            variant, image = done.given
            if done.result is None:
                progress.console.print(Text(f"{image} ({variant}): {done.error}", "red"))
                said = f"{image} failed"
            else:
                before, after = silog(done)
                said = f"{variant}: {image} SI-log {before:.2f} -> {after:.2f}"
            progress.update(task, completed=ended, total=of, description=said)

        yield on_done


def _exit_if_failed(failed: int, total: int) -> None:
    if failed:
        _complain(f"{failed} of {total} failed; the same command tries them again")
        raise typer.Exit(EXIT_ERROR)


def _bench_table(
    title: str, rows: Sequence[Summary], before: str = "initial", after: str = "refined"
) -> Table:
    table = _table(title, "metric", before, after, "change", "95 % interval", "improved")
    for row in rows:
        finite = row.change == row.change
        table.add_row(
            row.metric,
            f"{row.initial:.4g}",
            f"{row.refined:.4g}",
            f"{row.change:+.1f} %" if finite else "-",
            f"{row.low:+.1f} to {row.high:+.1f} %" if finite and row.images > 1 else "-",
            f"{100 * row.wins:.0f} %",
        )
    return table


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


def _given_map(path: Path | None, kind: MapKind | None, photos: int) -> list[str]:
    """Return the overrides that take depth from a file; those of the user come after them."""
    if path is None and kind is None:
        return []
    if path is None or kind is None:
        kinds = "|".join(k.value for k in MapKind)
        raise ConfigError(f"--depth FILE|FOLDER and --predicts {kinds} go together")
    if photos != 1 and path.is_file():
        raise ConfigError(f"--depth {path} belongs to one photo, {photos} were given; give a folder of maps")
    return [
        "depth_model.name=precomputed",
        f"depth_model.path={json.dumps(str(path))}",
        f"depth_model.predicts={kind.value}",
        "optim.parameterization=low-rank",
    ]


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
def _status(doing: str) -> Iterator[None]:
    """Show what is being done on stderr, and what is downloaded meanwhile.

    A terminal shows how much of a file is here; elsewhere a line for each repository has to do.
    """
    from redepth import checkpoints

    with err.status(doing) as status:

        class Shown(checkpoints.Watcher):
            def line(self, text: str) -> None:
                err.print(text, markup=False, highlight=False, soft_wrap=True)

            def bytes(self, name: str, done: int, size: int | None) -> None:
                of = "" if size is None else f" of {checkpoints.size_text(size)}"
                said = f"downloading {checkpoints.size_text(done)}{of}: {name}"
                # A narrow terminal cuts the name, not the figures.
                shown = Text(said, no_wrap=True, overflow="ellipsis")
                status.update(doing if done == size else shown)

        with checkpoints.watched(Shown()):
            yield


@contextmanager
def _progress(name: str, every: int) -> Iterator[Callable[[StepReport], None]]:
    """Show steps, members, the loss when it is read anyway, and time left on stderr."""
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
        task, loss = progress.add_task(name, total=None, detail=""), 0.0

        def on_step(report: StepReport) -> None:
            nonlocal loss
            # Within a time or memory limit, how many there are is known now only.
            total = report.steps * report.of_members
            done = report.members.start * report.steps + report.step * len(report.members)
            if report.step == 1 or report.step % every == 0:
                loss = float(report.losses["total"].mean())
            # Short enough for a terminal of 80 columns.
            who = f"members {report.members.start + 1}-{report.members.stop}/{report.of_members}"
            detail = f"step {report.step}/{report.steps} {who} loss {loss:.3g}"
            progress.update(task, total=total, completed=done, detail=detail)

        yield on_step


def _summary(results: dict[Path, Refined], folders: dict[Path, Path]) -> Table:
    table = _table("", "photo", "size", "members x steps", "change", "SI-log", "seconds", "folder")
    for path, result in results.items():
        table.add_row(
            Text.assemble(path.name, (" (partial)", "yellow") if result.reason else ""),
            f"{result.size[1]} x {result.size[0]}",
            f"{result.members} x {result.steps}",
            f"{100 * result.change:.1f} %",
            f"{result.silog[0]:.2f} -> {result.silog[1]:.2f}" if result.silog else "-",
            f"{result.seconds:.1f}",
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
