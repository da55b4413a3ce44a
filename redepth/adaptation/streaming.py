"""The photos of a training, read from disk in the order in which they are learned from."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from redepth import io
from redepth.adaptation.lessons import Lesson, LoadedPhoto, purpose_generator
from redepth.adaptation.photos import PhotoFile, decoded
from redepth.errors import InputError, one_line


@dataclass(frozen=True)
class Slot:
    """One photo of a step.

    Attributes:
        number: among the photos of a step, over all processes and lessons.
        lesson: index of the lesson.
        turn: among the lesson's photos of a step.
    """

    number: int
    lesson: int
    turn: int


def slots_of(lessons: Sequence[Lesson]) -> list[Slot]:
    """Return the slots of each step, lesson after lesson."""
    pairs = [(i, turn) for i, lesson in enumerate(lessons) for turn in range(lesson.per_step)]
    return [Slot(number, lesson, turn) for number, (lesson, turn) in enumerate(pairs)]


class Order:
    """Which photo is learned from in each slot: each pass over a lesson's photos has its own random order.

    Args:
        lessons: of the training.
        seed: of the orders.
    """

    def __init__(self, lessons: Sequence[Lesson], seed: int) -> None:
        self._lessons, self._seed = lessons, seed
        self._passes: dict[int, tuple[int, list[int]]] = {}

    def __call__(self, step: int, slot: Slot) -> tuple[int, int]:
        """Return the index of the slot's lesson, and that of the photo in it."""
        lesson = self._lessons[slot.lesson]
        passes, position = divmod(step * lesson.per_step + slot.turn, len(lesson.photos))
        number, order = self._passes.get(slot.lesson, (-1, []))
        if number != passes:
            generator = purpose_generator("order", self._seed, slot.lesson, passes)
            order = torch.randperm(len(lesson.photos), generator=generator).tolist()
            self._passes[slot.lesson] = passes, order
        return slot.lesson, order[position]


class _Photos(Dataset[LoadedPhoto | str]):
    """Photos by (lesson, index); one that cannot be read is an error message, which crosses processes."""

    def __init__(self, photos: Sequence[Sequence[PhotoFile]], max_pixels: int) -> None:
        self._photos, self._max_pixels = photos, max_pixels

    def __getitem__(self, key: tuple[int, int]) -> LoadedPhoto | str:
        lesson, index = key
        try:
            return load(self._photos[lesson][index], self._max_pixels)
        except Exception as error:
            return one_line(error)


class _Places(Sampler[tuple[int, int]]):
    """The photos of some slots, from a step on."""

    def __init__(self, order: Order, slots: Sequence[Slot], steps: range) -> None:
        self._order, self._slots, self._steps = order, slots, steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in self._steps:
            for slot in self._slots:
                yield self._order(step, slot)


def stream(
    lessons: Sequence[Lesson],
    slots: Sequence[Slot],
    steps: range,
    *,
    seed: int,
    loaders: int = 0,
    max_pixels: int = io.MAX_PIXELS,
) -> Generator[LoadedPhoto, None, None]:
    """Yield the photos of these slots, step after step. Few are in memory: two for each loader.

    The number of loaders changes neither the order nor the values.

    Args:
        lessons: all of the training.
        slots: those of this process.
        steps: that are left.
        seed: of the order.
        loaders: number of processes that read photos; 0 reads them here.
        max_pixels: refuse photos with more pixels.

    Raises:
        InputError: a photo cannot be read any more, or its file was replaced.
    """
    loader = DataLoader(
        _Photos([lesson.photos for lesson in lessons], max_pixels),
        batch_size=None,
        sampler=_Places(Order(lessons, seed), slots, steps),
        num_workers=loaders,
        collate_fn=_unchanged,
        multiprocessing_context="spawn" if loaders else None,
        # Otherwise the loader draws a number from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    for photo in loader:
        if isinstance(photo, str):
            raise InputError(photo)
        yield photo


def _unchanged(photo: Any) -> Any:
    return photo


def load(photo: PhotoFile, max_pixels: int = io.MAX_PIXELS) -> LoadedPhoto:
    """Read a photo, in 8 bits where this loses nothing: a quarter of the memory.

    Raises:
        InputError: it cannot be read, or its file has another content than at the start.
    """
    values = np.ascontiguousarray(decoded(photo, max_pixels).values.transpose(2, 0, 1))
    bits = io.to_uint8(values.reshape(-1, values.shape[-1])).reshape(values.shape)
    exact = bool(np.array_equal(bits.astype(np.float32) / np.float32(255), values))
    return LoadedPhoto(photo, torch.from_numpy(bits if exact else values))
