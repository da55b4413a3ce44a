"""Several photos: which are refined already, and the rest by any executor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from redepth import io
from redepth.components import captioner_of
from redepth.config import Preset
from redepth.pipeline import Pipeline
from redepth.priors.prompts import Prompt
from redepth.refinement import Refinement
from redepth.runtime.allocator import keep_freed_memory
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Resources, executor


@dataclass(frozen=True)
class Photo:
    """A photo, the folder of its results, and where its sky is, if that is given."""

    path: Path
    folder: Path
    sky_mask: Path | None = None


@dataclass(frozen=True)
class Refined:
    """What a listing shows of one refinement.

    Attributes:
        size: height and width of the photo.
        members: of the ensemble.
        steps: that the longest member took.
        change: mean absolute change over the range of the initial output.
        silog: before and after, with ground truth.
        seconds: of the optimisation.
        reason: why it is partial, if it is.
        warnings: failure signatures that were flagged.
    """

    size: tuple[int, int]
    members: int
    steps: int
    change: float
    silog: tuple[float, float] | None
    seconds: float
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: Refinement) -> Refined:
        """Sum up a refinement."""
        span = float(result.initial.max() - result.initial.min())
        scores = [e.metrics["silog"] for e in result.evaluations.values()]
        return cls(
            size=(result.photo.shape[0], result.photo.shape[1]),
            members=len(result.outcome.members),
            steps=max(result.outcome.steps_done),
            change=float(abs(result.refined - result.initial).mean()) / span if span else 0.0,
            silog=(scores[0], scores[1]) if scores else None,
            seconds=result.outcome.seconds,
            reason=result.outcome.reason if result.partial else "",
            warnings=tuple(signature.warning for signature in result.flagged),
        )


def is_done(photo: Photo, preset: Preset, seed: int, prompt: str | None) -> bool:
    """Return whether the folder holds this refinement, complete: of this file, preset, seed and prompt."""
    try:
        record = json.loads((photo.folder / "run.json").read_text(encoding="utf-8"))
        same = (
            record["photo"]["source"] == str(photo.path.resolve())
            and record["preset"] == preset.model_dump(mode="json")
            and record["seed"] == seed
            and not record["partial"]
        )
        told = record["prompt"] == prompt if prompt is not None else record["prompt_origin"]["from"] != "user"
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(same and told)


def refine_photos(
    preset: Preset,
    photos: Sequence[Photo],
    resources: Resources,
    *,
    device: str = "auto",
    seed: int = 0,
    prompt: str | None = None,
    max_pixels: int,
) -> Iterator[Done[Photo, Refined]]:
    """Refine photos and write their folders, yielding each outcome as it ends."""
    told: dict[Path, Prompt] = {}
    captioner = captioner_of(preset, choose_device(device)) if prompt is None else None
    if captioner is not None:
        # Here and once: a worker would load the captioner again for each photo.
        pixels = (io.load_photo(photo.path, max_pixels=max_pixels) for photo in photos)
        told = dict(zip((p.path for p in photos), captioner.captions(pixels), strict=True))
    make = partial(_make_worker, preset.model_dump_json(), device, seed, prompt, told, max_pixels)
    return executor(resources).run(make, photos)


def _make_worker(
    preset: str,
    device: str,
    seed: int,
    prompt: str | None,
    told: Mapping[Path, Prompt],
    max_pixels: int,
) -> Callable[[Photo], Refined]:
    pipeline = Pipeline(Preset.model_validate_json(preset), device=device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()

    def work(photo: Photo) -> Refined:
        sky = None
        if photo.sky_mask is not None:
            sky = io.load_mask(photo.sky_mask, max_pixels=max_pixels, may_be_empty=True)
        result = pipeline.refine(
            photo.path,
            prompt=told.get(photo.path, prompt),
            seed=seed,
            max_pixels=max_pixels,
            sky_mask=sky,
        )
        result.save(photo.folder)
        return Refined.of(result)

    return work
