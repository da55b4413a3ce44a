"""Refine a clip: frame after frame, each tied to the last one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from redepth import components, io
from redepth.clips.chain import Chain
from redepth.clips.flow import (
    MISMATCH,
    CameraMotion,
    GivenFlow,
    KnownCamera,
    KnownFlow,
    Motion,
    OpticalFlow,
    StandStill,
    Tracker,
    mismatch,
)
from redepth.clips.frames import check_albedo_of_frames, open_clip
from redepth.clips.lengths import Lengths
from redepth.clips.matching import ENOUGH, matching
from redepth.clips.saved import ClipState
from redepth.clips.state import ClipSummary, FrameResult, Link
from redepth.config import DEFAULT_PRESET, Overrides, Preset
from redepth.errors import ConfigError, InputError
from redepth.guidance import PhotoData
from redepth.literals import MAX_SEED, CameraName
from redepth.ops.camera import Camera
from redepth.ops.filters import resample
from redepth.ops.geometry import AUTO_SCALE
from redepth.optim.outcome import OnStep, Outcome
from redepth.optim.plan import Plan
from redepth.optim.progress import Progress
from redepth.optim.warm import WarmStart
from redepth.photo_inputs import ChosenCamera, DecodedPhoto, decode
from redepth.pipeline import Pipeline, guided, preset_with
from redepth.refinement import Refinement

log = logging.getLogger(__name__)

Photo = str | Path | ArrayLike | DecodedPhoto


class ClipRun(Iterator[FrameResult]):
    """The frames of a clip as they are done; of the frames before, it holds the last one alone.

    Args:
        pipeline: of a preset with the objective ``temporal`` (`pipeline.guided`), which ties frames.
        frames: of the clip.
        motion: between the frames.
        prompt: of the prior.
        seed: of the run.
        on_step: called after each step.
        progress: shown per frame.
        max_pixels: of a frame.
        camera: of all frames.
        resume: state of a former run (`state`, `clips.saved`): ``frames`` are those after it.

    Attributes:
        summary: the figures of the frames so far; of the whole clip once the iteration has ended.

    Raises:
        RedepthError: as `refine_clip`.
    """

    def __init__(
        self,
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
        resume: ClipState | None = None,
    ) -> None:
        self.summary = ClipSummary()
        self._pipeline, self._clip = pipeline, pipeline.preset.clip
        self._frames = iter(frames)
        self._motion, self._prompt, self._seed = motion, prompt, seed
        self._on_step, self._progress = on_step, progress
        self._max_pixels, self._camera = max_pixels, camera
        self._frozen: Camera | None = None
        self._index = 0
        self._warned = False
        self._size: tuple[int, int] | None = None
        self._chain: Chain | None = None
        # A missing package is found before the first frame has taken minutes.
        self._tracker: Tracker | None = None if isinstance(motion, CameraMotion) else _tracker(motion)
        if resume is not None:
            self._resume(resume)

    def __next__(self) -> FrameResult:
        index = self._index
        photo = decode(next(self._frames), self._max_pixels)
        if self._size is not None and photo.size != self._size:
            height, width = self._size
            raise InputError(
                f"frame {index} has {photo.size[1]} x {photo.size[0]} pixels and the frames before "
                f"{width} x {height}: a clip has one size"
            )
        self._size = photo.size
        result = (
            self._start(index, photo, "first frame") if self._chain is None else self._go_on(index, photo)
        )
        self.summary = self.summary.with_frame(result)
        self._index += 1
        return result

    @property
    def state(self) -> ClipState | None:
        """What the next frame needs of the frames before; None before the first one."""
        if self._chain is None:
            return None
        motion = self._tracker.known if isinstance(self._tracker, KnownCamera) else None
        return ClipState(self._index, self._chain, motion, self._frozen)

    def _freeze_camera(self, camera: Camera) -> None:
        """Take the first frame's camera for all: one estimated or read anew would be another each time."""
        name = self._camera.camera if isinstance(self._camera, ChosenCamera) else self._camera
        if isinstance(name, str) and name != "orthographic":
            self._frozen = camera
            self._camera = ChosenCamera(camera, "depth model" if name == "model" else name)

    def _resume(self, state: ClipState) -> None:
        """Go on after the frames of a former run. Raises InputError for another motion."""
        self._index, self._chain = state.frames, state.chain
        if state.camera is not None:
            self._freeze_camera(state.camera)
        if isinstance(self._motion, CameraMotion):
            if state.motion is None:
                raise InputError("the former run of the clip had no camera motion: start it anew")
            self._tracker = KnownCamera.resumed(self._motion, state.motion)

    def _go_on(self, index: int, photo: DecodedPhoto) -> FrameResult:
        """Refine a frame from the last one, or start a new chain after a cut."""
        chain = self._chain
        assert chain is not None
        assert self._tracker is not None
        image = _at_size(photo, chain.answer)
        track = self._tracker.track(index, chain.image, image, chain.answer)
        seen = float(track.valid.float().mean())
        if seen < self._clip.cut:
            return self._start(index, photo, f"cut: the last frame shows {seen:.0%} of it", seen)
        difference = mismatch(track, chain.image, image)
        if difference > MISMATCH:
            reason = f"cut: it differs from the last frame by {difference:.0%} of its contrast"
            return self._start(index, photo, reason, seen)
        data = chain.previous(track, self._clip)
        refinement = self._refined(index, photo, chain.prompt, chain.start, [data])
        measured = matching(track, chain.image, image)
        self._check_motion(index, float(measured.sum() / track.valid.sum()))
        change = chain.flicker(refinement.outcome, track, measured)
        self._chain = chain.next(image, refinement.outcome, track)
        tie = refinement.outcome.tie
        assert tie is not None
        link = Link(True, "", seen, tie.scale, tie.shift, max(refinement.outcome.steps_done))
        return FrameResult(index, refinement, link, change)

    def _check_motion(self, index: int, share: float) -> None:
        """Warn once if the pictures do not match along the motion."""
        if share >= ENOUGH or self._warned:
            return
        self._warned = True
        fast = "the clip may be too fast, or its light may change"
        advice = fast if self._motion == "flow" else "use motion flow"
        log.warning(
            "frame %d: only %.0f%% of the pixels match the last frame along the motion, so the motion may be "
            "wrong, and depth that is tied along it, too; the flicker figure leaves the others out; %s",
            index,
            100 * share,
            advice,
        )

    def _start(self, index: int, photo: DecodedPhoto, reason: str, seen: float = 0.0) -> FrameResult:
        """Refine a frame as a photo is."""
        if index:
            log.info("frame %d starts anew: %s", index, reason)
        prompt = self._prompt
        if prompt is None:
            prompt = self._pipeline.captions([photo], max_pixels=self._max_pixels)[0].text
        refinement = self._refined(index, photo, prompt, WarmStart(), [])
        outcome = refinement.outcome
        self._freeze_camera(outcome.camera)
        image = _at_size(photo, outcome.initial)
        if isinstance(self._motion, CameraMotion):
            self._tracker = KnownCamera(self._motion, outcome.camera, self._lengths(outcome))
        self._chain = Chain.first(image, outcome, self._plan(outcome), self._clip.rates, prompt)
        return FrameResult(index, refinement, Link(False, reason, seen, steps=max(outcome.steps_done)))

    def _refined(
        self, index: int, photo: DecodedPhoto, prompt: str, start: WarmStart, data: Sequence[PhotoData]
    ) -> Refinement:
        return self._pipeline.refine(
            photo,
            prompt=prompt,
            seed=(self._seed + index) % (MAX_SEED + 1),
            on_step=self._on_step,
            progress=self._progress,
            max_pixels=self._max_pixels,
            camera=self._camera,
            data=data,
            start=start,
        )

    def _plan(self, outcome: Outcome) -> Plan:
        """Return the plan of the frames that follow: the first one's members, and a share of its steps."""
        whole = outcome.fit or self._pipeline.refiner.preset_plan
        return Plan(whole.members, max(1, round(self._clip.steps * whole.steps)), outcome.members_per_batch)

    def _lengths(self, outcome: Outcome) -> Lengths:
        model = self._pipeline.refiner.depth_model
        scale = AUTO_SCALE if model.scale == "auto" else model.scale
        return Lengths(
            outcome.predicts, outcome.invariance == "metric", float(scale), model.margin, outcome.unit
        )


