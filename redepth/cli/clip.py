"""Clips of ``redepth refine``: a video, or a folder of numbered photos with ``--sequence``."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from redepth.cli import console, photo_options, progress
from redepth.cli.tables import Table
from redepth.errors import ConfigError, InputError, RedepthError, one_line
from redepth.runtime import signals

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.clips.flow import CameraMotion
    from redepth.clips.frames import ClipFrames
    from redepth.clips.outputs import FrameRow
    from redepth.clips.refining import ClipSettings, ClipTask, RefinedClip
    from redepth.config import Preset
    from redepth.io import FrameRange
    from redepth.photo_inputs import CameraInput

SequenceOption = Annotated[
    bool,
    typer.Option("--sequence", help="Each folder holds numbered photos, which are the frames of one clip."),
]
FramesOption = Annotated[
    str | None,
    typer.Option(
        "--frames", metavar="START:STOP:STEP", help="Frames of a clip, counted from 0, such as 0:100 or ::2."
    ),
]
MaxFramesOption = Annotated[
    int | None,
    typer.Option("--max-frames", min=1, help="Refuse a clip with more chosen frames than this; else 10000."),
]
MotionOption = Annotated[
    str | None,
    typer.Option(
        "--motion",
        metavar="flow|still|FILE",
        help="How frames of a clip are tied: by optical flow (default), for a camera that stands still, "
        "or by the camera's poses (npy or json: N matrices, camera to world, OpenCV's axes).",
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", min=0.1, max=1000, help="Frames per second of --sequence; else 25."),
]


@dataclass(frozen=True)
class ClipOptions:
    """The options that go with clips alone; None where one is not given."""

    frames: FrameRange | None = None
    max_frames: int | None = None
    motion: str | None = None
    fps: float | None = None

    def refuse(self) -> None:
        """Raise ConfigError if one is given and no clip is."""
        given = {"frames": self.frames, "max-frames": self.max_frames, "motion": self.motion, "fps": self.fps}
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"--{name} goes with a clip: give a video, or a folder of numbered photos and --sequence"
                )


def clip_options(
    frames: str | None, max_frames: int | None, motion: str | None, fps: float | None
) -> ClipOptions:
    """Return the options that go with clips alone.

    Raises:
        ConfigError: ``frames`` is no range of frames.
    """
    from redepth import io

    chosen = None if frames is None else io.parse_frame_range(frames)
    return ClipOptions(chosen, max_frames, motion, fps)


def split_inputs(inputs: Sequence[str], sequence: bool) -> tuple[list[Path], list[str]]:
    """Return the clips, and the other inputs.

    Args:
        inputs: a video is recognised by its suffix.
        sequence: whether folders are clips.

    Raises:
        ConfigError: ``sequence`` is set, and an input is no folder and no video.
    """
    from redepth import io

    clips: dict[str, Path] = {}
    others = []
    for name in inputs:
        for path in _expanded(name):
            folder = os.path.isdir(path)
            if sequence and not folder and not io.is_video(path):
                raise ConfigError(f"{path}: --sequence takes folders of numbered photos; give the folder")
            if (folder and sequence) or (not folder and io.is_video(path)):
                clips.setdefault(os.path.realpath(path), Path(path))
            else:
                others.append(path)
    return list(clips.values()), others


def _expanded(name: str) -> list[str]:
    """Expand a pattern of videos; the other patterns are those of photos."""
    from redepth import io

    if io.is_video(name) and glob.has_magic(name) and not os.path.exists(name):
        return sorted(glob.glob(name, recursive=True)) or [name]
    return [name]


def refuse_options(given: Mapping[str, bool]) -> None:
    """Raise ConfigError for options that do not go with clips.

    Args:
        given: name of each such option -> whether it is given.
    """
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise ConfigError(
            f"{', '.join(names)}: not with clips, because it belongs to a photo, or to work on photos that "
            "do not depend on each other; leave it out, or refine the frames as photos"
        )


def for_frames(preset: Preset, write: str | None) -> Preset:
    """Return a preset that writes no page and no sheet for each frame, unless the files were chosen."""
    from redepth.config.schema import DEFAULT_EXPORTS

    chosen = preset.output.write
    if write is not None or chosen != list(DEFAULT_EXPORTS):
        return preset
    kept = [name for name in chosen if name in ("map", "preview")]
    return preset.model_copy(update={"output": preset.output.model_copy(update={"write": kept})})


def settings_of(
    preset: Preset, device: str, seed: int, prompt: str | None, motion: str | None
) -> ClipSettings:
    """Return the settings that all clips of a call share; those of a file of poses are not read yet."""
    from redepth.clips.refining import ClipSettings
    from redepth.pipeline import guided

    shared = ClipSettings(guided(preset, temporal=True), device, seed, prompt)
    if motion is None or motion == "flow":
        return shared
    if motion == "still":
        return replace(shared, motion="still", motion_name="still")
    if not os.path.exists(motion) and not Path(motion).suffix:
        raise ConfigError(f"--motion {motion}: is neither flow nor still, and no file of poses")
    return replace(shared, motion_name="poses", motion_file=Path(motion))


# --- the request ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipRequest:
    """The clips of a call.

    Attributes:
        paths: of the clips, each once.
        out: folder of the results.
        settings: of all clips, without what each has of its own.
        given: their cameras.
        options: that go with clips alone.
        max_pixels: of a frame.
        fresh: also refine frames that are done.
    """

    paths: Sequence[Path]
    out: Path
    settings: ClipSettings
    given: photo_options.GivenInputs
    options: ClipOptions
    max_pixels: int
    fresh: bool

    def check(self) -> None:
        """Raise ConfigError for options that contradict each other."""
        if self.settings.motion_file is not None and len(self.paths) > 1:
            raise ConfigError(f"--motion FILE belongs to one clip, {len(self.paths)} were given")
        if self.settings.motion_file is not None and self._camera(self.paths[0]) is None:
            raise ConfigError(
                "--motion FILE needs the camera, because poses move its rays: give --fov or --intrinsics, or "
                "--camera orthographic"
            )
        if self.options.fps is not None and not all(os.path.isdir(path) for path in self.paths):
            raise ConfigError("--fps is for folders with --sequence: a video has the times of its frames")
        for path in self.paths:
            if not os.path.isdir(path) and self._camera(path) == "exif":
                raise ConfigError(
                    f"{path}: --camera exif: the frames of a video have no EXIF; give --fov or --intrinsics"
                )

    def _camera(self, path: Path) -> CameraInput | None:
        given = self.given.inputs.get(path)
        return None if given is None else given.camera


@dataclass
class _Results:
    """The outcomes so far."""

    failed: int = 0
    interrupted: bool = False
    refined: dict[Path, RefinedClip] = field(default_factory=dict)

    def fail(self, path: Path, problem: str) -> None:
        """Count a clip as failed and print why."""
        console.complain(console.about(path, problem))
        self.failed += 1


def run(request: ClipRequest) -> int:
    """Refine the clips of a request, print the outcomes and return the exit code."""
    results = _Results()
    tasks = _left(request, results)
    if tasks:
        _refine(tasks, request, results)
    if results.refined:
        console.note(_summary(tasks, results.refined))
        for path, refined in results.refined.items():
            _print_flagged(path, refined)
    if results.interrupted:
        return signals.exit_code()
    if results.failed and len(request.paths) > 1:
        console.complain(f"{results.failed} of {len(request.paths)} clips failed")
    return console.EXIT_ERROR if results.failed else 0


def _left(request: ClipRequest, results: _Results) -> list[ClipTask]:
    """Read all clips once, and return those that are left to refine; complain of those that cannot be."""
    from redepth import io

    tasks = []
    folders = io.output_folders([path.resolve() for path in request.paths], request.out)
    for path, folder in zip(request.paths, folders, strict=True):
        try:
            with console.status(f"reading {path.name}"):
                task = _task(request, path, folder)
                reason = "" if request.fresh else task.store.why_refine()
        except (RedepthError, MemoryError) as error:
            results.fail(path, one_line(error))
            continue
        if reason is None:
            console.note(Text(f"{path}: done already (--fresh refines it again)"))
            continue
        if reason:
            console.note_refined_again(str(path), reason)
        tasks.append(task)
    return tasks


def _task(request: ClipRequest, path: Path, folder: Path) -> ClipTask:
    """Read a clip once, and check what is given with it."""
    from redepth import io
    from redepth.clips.frames import DEFAULT_RATE, open_clip
    from redepth.clips.refining import ClipTask

    frames = open_clip(
        path,
        request.options.frames or io.ALL_FRAMES,
        max_frames=request.options.max_frames or io.MAX_FRAMES,
        max_pixels=request.max_pixels,
        rate=request.options.fps or DEFAULT_RATE,
        warn=console.warn,
    )
    if path in request.given.problems:
        raise InputError(request.given.problems[path])
    given = request.given.inputs[path]
    settings = replace(request.settings, camera=given.camera, camera_origin=given.camera_origin)
    if settings.motion_file is not None:
        settings = replace(settings, motion=_poses(settings.motion_file, frames))
    task = ClipTask(frames, folder, settings)
    task.check()
    return task


def _poses(path: Path, frames: ClipFrames) -> CameraMotion:
    """Return the camera's motion: a file has a pose for each frame of the clip, or for each chosen one."""
    from redepth import io
    from redepth.clips.flow import CameraMotion

    poses = io.load_poses(path)
    count = len(poses.matrices)
    if count == len(frames):
        return CameraMotion(list(poses.matrices), poses.scale)
    if frames.chosen.whole:
        raise InputError(
            f"{path}: holds {count} poses, and the clip has {len(frames)} frames; give a pose for each, or "
            "choose frames with --frames"
        )
    if count > frames.indices[-1]:
        return CameraMotion([poses.matrices[index] for index in frames.indices], poses.scale)
    raise InputError(
        f"{path}: holds {count} poses, and the clip has {len(frames)} chosen frames, the last one number "
        f"{frames.indices[-1]}; give a pose for each"
    )


