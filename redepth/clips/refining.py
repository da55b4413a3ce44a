"""Refine a clip into a folder: frame after frame, each written as it is done, then the videos and the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from redepth import components, exports, io
from redepth.clips.flow import Motion
from redepth.clips.frames import ClipFrames
from redepth.clips.outputs import (
    COMPARISON_VIDEO,
    DEPTH_VIDEO,
    ClipFolder,
    FrameRow,
    MadeFrom,
    summary_of,
)
from redepth.clips.run import run_clip
from redepth.clips.state import ClipSummary
from redepth.clips.videos import colours_of, write_comparison, write_disparity
from redepth.config import Preset
from redepth.errors import PartlyWrittenError
from redepth.photo_inputs import CameraInput, PhotoInputs, choose_camera
from redepth.pipeline import Pipeline
from redepth.runtime.resume import Identity

OnFrame = Callable[[FrameRow, int, int], None]
"""Is called after each frame with its row, how many frames are done, and how many there are."""


@dataclass(frozen=True)
class ClipSettings:
    """The settings of a clip.

    Attributes:
        preset: resolved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: of all random streams.
        prompt: None: the preset's captioner describes the first frame of each chain.
        motion: how the last frame's pixels are found again.
        motion_name: of the record: ``flow``, ``still``, or the option's file.
        motion_file: holds the poses.
        camera: of all frames; None: the renderer's own.
        camera_origin: the option that gives it.
    """

    preset: Preset
    device: str = "auto"
    seed: int = 0
    prompt: str | None = None
    motion: Motion = "flow"
    motion_name: str = "flow"
    motion_file: Path | None = None
    camera: CameraInput | None = None
    camera_origin: str = "python"

    @property
    def inputs(self) -> PhotoInputs:
        """What is given with the clip besides its motion."""
        return PhotoInputs(self.camera, self.camera_origin)

    @property
    def files(self) -> list[Path]:
        """The files that are given with the clip."""
        return [*self.inputs.files.values(), *([] if self.motion_file is None else [self.motion_file])]

    def made_from(self, frames: ClipFrames) -> MadeFrom:
        """Return what decides the results of a clip."""
        hashes = {**frames.hashes(), **self.inputs.hashes()}
        if self.motion_file is not None:
            hashes["the file of --motion"] = io.sha256_of(self.motion_file)
        preset = self.preset.model_dump(mode="json")
        settings = {
            "frames": str(frames.chosen),
            "rate": frames.rate,
            "seed": self.seed,
            "prompt": self.prompt,
            "motion": self.motion_name,
            "preset": {k: v for k, v in preset.items() if k not in ("description", "diagnostics", "adapt")},
        }
        named = components.named_files(self.preset)
        versions = components.component_versions(self.preset)
        return MadeFrom(settings, Identity.of(named, versions, **hashes))


@dataclass
class RefinedClip:
    """The result of a clip, as far as it is done.

    Attributes:
        folder: of the results.
        rows: of the frames that are done.
        resumed: how many of them an earlier run has refined.
        unwritten: a line for each file that could not be written.
        interrupted: whether Ctrl-C ended the run.
    """

    folder: Path
    rows: list[FrameRow] = field(default_factory=list)
    resumed: int = 0
    unwritten: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def summary(self) -> ClipSummary:
        """The figures of the frames that are done."""
        return summary_of(self.rows)


@dataclass(frozen=True)
class ClipTask:
    """A clip, its settings and the folder of its results.

    Attributes:
        frames: of the clip.
        folder: of the results.
        settings: of the clip.
    """

    frames: ClipFrames
    folder: Path
    settings: ClipSettings

    @cached_property
    def store(self) -> ClipFolder:
        """The folder of the results; its identity is taken now."""
        return ClipFolder(self.folder, self.settings.made_from(self.frames))

    def check(self) -> None:
        """Raise an error now for what would fail after work.

        Raises:
            InputError: the camera cannot be read or does not fit, or a result would replace an input.
            OutputError: the disk has no room for the results.
        """
        self.store.check(self.frames.path, self.settings.files)
        height, width = self.frames.size
        io.require_room(self.folder, len(self.frames) * exports.room(self.settings.preset.output, height, width))
        choose_camera(self.settings.camera, next(self.frames.read()), self.settings.camera_origin)


def refine_clip_into(task: ClipTask, pipeline: Pipeline, on_frame: OnFrame) -> RefinedClip:
    """Refine the frames that are left, then write the videos and the record.

    After Ctrl-C the frames that are done stay, and the same call goes on.

    Args:
        task: checked.
        pipeline: loaded.
        on_frame: called after each frame.

    Raises:
        InputError: a frame can no longer be read.
        OutputError: a result cannot be written.
    """
    store, frames = task.store, task.frames
    result = RefinedClip(task.folder, store.done())
    result.resumed = len(result.rows)
    try:
        _refine(task, pipeline, result, on_frame)
        _finish(task, result)
    except KeyboardInterrupt:
        result.interrupted = True
    return result