def _tracker(motion: Motion) -> Tracker:
    if isinstance(motion, GivenFlow):
        return KnownFlow(motion)
    if motion == "still":
        return StandStill()
    if motion == "flow":
        return OpticalFlow()
    raise ConfigError(f"unknown motion {motion!r} (valid: flow, still, a GivenFlow or a CameraMotion)")


def _at_size(photo: DecodedPhoto, like: Tensor) -> Tensor:
    """Return a photo at the size of the maps, (1,3,H,W) on the CPU."""
    pixels = torch.from_numpy(np.ascontiguousarray(photo.values)).permute(2, 0, 1)[None]
    return resample(pixels.float(), *like.shape[-2:]).clamp(0, 1)


def refine_clip(
    frames: str | Path | Iterable[Photo],
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
        frames: the pictures in their order, each as `refine` takes a photo, all of one size; or the path of a
            video or of a folder of numbered photos.
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
        camera: of all frames; ``model`` and ``exif`` take that of the first frame.

    Raises:
        RedepthError: before the first frame for what can be checked then; else from the iterator, after the
            results of the frames before.
    """
    resolved = components.resolve(
        preset_with(preset, overrides, [] if prompt is None else ["prompt.captioner=none"])
    )
    if camera is not None and not isinstance(camera, str):
        components.check_camera(resolved, camera)
    check_albedo_of_frames(resolved)
    if isinstance(frames, str | Path):
        frames = open_clip(Path(frames), max_pixels=max_pixels, warn=log.warning).read()
    pipeline = Pipeline(guided(resolved, temporal=True), device=device)
    return ClipRun(
        pipeline,
        frames,
        motion=motion,
        prompt=prompt,
        seed=seed,
        on_step=on_step,
        progress=progress,
        max_pixels=max_pixels,
        camera=camera,
    )