def _refine(tasks: Sequence[ClipTask], request: ClipRequest, results: _Results) -> None:
    """Load the preset once, and refine one clip after the other."""
    from redepth.clips.refining import refine_clip_into
    from redepth.pipeline import Pipeline
    from redepth.runtime.allocator import keep_freed_memory

    with console.status(f"loading preset {request.settings.preset.name}"):
        pipeline = Pipeline(request.settings.preset, device=request.settings.device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()
    for task in tasks:
        path, total = task.frames.path, len(task.frames)
        try:
            task.check_room(pipeline)
            if request.fresh:
                task.store.clear()
            if done := len(task.store.done()):
                console.note(
                    Text(f"{path}: {done} of {total} frames are done already; it goes on after them")
                )
            with progress.clip_frames(total) as on_frame:
                refined = refine_clip_into(task, pipeline, on_frame)
        except (RedepthError, MemoryError) as error:
            results.fail(path, one_line(error))
            continue
        for line in refined.unwritten:
            console.complain(console.about(path, line))
        results.failed += bool(refined.unwritten)
        if refined.interrupted:
            results.interrupted = True
            kept = len(refined.rows)
            rest = "the same command goes on after them" if kept else "the same command starts again"
            console.complain(f"interrupted: {kept} of {total} frames of {path} are finished; {rest}")
            return
        results.refined[path] = refined


def _summary(tasks: Sequence[ClipTask], results: Mapping[Path, RefinedClip]) -> Table:
    """Make the table of the results; its last column is the video to look at."""
    from redepth.clips.outputs import COMPARISON_VIDEO

    table = console.table("", "clip", "size", "frames", "starts", "flicker", "seconds", "video")
    for task in tasks:
        path = task.frames.path
        if path not in results:
            continue
        summary = results[path].summary
        height, width = task.frames.size
        before, after = summary.flicker_initial, summary.flicker_refined
        table.add_row(
            Text(path.resolve().name),
            f"{width} x {height}",
            str(summary.frames),
            str(len(summary.starts)),
            "-" if before is None or after is None else f"{before:.3g} -> {after:.3g}",
            f"{summary.seconds:.1f}",
            Text(str(task.folder / COMPARISON_VIDEO)),
        )
    return table


def _print_flagged(path: Path, refined: RefinedClip) -> None:
    """Warn of failure signatures, one line for all frames that one is flagged in."""
    flagged: dict[str, list[FrameRow]] = {}
    for row in refined.rows:
        for title in row.flagged:
            flagged.setdefault(title, []).append(row)
    for title, rows in flagged.items():
        console.warn(
            f"{path.name}: {title}: flagged in {len(rows)} of {len(refined.rows)} frames, the first one "
            f"{rows[0].folder} (its run.json says more)"
        )
