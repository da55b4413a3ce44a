"""Small trainings of the recorded tiny depth model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redepth.adaptation import photos as files
from redepth.adaptation.lessons import TOTAL, Lesson, LoadedPhoto, Place, Predictor, Validation
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.training import Trained, train
from redepth.config.adaptation import Adapt
from tests.support.helpers import tiny_depth_model
from tests.support.small_photos import write_photo

QUICK: dict[str, Any] = {
    "steps": 6,
    "batch": 4,
    "learning_rate": 1e-3,
    "warm_up": 2,
    "ema": 0.5,
    "validate_every": 3,
    "loaders": 0,
}


def some_photos(folder: Path, count: int = 6) -> list[PhotoFile]:
    """Write photos of two sizes."""
    for number in range(count):
        write_photo(folder / f"photo{number}.png", number, (56, 70) if number % 2 else (70, 56))
    return files.find([folder])


def grey(image: Tensor) -> Tensor:
    return image.mean(dim=1, keepdim=True)


class LikeGrey:
    """The squared distance of a prediction to the photo's grey, to which random numbers are added."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        image = model.prepare(photo.tensor(model.device))
        raw = model.predict(image)
        drawn = torch.rand(raw.shape, generator=place.generator()).to(raw.device)
        error = raw - grey(image) - self.noise * drawn
        return {"error": error.abs().mean(), TOTAL: (error**2).mean()}


class GreyDistance:
    """Of a prediction to the photo's grey; it needs the photo's file only for its name."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, raw: Tensor, photo: PhotoFile) -> float:
        self.seen.append(photo.name)
        return float((raw - 0.5).abs().mean())


def lessons_of(photos: list[PhotoFile], batch: int = 4, noise: float = 0.3) -> list[Lesson]:
    """Learn from all but the last photo, and keep the last."""
    return [
        Lesson("learn", tuple(photos[:-1]), batch, LikeGrey(noise)),
        Lesson("keep", tuple(photos[-1:]), 1, LikeGrey(), weight=0.5),
    ]


def run(
    folder: Path, photos: list[PhotoFile], *, lessons: list[Lesson] | None = None, **options: Any
) -> tuple[Any, Trained]:
    """Train the tiny model; ``options`` are settings of `Adapt` or arguments of `train`."""
    settings = {name: options.pop(name) for name in list(options) if name in Adapt.model_fields}
    adapt = Adapt.model_validate(QUICK | settings)
    model = options.pop("model", None) or tiny_depth_model()
    validation = options.pop("validation", Validation(tuple(photos[:2]), GreyDistance()))
    chosen = lessons_of(photos, adapt.batch) if lessons is None else lessons
    folder.mkdir(parents=True, exist_ok=True)
    return model, train(model, chosen, validation, adapt, folder, **options)


def weights(model: Any) -> dict[str, Tensor]:
    """Return a copy of all weights."""
    return {name: p.detach().clone() for name, p in model.network().named_parameters()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are equal, to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
