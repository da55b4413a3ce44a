"""Many photos, each in one way: check it, caption it, refine it, write its folder; by any executor.

A photo is decoded once. `check_photos` decodes it in full, because a damaged file shows only at its end, and
keeps the pixels for the refinement. Photos beyond `KEPT_BYTES` are decoded again when they are captioned and
when they are refined, so that the memory does not grow with their number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redepth import components, io
from redepth.components import Components
from redepth.config import Preset
from redepth.errors import InputError, MissingDependencyError, WeightsError, one_line
from redepth.exports import RECORD, RESULT_FILES
from redepth.ground_truth import GroundTruth
from redepth.optim.outcome import OnStep
from redepth.pipeline import DecodedPhoto, Pipeline, decode, write_captions
from redepth.priors.prompts import Captioner, Prompt
from redepth.refinement import Refinement
from redepth.runtime.allocator import keep_freed_memory
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Executor, Make, Resources, executor
from redepth.runtime.resume import Identity, first_difference, read_record, why_again

log = logging.getLogger(__name__)

KEPT_BYTES = 256 * 2**20
"""Size of all decoded photos that are kept from their check on: seven of 12 megapixels. The first is kept at
any size."""

BYTES_PER_PIXEL = 30
"""Room that the files of a photo take at most, apart from a few megabytes: three maps of 4 bytes, one of 2,
normals of 3, and points of 15 where each pixel is one."""


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
        hashes: of the photo and of its sky mask and ground truth, taken before they were read.
    """

    path: Path
    folder: Path
    sky_mask: Path | None = None
    ground_truth: GroundTruth | None = None
    decoded: Decoded | None = None
    prompt: Prompt | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def with_hashes(self) -> Photo:
        """Return the photo with its hashes."""
        hashes = {"the photo": io.sha256_of(self.path)}
        if self.sky_mask is not None:
            hashes["the sky mask"] = io.sha256_of(self.sky_mask)
        if self.ground_truth is not None:
            hashes |= self.ground_truth.hashes
            hashes["the kind of the ground truth"] = self.ground_truth.kind
        return replace(self, hashes=hashes)


@dataclass(frozen=True)
class Settings:
    """The settings that all photos of a batch share.

    Attributes:
        preset: resolved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: of all random streams.
        prompt: of all photos; None: the preset's captioner writes one for each.
        max_pixels: photos, masks and maps with more pixels are refused.
    """

    preset: Preset
    device: str = "auto"
    seed: int = 0
    prompt: str | None = None
    max_pixels: int = io.MAX_PIXELS

    @cached_property
    def versions(self) -> dict[str, str]:
        """The versions that a result depends on."""
        return components.component_versions(self.preset)


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


def why_refine(photo: Photo, settings: Settings) -> str | None:
    """Return None if the folder holds this refinement, complete; else why it does not, in words.

    A refinement is done if its record names the same photo, preset, seed and prompt, the same contents of all
    files that it was made from and the same versions of the components, and if its files are as they were
    written. The reason is empty where there is no result, or no photo any more.
    """
    try:
        record = read_record(photo.folder / RECORD)
        if record is None or not os.path.isfile(photo.path):
            return ""
        changes = list(_changed_settings(record, settings))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} is damaged"
    if changes:
        return "; ".join(changes)
    if not record.get("files"):
        return f"{RECORD} names no files"
    named = components.named_files(settings.preset, photo.path)
    identity = _identity(photo.with_hashes(), settings, named)
    return why_again(record, identity, photo.folder) or None


