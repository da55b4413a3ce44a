"""Refine a clip: frame after frame, each tied to the last one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from redepth import io
from redepth.clips.flow import Motion
from redepth.clips.state import ClipSummary, FrameResult
from redepth.config import DEFAULT_PRESET, Overrides, Preset
from redepth.literals import CameraName
from redepth.ops.camera import Camera
from redepth.optim.outcome import OnStep
from redepth.optim.progress import Progress
from redepth.photo_inputs import ChosenCamera, DecodedPhoto
from redepth.pipeline import Pipeline

Photo = str | Path | ArrayLike | DecodedPhoto


class ClipRun(Iterator[FrameResult]):
    """The frames of a clip as they are done; it holds one frame at a time.

    Attributes:
        summary: the figures of the frames so far; of the whole clip once the iteration has ended.
    """

    summary: ClipSummary

    def __next__(self) -> FrameResult:
        raise NotImplementedError


def run_clip(
    pipeline: Pipeline,
    frames: Iterable[Photo],
    *,
    motion: Motion = "flow",
    prompt: str | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    progress: Progress = False,
    max_pixels: int = io.MAX_PIXELS,
    camera: Camera | CameraName | ChosenCamera | None = None,
) -> ClipRun:
    """Refine a clip with a pipeline that is loaded; the arguments are those of `refine_clip`."""
    raise NotImplementedError


def refine_clip(
    frames: Iterable[Photo],
    preset: str | Path | Mapping[str, Any] | Preset = DEFAULT_PRESET,
    *,
    motion: Motion = "flow",
    prompt: str | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    device: str = "auto",
    on_step: OnStep | None = None,
    progress: Progress = False,
    max_pixels: int = io.MAX_PIXELS,
    camera: Camera | CameraName | None = None,
) -> ClipRun:
    """Refine the depth of a clip; results come one by one, while frames are read.

    Args:
        frames: the pictures in their order, each as `refine` takes a photo, all of one size.
        preset: name, YAML file, mapping or `Preset`.
        motion: how the last frame's pixels are found again: ``flow`` (optical flow; needs the extra
            ``video``), ``still`` (the camera and the scene stand still), `GivenFlow`, or `CameraMotion`.
        prompt: conditions a text-conditioned prior; without it the preset's captioner describes the first
            frame of each chain.
        seed: the same seed gives the same results.
        overrides: of the preset.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        on_step: called after each step of each frame with a `StepReport`.
        progress: True shows a progress bar per frame.
        max_pixels: refuse larger pictures.
        camera: of all frames.

    Raises:
        RedepthError: before the first frame for what can be checked then; else from the iterator, after the
            results of the frames before.
    """
    raise NotImplementedError
