"""The refine command: options become a `RefineRequest`, `redepth.batch` runs it, the outcomes are printed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.text import Text

from redepth.cli import clip, console, options, photo_options, progress
from redepth.cli.inputs import TruthReader, find_photos, prompt_overrides
from redepth.cli.tables import Table
from redepth.errors import ConfigError
from redepth.literals import CaptionerChoice, MapKind, Predicts
from redepth.runtime import signals
from redepth.runtime.output import results_folder

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.batch import Photo, Refined, Settings
    from redepth.ground_truth import GroundTruth
    from redepth.runtime.executors import Done, Resources


def refine(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO|FOLDER|GLOB|VIDEO...", help="Photos, folders of photos, patterns, or videos."
        ),
    ],
    preset: options.PresetName = "re-depth-anything",
    overrides: options.Overrides = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt for the prior, the same for every photo.")
    ] = None,
    caption: Annotated[
        CaptionerChoice | None,
        typer.Option(help="Captioner that writes a prompt for each photo; by default the preset's."),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("out"),
    seed: options.Seed = 0,
    device: options.Device = "auto",
    budget: Annotated[
        str | None,
        typer.Option(help="Time limit per photo, such as 60s or 2m: reduces members first, then steps."),
    ] = None,
    vram: Annotated[str | None, typer.Option(help="Limit of GPU memory, such as 8GB.")] = None,
    gt: Annotated[
        Path | None,
        typer.Option(help="Ground truth of the photo: npy, npz, pfm, 16-bit png, tiff."),
    ] = None,
    gt_kind: options.TruthKind = "depth",
    gt_offset: options.TruthOffset = 0.0,
    mask: Annotated[
        Path | None, typer.Option(help="Where to measure against --gt: picture (white) or npy.")
    ] = None,
    protocol: options.TruthProtocol = "photo",
    depth: Annotated[
        Path | None,
        typer.Option(help="Refine this depth map of another tool; for several photos, a folder of maps."),
    ] = None,
    predicts: Annotated[MapKind | None, typer.Option(help="Kind of map in --depth.")] = None,
    fov: photo_options.FieldOfView = None,
    intrinsics: photo_options.IntrinsicsOption = None,
    camera: photo_options.CameraOption = None,
    panorama: photo_options.PanoramaOption = False,
    sky_mask: photo_options.SkyMaskOption = None,
    anchors: photo_options.AnchorsOption = None,
    guide: photo_options.GuideOption = False,
    normals: photo_options.NormalsOption = None,
    normals_frame: photo_options.NormalsFrameOption = "redepth",
    planes: photo_options.PlanesOption = None,
    albedo: photo_options.AlbedoOption = None,
    sequence: clip.SequenceOption = False,
    frames: clip.FramesOption = None,
    max_frames: clip.MaxFramesOption = None,
    motion: clip.MotionOption = None,
    fps: clip.FpsOption = None,
    write: options.Write = None,
    max_pixels: options.MaxPixels = 100_000_000,
    workers: options.Workers = 1,
    ray: options.RayAddress = None,
    threads: options.Threads = None,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With several photos, also refine those that are already done.")
    ] = False,
) -> None:
    """Refine photos or clips and write a folder for each: the map, a comparison, a record, or --write."""
    from redepth.batch import Settings
    from redepth.pipeline import albedo_overrides, guided

    written = [] if write is None else [f"output.write={json.dumps(write)}"]
    lit = [] if albedo is None else albedo_overrides(albedo)
    option_overrides = [*prompt_overrides(prompt, caption), *_limit_overrides(budget, vram), *lit, *written]
    clips, photos = clip.split_inputs(photos, sequence)
    clip_options = clip.clip_options(frames, max_frames, motion, fps)
    if not clips:
        clip_options.refuse()
    else:
        clip.refuse_options(
            {
                "--gt": gt is not None,
                "--mask": mask is not None,
                "--protocol": protocol != "photo",
                "--depth": depth is not None,
                "--predicts": predicts is not None,
                "--panorama": panorama,
                "--sky-mask": sky_mask is not None,
                "--anchors": anchors is not None,
                "--guide": guide,
                "--normals": normals is not None,
                "--planes": planes is not None,
                "--workers": workers > 1,
                "--ray": ray is not None,
            }
        )
    estimated = photo_options.estimates_normals(normals, normals_frame)
    if estimated:
        normals = None
    paths, rejected = find_photos(photos) if photos else ([], 0)
    truth = _ground_truth(gt, gt_kind, gt_offset, mask, protocol, len(paths), max_pixels)
    given = photo_options.given_inputs(
        [*paths, *clips],
        fov=fov,
        intrinsics=intrinsics,
        camera=camera,
        panorama=panorama,
        sky_mask=sky_mask,
        max_pixels=max_pixels,
        anchors=anchors,
        normals=normals,
        normals_frame=normals_frame,
        planes=planes,
    )
    # Overrides of the user come after those of --depth, which they may refine.
    overrides = [*_map_overrides(depth, predicts, len(paths)), *(overrides or []), *option_overrides]
    resolved = options.resolved_preset(preset, overrides)
    given.check(resolved)
    resources = options.resources(workers, ray, threads, device)
    clip_request = None
    if clips:
        clip_request = clip.ClipRequest(
            paths=clips,
            out=folder,
            settings=clip.settings_of(clip.for_frames(resolved, write), device, seed, prompt, motion),
            given=given,
            options=clip_options,
            max_pixels=max_pixels,
            fresh=fresh,
        )
        clip_request.check()
    resolved = guided(
        resolved,
        anchors=anchors is not None,
        guide=guide,
        normals=normals is not None,
        planes=planes is not None,
        estimated_normals=estimated,
    )
    request = RefineRequest(
        paths=paths,
        rejected=rejected,
        out=folder,
        truth=truth,
        given=given,
        settings=Settings(resolved, device, seed, prompt, max_pixels),
        resources=resources,
        fresh=fresh,
    )
    with results_folder(folder):
        raise typer.Exit(_run_all(request, clip_request))


def _run_all(request: RefineRequest, clip_request: clip.ClipRequest | None) -> int:
    """Refine the photos, then the clips, and return the worse exit code; a signal ends both."""
    code = run(request) if request.paths or request.rejected else 0
    if clip_request is None or code > console.EXIT_ERROR:
        return code
    return max(code, clip.run(clip_request))


@dataclass(frozen=True)
class RefineRequest:
    """A call of ``redepth refine``: its options, checked as far as no photo is needed.

    Attributes:
        paths: of the photos, each once.
        rejected: how many inputs hold no photo.
        out: folder of the results.
        truth: ground truth of the one photo.
        given: what is given with each photo.
        settings: the same for all photos.
        resources: where the work runs.
        fresh: also refine photos that are done.
    """

    paths: Sequence[Path]
    rejected: int
    out: Path
    truth: GroundTruth | None
    given: photo_options.GivenInputs
    settings: Settings
    resources: Resources
    fresh: bool


@dataclass
class Results:
    """The outcomes so far."""

    failed: int = 0
    interrupted: bool = False
    refined: dict[Path, Refined] = field(default_factory=dict)

    def fail(self, path: Path, problem: str) -> None:
        """Count a photo as failed and print why."""
        console.complain(console.about(path, problem))
        self.failed += 1

    def add(self, done: Done[Photo, Refined]) -> None:
        """Add the outcome of a refinement and print its problems."""
        path, result = done.item.path, done.result
        if result is None:
            self.interrupted |= done.interrupted
            self.fail(path, done.error)
            return
        self.refined[path] = result
        for warning in result.warnings:
            console.warn(f"{path.name}: {warning}")
        self.interrupted |= result.interrupted
        for problem in result.problems:
            console.complain(console.about(path, problem))
        self.failed += bool(result.problems)


def run(request: RefineRequest) -> int:
    """Refine the photos of a request, print the outcomes and return the exit code."""
    from redepth.batch import refine_photos

    results = Results(failed=request.rejected)
    photos = _checked(request, results)
    folders = {photo.path: photo.folder for photo in photos}
    if photos:
        display = progress.PhotoDisplay(request.settings.preset.optim.performance.read_losses_every)
        outcomes = refine_photos(photos, request.settings, request.resources, display)
        try:
            for done in progress.photos(outcomes, len(photos), request.resources):
                results.add(done)
        except KeyboardInterrupt:
            results.interrupted = True
    _miss_vanished(results, folders)
    if results.refined:
        console.note(_summary(results.refined, folders))
        _explain_protocol(request.truth)
    if results.interrupted:
        finished = sum(not result.reason for result in results.refined.values())
        rest = "the same command refines the rest" if finished else "the same command starts again"
        console.complain(f"interrupted: {finished} of {len(photos)} photos are finished; {rest}")
    return _exit_code(results, len(request.paths) + request.rejected)


def _miss_vanished(results: Results, folders: Mapping[Path, Path]) -> None:
    """Count a photo as failed whose folder was removed while the others were refined."""
    from redepth.exports import RECORD

    for path in list(results.refined):
        if not os.path.isfile(folders[path] / RECORD):
            del results.refined[path]
            results.fail(path, f"its results in {folders[path]} were removed meanwhile; run again")


def _exit_code(results: Results, total: int) -> int:
    if results.interrupted:
        return signals.exit_code()
    if not results.failed:
        return 0
    if total > 1:
        console.complain(f"{results.failed} of {total} inputs failed")
    return console.EXIT_ERROR


def _checked(request: RefineRequest, results: Results) -> list[Photo]:
    """Return the photos that are left to refine and can be used; complain of those that cannot."""
    from redepth.batch import check_photos

    checked = []
    settings = request.settings
    for done in check_photos(_left(request, results), settings.max_pixels, [settings.preset]):
        if done.result is None:
            results.fail(done.item.path, done.error)
        else:
            checked.append(done.result)
    return checked


def _left(request: RefineRequest, results: Results) -> list[Photo]:
    """Return the photos that a former call has not refined already; print how many are done."""
    from redepth import io
    from redepth.batch import Photo

    io.recover(request.out)  # of a killed call
    photos = []
    for path, folder in zip(request.paths, io.output_folders(request.paths, request.out), strict=True):
        if path in request.given.problems:
            results.fail(path, request.given.problems[path])
        else:
            photos.append(Photo(path, folder, request.given.inputs[path], request.truth))
    # One photo is always refined.
    if len(request.paths) == 1 or request.fresh:
        return photos
    left = [photo for photo in photos if _is_left(photo, request.settings)]
    if len(left) < len(photos):
        done = len(photos) - len(left)
        console.note(f"{done} of {len(photos)} photos are done already (--fresh refines them again)")
    return left


def _is_left(photo: Photo, settings: Settings) -> bool:
    """Return whether a photo is to be refined; print why, if it was refined before."""
    from redepth.batch import why_refine

    reason = why_refine(photo, settings)
    if reason:
        console.note_refined_again(str(photo.path), reason)
    return reason is not None


def _summary(results: dict[Path, Refined], folders: dict[Path, Path]) -> Table:
    """Make the table of the results, in the order of the photos."""
    protocol = next((result.protocol for result in results.values() if result.protocol), "")
    measured = f"SI-log, protocol {protocol}" if protocol else "SI-log"
    headings = ("photo", "size", "members x steps", "change", measured, "seconds", "folder")
    table = console.table("", *headings)
    for path, folder in folders.items():
        if path not in results:
            continue
        result = results[path]
        table.add_row(
            Text.assemble(path.name, (" (partial)", "yellow") if result.reason else ""),
            f"{result.size[1]} x {result.size[0]}",
            f"{result.members} x {result.steps}",
            f"{100 * result.change:.1f} %",
            f"{result.silog[0]:.2f} -> {result.silog[1]:.2f}" if result.silog else "-",
            f"{result.seconds:.1f}",
            Text(str(folder)),
        )
    return table


def _explain_protocol(truth: GroundTruth | None) -> None:
    """Say how the figures of the table were measured: another protocol gives others for the same map."""
    if truth is not None:
        line = f"{truth.protocol.line}; --protocol NAME measures by another one (redepth list protocols)"
        console.note(Text(line))


# --- from options to the request ------------------------------------------------------------------


def _limit_overrides(budget: str | None, vram: str | None) -> list[str]:
    limits = {"budget": budget, "vram": vram}
    return [f"optim.{name}={json.dumps(value)}" for name, value in limits.items() if value is not None]


def _map_overrides(path: Path | None, kind: MapKind | None, photos: int) -> list[str]:
    """Return the overrides that read the initial map from a file instead of predicting it."""
    if path is None and kind is None:
        return []
    if path is None or kind is None:
        kinds = "|".join(get_args(MapKind))
        raise ConfigError(f"--depth FILE|FOLDER and --predicts {kinds} go together")
    if photos != 1 and os.path.isfile(path):
        raise ConfigError(f"--depth {path} belongs to one photo, {photos} were given; give a folder of maps")
    from redepth.pipeline import map_overrides

    return map_overrides(str(path), kind)


def _ground_truth(
    path: Path | None,
    kind: Predicts,
    offset: float,
    mask: Path | None,
    protocol: str,
    photos: int,
    max_pixels: int,
) -> GroundTruth | None:
    if path is None:
        if mask is not None:
            raise ConfigError("--mask says where to measure against ground truth: give --gt too")
        if protocol != "photo":
            raise ConfigError("--protocol says how to measure against ground truth: give --gt too")
        return None
    if photos != 1:
        raise ConfigError(f"--gt belongs to one photo, {photos} were given")
    return TruthReader.of(kind, offset, protocol, max_pixels).read(path, mask)