def _changed_settings(record: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    if record["partial"]:
        yield "it was ended early"
    preset = settings.preset.model_dump(mode="json")
    if record["preset"] != preset:
        yield f"another preset ({first_difference(record['preset'], preset)})"
    if record["seed"] != settings.seed:
        yield first_difference(record["seed"], settings.seed, "seed")
    if settings.prompt is None:
        if record["prompt_origin"]["from"] == "user":
            yield "the prompt is not given any more"
    elif record["prompt"] != settings.prompt:
        yield "another prompt"


def _identity(
    photo: Photo,
    settings: Settings,
    named: Mapping[str, list[Path]],
    shared: Mapping[str, str] | None = None,
) -> Identity:
    """Return the identity of a refinement.

    Args:
        photo: with its hashes.
        settings: of the batch.
        named: the files that options of components name for the photo.
        shared: hashes that were taken earlier, which count.
    """
    identity = Identity.of(named, settings.versions, **photo.hashes)
    return identity.model_copy(update={"inputs": {**identity.inputs, **(shared or {})}})


def check_photos(photos: Iterable[Photo], max_pixels: int) -> Iterator[Done[Photo, Photo]]:
    """Decode each photo in full and check its sky mask and ground truth, before minutes of work.

    Whatever is wrong with a photo, the next one is checked.

    Yields:
        The outcome of each check. The result is the photo, with its arrays as far as `KEPT_BYTES` allows.
    """
    room = KEPT_BYTES
    for index, photo in enumerate(photos):
        try:
            # The hashes first: a file that changes meanwhile differs from its hash in the next call.
            checked = photo.with_hashes()
            _check_folder(photo.folder)
            _check_kept(photo.folder, [photo.path, *([] if photo.sky_mask is None else [photo.sky_mask])])
            decoded = _decode(photo, max_pixels)
            decoded = replace(decoded, photo=_as_uint8(decoded.photo))
        except Exception as error:  # such as MemoryError
            log.debug("%s failed", photo.path, exc_info=True)
            yield Done(index, photo, error=one_line(error))
            continue
        if index == 0 or decoded.nbytes <= room:
            room -= decoded.nbytes
            yield Done(index, photo, result=replace(checked, decoded=decoded))
        else:
            yield Done(index, photo, result=checked)


def _check_folder(folder: Path) -> None:
    """Raise InputError now if the result could not be written to its folder later."""
    if os.path.lexists(folder) and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise InputError(
            f"{folder}: is not a folder that can be written to; move it away or choose another --out"
        )


def _check_kept(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if the result would replace a file that it is made from."""
    for path in inputs:
        parent, name = os.path.split(os.path.realpath(path))
        if name in RESULT_FILES and parent == os.path.realpath(folder):
            raise InputError(f"{path}: the result would replace this file; choose another --out")


def refine_photos(
    photos: Sequence[Photo], settings: Settings, resources: Resources, display: Display = SILENT
) -> Iterator[Done[Photo, Refined]]:
    """Refine photos and write their folders.

    All captions are written before this function returns: the captioner is unloaded before the first
    refinement. The rest of the work happens while the outcomes are read.

    Returns:
        The outcome of each photo as it ends; first of those that cannot be captioned. After Ctrl-C no further
        photo is started; a photo that had taken a step is written, marked partial; KeyboardInterrupt is
        raised in the end.

    Raises:
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
    captioned = _with_prompts(photos, settings, captioner, display)
    return _outcomes(executor(resources), make, captioned)


def _outcomes(
    runner: Executor, make: Make[Photo, Refined], captioned: Sequence[Done[Photo, Photo]]
) -> Iterator[Done[Photo, Refined]]:
    interrupted = False
    for failed in captioned:
        if failed.result is None:
            yield Done(failed.index, failed.item, error=failed.error)
    photos = [done.result for done in captioned if done.result is not None]
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
) -> list[Done[Photo, Photo]]:
    """Return each photo with its prompt, or why it has none."""
    if settings.prompt is not None:
        outcomes: list[Prompt | str] = [Prompt(settings.prompt)] * len(photos)
    else:
        with display.activity("captioning"):
            outcomes = _captions(photos, captioner, settings.max_pixels)
    captioned: list[Done[Photo, Photo]] = []
    for index, (photo, prompt) in enumerate(zip(photos, outcomes, strict=True)):
        if isinstance(prompt, str):
            captioned.append(Done(index, photo, error=prompt))
            continue
        if settings.prompt is None and prompt.text:
            display.caption(photo, prompt)
        captioned.append(Done(index, photo, result=replace(photo, prompt=prompt)))
    return captioned


def _captions(photos: Sequence[Photo], captioner: Captioner | None, max_pixels: int) -> list[Prompt | str]:
    """Return a caption of each photo, or the error."""
    sources = [photo.path if photo.decoded is None else photo.decoded.photo for photo in photos]
    try:
        return [*write_captions(captioner, sources, max_pixels)]
    except (WeightsError, MissingDependencyError):
        raise
    except Exception as error:  # of one photo
        log.debug("captioning failed", exc_info=True)
        if len(photos) == 1:
            return [one_line(error)]
    return [caption for photo in photos for caption in _captions([photo], captioner, max_pixels)]


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
    shared: Mapping[str, str]

    def __call__(self, photo: Photo) -> Refined:
        hashed = photo if photo.hashes else photo.with_hashes()
        named = components.named_files(self.settings.preset, photo.path)
        _check_kept(photo.folder, [file for files in named.values() for file in files])
        identity = _identity(hashed, self.settings, named, self.shared)
        decoded = photo.decoded or _decode(photo, self.settings.max_pixels)
        height, width = decoded.photo.pixels.shape[:2]
        io.require_room(photo.folder, BYTES_PER_PIXEL * height * width)
        with self.display.steps(photo) as on_step:
            result = self.pipeline.refine(
                decoded.photo,
                prompt=photo.prompt,
                seed=self.settings.seed,
                on_step=on_step,
                ground_truth=photo.ground_truth,
                max_pixels=self.settings.max_pixels,
                sky_mask=decoded.sky,
            )
        result = replace(result, identity=identity.model_dump())
        result.save(photo.folder)
        return Refined.of(result)


def _make_worker(settings: Settings, preset: Preset | Components, display: Display) -> _Worker:
    # Before they are loaded: weights in a folder, for example.
    shared = Identity.of(components.named_files(settings.preset), {}).inputs
    with display.activity(f"loading preset {settings.preset.name}"):
        pipeline = Pipeline(preset, device=settings.device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()
    return _Worker(pipeline, settings, display, shared)
