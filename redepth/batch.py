"""Many photos, each in one way: check it, caption it, refine it, write its folder; by any executor.

A photo is decoded once. `check_photos` decodes it in full, because a damaged file shows only at its end, and
keeps the pixels for the refinement. Photos beyond `KEPT_BYTES` are decoded again when they are captioned and
when they are refined, so that the memory does not grow with their number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from redepth import components, io
from redepth.components import Components
from redepth.config import Preset
from redepth.errors import RedepthError
from redepth.optim.outcome import OnStep
from redepth.pipeline import DecodedPhoto, Pipeline, decode, write_captions
from redepth.priors.prompts import Captioner, Prompt
from redepth.refinement import GroundTruth, Refinement
from redepth.runtime.allocator import keep_freed_memory
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Executor, Make, Resources, executor

KEPT_BYTES = 256 * 2**20
"""Size of all decoded photos that are kept from their check on: seven of 12 megapixels. The first is kept at
any size."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The arrays of a photo: its pixels, and its sky mask where a file of one is named."""

    photo: DecodedPhoto
    sky: NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.photo.pixels.nbytes + (0 if self.sky is None else self.sky.nbytes)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of a batch.

    Attributes:
        path: its file.
        folder: where its results are written.
        sky_mask: file of its sky mask.
        ground_truth: to measure against.
        decoded: its arrays, where they are kept in memory.
        prompt: conditions the prior.
    """

    path: Path
    folder: Path
    sky_mask: Path | None = None
    ground_truth: GroundTruth | None = None
    decoded: Decoded | None = None
    prompt: Prompt | None = None


@dataclass(frozen=True)
class Settings:
    """The settings that all photos of a batch share.

    Attributes:
        preset: resolved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: of all random streams.
        prompt: of all photos; None: the preset's captioner writes one for each.
        max_pixels: photos with more pixels are refused.
    """

    preset: Preset
    device: str = "auto"
    seed: int = 0
    prompt: str | None = None
    max_pixels: int = io.MAX_PIXELS


@dataclass(frozen=True)
class Refined:
    """The summary of one refinement.

    Attributes:
        size: height and width of the photo.
        members: of the ensemble.
        steps: that the longest member took.
        change: mean absolute change over the range of the initial output.
        silog: before and after, with ground truth.
        seconds: of the optimisation.
        reason: why it is partial, if it is.
        warnings: a line for each failure signature that was flagged, and for what was not measured.
    """

    size: tuple[int, int]
    members: int
    steps: int
    change: float
    silog: tuple[float, float] | None
    seconds: float
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it after at least one step."""
        return self.reason == "interrupted"

    @classmethod
    def of(cls, result: Refinement) -> Refined:
        """Sum up a refinement."""
        scores = [e.metrics["silog"] for e in result.evaluations.values()]
        return cls(
            size=(result.photo.shape[0], result.photo.shape[1]),
            members=len(result.outcome.members),
            steps=max(result.outcome.steps_done),
            change=result.change,
            silog=(scores[0], scores[1]) if scores else None,
            seconds=result.outcome.seconds,
            reason=result.outcome.reason if result.partial else "",
            warnings=tuple(result.warnings),
        )


class Display(Protocol):
    """Shows the progress of a batch."""

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Return a context that shows an activity, such as loading a preset."""

    def steps(self, photo: Photo) -> AbstractContextManager[OnStep | None]:
        """Return a context with the function that shows a step. Only work in this process calls it."""

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Show a caption."""


class Silent:
    """A display that shows nothing."""

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Show nothing."""
        return nullcontext()

    def steps(self, photo: Photo) -> AbstractContextManager[OnStep | None]:
        """Show nothing."""
        return nullcontext()

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Show nothing."""


SILENT = Silent()


def is_done(photo: Photo, settings: Settings) -> bool:
    """Return whether the folder holds this refinement, complete: of this file, preset, seed and prompt."""
    try:
        record = json.loads((photo.folder / "run.json").read_text(encoding="utf-8"))
        same = (
            photo.path.is_file()
            and record["photo"]["source"] == str(photo.path.resolve())
            and record["preset"] == settings.preset.model_dump(mode="json")
            and record["seed"] == settings.seed
            and not record["partial"]
        )
        if settings.prompt is None:
            same_prompt = record["prompt_origin"]["from"] != "user"
        else:
            same_prompt = record["prompt"] == settings.prompt
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(same and same_prompt)


def check_photos(photos: Iterable[Photo], max_pixels: int) -> Iterator[Done[Photo, Photo]]:
    """Decode each photo in full and check its sky mask and ground truth, before minutes of work.

    Yields:
        The outcome of each check. The result is the photo, with its arrays as far as `KEPT_BYTES` allows.
    """
    room = KEPT_BYTES
    for index, photo in enumerate(photos):
        try:
            decoded = _decode(photo, max_pixels)
        except RedepthError as error:
            yield Done(index, photo, error=str(error))
            continue
        decoded = replace(decoded, photo=_as_uint8(decoded.photo))
        if index == 0 or decoded.nbytes <= room:
            room -= decoded.nbytes
            yield Done(index, photo, result=replace(photo, decoded=decoded))
        else:
            yield Done(index, photo, result=photo)


