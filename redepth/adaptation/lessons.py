"""What a depth model is trained on: photos, how many of them in a step, and the loss of one photo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from redepth.adaptation.photos import PhotoFile
from redepth.optim.draws import key_generator

TOTAL = "total"
"""The loss that is minimised, among the named losses of a photo."""


@dataclass(frozen=True, eq=False)
class LoadedPhoto:
    """A photo in memory.

    Attributes:
        file: where it is from.
        pixels: (3, H, W) sRGB, uint8 or float32 in [0, 1], on the CPU.
    """

    file: PhotoFile
    pixels: Tensor

    @property
    def name(self) -> str:
        """The photo's name, for messages."""
        return self.file.name

    def tensor(self, device: torch.device) -> Tensor:
        """Return (1, 3, H, W) sRGB float32 in [0, 1] on a device."""
        pixels = self.pixels.to(device)[None]
        return pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class Place:
    """Where in a training a photo is learned from; all random draws depend on it alone.

    Attributes:
        seed: of the training.
        step: 0-based.
        slot: 0-based, of the step's photos over all processes.
        progress: share of the steps that are done, in [0, 1).
    """

    seed: int
    step: int
    slot: int
    progress: float

    def generator(self) -> Generator:
        """Return the CPU generator of this place."""
        return purpose_generator("draws", self.seed, self.step, self.slot)


class Predictor(Protocol):
    """The depth model that is trained, as losses see it."""

    device: torch.device

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) sRGB [0,1] to the network's size."""
        ...

    def predict(self, image: Tensor) -> Tensor:
        """Return the raw output (1,1,H,W), float32, of an image at network size; it has a gradient."""
        ...


class PhotoLoss(Protocol):
    """The losses of one photo."""

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        """Return named scalar losses; ``total`` is minimised, the others are logged.

        `Predictor.predict` is called exactly once.
        """
        ...


@dataclass(frozen=True)
class Lesson:
    r"""Photos that are learned from in the same way.

    A step minimises

    .. math:: \sum_k w_k \frac{1}{n_k} \sum_{i=1}^{n_k} \mathrm{total}_{ki}

    over the lessons k with their weights and photos per step. Each pass over a lesson's photos has an order
    of its own.

    Attributes:
        name: short, for the log and for seeds: ``learn``, ``keep``.
        photos: at least one.
        per_step: number of photos in a step, over all processes.
        loss: of one photo.
        weight: of the mean of the losses.
    """

    name: str
    photos: tuple[PhotoFile, ...]
    per_step: int
    loss: PhotoLoss
    weight: float = 1.0


@dataclass(frozen=True)
class Validation:
    """What decides when a training stops, and which of its weights are the result.

    Attributes:
        photos: held out.
        distance: of a prediction (1,1,H,W), raw output in float32, to what is known of that photo; lower is
            better.
    """

    photos: tuple[PhotoFile, ...]
    distance: Callable[[Tensor, PhotoFile], float]


def purpose_generator(purpose: str, *key: int) -> Generator:
    """Return the CPU generator of one use of random numbers, seeded by its name and some numbers alone."""
    return key_generator(int.from_bytes(purpose.encode(), "big"), *key)
