"""Refine a clip into a folder: each frame is written as it is done, in the end the videos and the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from redepth import components, exports, io
from redepth.clips.flow import Motion
from redepth.clips.frames import ClipFrames, check_albedo_of_frames
from redepth.clips.outputs import (
    COMPARISON_VIDEO,
    DEPTH_VIDEO,
    ClipFolder,
    FrameRow,
    MadeFrom,
    room_of_shown,
    summary_of,
)
from redepth.clips.run import ClipRun
from redepth.clips.saved import load_state, room_of_maps, save_state
from redepth.clips.state import ClipSummary
from redepth.clips.videos import colours_of, room_of_videos, write_comparison, write_disparity
from redepth.config import Preset
from redepth.errors import PartlyWrittenError, RedepthError
from redepth.optim.parameterizations import bytes_of_member
from redepth.photo_inputs import CameraInput, PhotoInputs, choose_camera
from redepth.pipeline import Pipeline
from redepth.registry import require
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
            ConfigError: the renderer lights an albedo from files.
            InputError: the camera cannot be read or does not fit, or a result would replace an input.
            MissingDependencyError: a package is missing.
            OutputError: the disk has no room for the results alone.
        """
        check_albedo_of_frames(self.settings.preset)
        self._check_packages()
        self.store.check(self.frames.path, self.settings.files)
        io.require_room(self.folder, self._room())
        choose_camera(self.settings.camera, next(self.frames.read()), self.settings.camera_origin)

    def check_room(self, pipeline: Pipeline) -> None:
        """Raise OutputError unless the disk has room for the results and for what an unfinished run keeps.

        Args:
            pipeline: loaded; its model decides the size of what is kept.
        """
        refiner = pipeline.refiner
        height, width = refiner.depth_model.prepare(torch.zeros(1, 3, *self.frames.size)).shape[-2:]
        weights = refiner.optim.members * bytes_of_member(refiner.optim.parameterization, refiner.depth_model)
        # The state before the last one goes after the last one is written.
        states = 2 * (room_of_maps(height, width) + weights)
        io.require_room(self.folder, self._room() + len(self.frames) * room_of_shown(height, width) + states)

    def _room(self) -> int:
        """Return how many bytes the frames and the videos take at most."""
        height, width = self.frames.size
        frame = exports.room(self.settings.preset.output, height, width) + room_of_videos(height, width)
        return len(self.frames) * frame

    def _check_packages(self) -> None:
        """Raise MissingDependencyError if the motion, the chosen files or the videos need what is missing."""
        if self.settings.motion == "flow":
            require("cv2", "video")
        exports.check_packages(self.settings.preset.output)
        io.check_video_writer(self.folder / COMPARISON_VIDEO)


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
        RedepthError: a frame cannot be refined to its end; the message names it and the reason.
    """
    result = RefinedClip(task.folder, task.store.done())
    result.resumed = len(result.rows)
    try:
        _refine(task, pipeline, result, on_frame)
        _finish(task, result)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _refine(task: ClipTask, pipeline: Pipeline, result: RefinedClip, on_frame: OnFrame) -> None:
    """Refine the frames that are left, and write each as it is done."""
    store, frames, settings = task.store, task.frames, task.settings
    total, start = len(frames), len(result.rows)
    if start == total:
        return
    if not start:
        store.begin(io.as_text(frames.path.resolve()))
    camera = choose_camera(settings.camera, next(frames.read()), settings.camera_origin)
    run = ClipRun(
        pipeline,
        frames.read(start),
        motion=settings.motion,
        prompt=settings.prompt,
        seed=settings.seed,
        max_pixels=frames.max_pixels,
        camera=camera,
        resume=load_state(store.state(start - 1), pipeline.device) if start else None,
    )
    for done in run:
        # A frame that has not taken all of its steps is left to the next call.
        try:
            done.refinement.outcome.check_whole()
        except RedepthError as error:
            raise RedepthError(f"{frames.labels[done.index]}: {error}") from error
        state = run.state
        assert state is not None
        save_state(store.state(done.index), state)
        try:
            row = store.save(done, frames.labels[done.index], frames.seconds[done.index])
        except PartlyWrittenError as error:
            result.unwritten.append(str(error))
            row = FrameRow.of(done, frames.labels[done.index], frames.seconds[done.index])
        result.rows.append(row)
        on_frame(row, len(result.rows), total)


def _finish(task: ClipTask, result: RefinedClip) -> None:
    """Write the videos and the record of a clip whose frames are all done."""
    store, frames = task.store, task.frames
    low, high = colours = colours_of(store.shown, len(frames))
    preset, seed = task.settings.preset.name, task.settings.seed
    write_disparity(task.folder / DEPTH_VIDEO, frames, store.shown, colours)
    comparison = task.folder / COMPARISON_VIDEO
    write_comparison(comparison, frames, store.shown, colours, f"{preset} · seed {seed}")
    more: dict[str, Any] = {
        "colours": {"of": "disparity, near is bright", "low": low, "high": high},
        "contents": {
            DEPTH_VIDEO: "the refined disparity in colours",
            COMPARISON_VIDEO: "photo, disparity before and after, in colours of one range",
        },
    }
    store.finish(io.as_text(frames.path.resolve()), result.rows, more)