def refine_photos(
    photos: Sequence[Photo], settings: Settings, resources: Resources, display: Display = SILENT
) -> Iterator[Done[Photo, Refined]]:
    """Refine photos and write their folders.

    All captions are written before this function returns: the captioner is unloaded before the first
    refinement. The rest of the work happens while the outcomes are read.

    Returns:
        The outcome of each photo as it ends. After Ctrl-C no further photo is started; a photo that had taken
        a step is written, marked partial; KeyboardInterrupt is raised in the end.

    Raises:
        InputError: if a photo to be captioned cannot be read any more.
        WeightsError: if weights are missing.
    """
    if resources.kind == "inline":
        built = components.build(settings.preset, choose_device(settings.device))
        make = partial(_make_worker, settings, built, display)
        captioner = built.captioner
    else:
        make = partial(_make_worker, settings, settings.preset, SILENT)
        # Here, because a worker would load the captioner again for each photo.
        captioner = _captioner(settings)
    return _outcomes(executor(resources), make, _with_prompts(photos, settings, captioner, display))


def _outcomes(
    runner: Executor, make: Make[Photo, Refined], photos: Sequence[Photo]
) -> Iterator[Done[Photo, Refined]]:
    interrupted = False
    for done in runner.run(make, photos):
        if done.result is not None and done.result.interrupted:
            interrupted = True
            runner.stop()
        yield done
    if interrupted:
        raise KeyboardInterrupt


def _captioner(settings: Settings) -> Captioner | None:
    if settings.prompt is not None or settings.preset.prompt.captioner == "none":
        return None
    return components.captioner_of(settings.preset, choose_device(settings.device))


def _with_prompts(
    photos: Sequence[Photo], settings: Settings, captioner: Captioner | None, display: Display
) -> list[Photo]:
    if settings.prompt is not None:
        prompts = [Prompt(settings.prompt)] * len(photos)
    else:
        sources = [photo.path if photo.decoded is None else photo.decoded.photo for photo in photos]
        with display.activity("captioning"):
            prompts = write_captions(captioner, sources, settings.max_pixels)
    for photo, prompt in zip(photos, prompts, strict=True):
        if settings.prompt is None and prompt.text:
            display.caption(photo, prompt)
    return [replace(photo, prompt=prompt) for photo, prompt in zip(photos, prompts, strict=True)]


def _decode(photo: Photo, max_pixels: int) -> Decoded:
    """Read a photo and its sky mask, and check that mask and ground truth have the photo's size.

    Raises:
        InputError: if one of them cannot be read or used.
    """
    decoded = decode(photo.path, max_pixels)
    height, width = decoded.pixels.shape[:2]
    if photo.ground_truth is not None:
        photo.ground_truth.check(height, width)
    if photo.sky_mask is None:
        return Decoded(decoded)
    sky = io.load_mask(photo.sky_mask, max_pixels=max_pixels, may_be_empty=True)
    io.check_size(f"sky mask '{photo.sky_mask}'", sky.shape, height, width)
    return Decoded(decoded, sky)


def _as_uint8(photo: DecodedPhoto) -> DecodedPhoto:
    """Return the photo as uint8 where that loses nothing: all but 16-bit and float files."""
    pixels = np.empty(photo.pixels.shape, np.uint8)
    # In blocks of rows: copies of a photo of 100 megapixels would take gigabytes.
    for start in range(0, len(pixels), 256):
        rows = DecodedPhoto(photo.pixels[start : start + 256])
        compact = DecodedPhoto(io.to_uint8(rows.values))
        if not np.array_equal(compact.values, rows.values):
            return photo
        pixels[start : start + 256] = compact.pixels
    return replace(photo, pixels=pixels)


@dataclass(frozen=True)
class _Worker:
    """Refines one photo after the other."""

    pipeline: Pipeline
    settings: Settings
    display: Display

    def __call__(self, photo: Photo) -> Refined:
        decoded = photo.decoded or _decode(photo, self.settings.max_pixels)
        with self.display.steps(photo) as on_step:
            result = self.pipeline.refine(
                decoded.photo,
                prompt=photo.prompt,
                seed=self.settings.seed,
                on_step=on_step,
                ground_truth=photo.ground_truth,
                sky_mask=decoded.sky,
            )
        result.save(photo.folder)
        return Refined.of(result)


def _make_worker(settings: Settings, preset: Preset | Components, display: Display) -> _Worker:
    with display.activity(f"loading preset {settings.preset.name}"):
        pipeline = Pipeline(preset, device=settings.device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()
    return _Worker(pipeline, settings, display)
