"""One step of a training: the gradient of its photos, one after the other, and the change of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redepth.adaptation.learned import Learned, Trainee
from redepth.adaptation.lessons import TOTAL, Lesson, LoadedPhoto, Place
from redepth.adaptation.processes import Processes
from redepth.adaptation.streaming import Slot, slots_of
from redepth.config.adaptation import Adapt
from redepth.errors import ConfigError, RedepthError

Losses = dict[int, dict[str, float]]
"""The number of a slot -> its losses by name."""


@dataclass(frozen=True)
class Taken:
    """What is known of a step.

    Attributes:
        losses: of the photos of this process.
        norm: of the gradient over all photos, before it was clipped.
    """

    losses: Losses
    norm: float


class Step:
    """Takes the steps of a training in one process; only one photo's graph is in memory at a time.

    Args:
        trainee: the model.
        learned: its weights.
        optimizer: of the learned weights.
        lessons: of the training.
        settings: of the training.
        seed: of the draws.
        processes: whose gradients are averaged.

    Attributes:
        all_slots: the photos of a step.
        slots: those of this process.

    Raises:
        ConfigError: there are fewer photos in a step than processes.
    """

    def __init__(
        self,
        trainee: Trainee,
        learned: Learned,
        optimizer: torch.optim.Optimizer,
        lessons: Sequence[Lesson],
        settings: Adapt,
        seed: int,
        processes: Processes,
    ) -> None:
        self.all_slots = slots_of(lessons)
        self.slots = processes.mine(self.all_slots)
        if len(self.all_slots) < processes.world:
            raise ConfigError(
                f"a step has {len(self.all_slots)} photos for {processes.world} processes: give adapt.batch "
                "a larger number, or start fewer processes"
            )
        self._module = processes.wrapped(trainee)
        self._predictor = _Predictor(trainee, self._module, processes.device)
        self._learned, self._optimizer, self._lessons = learned, optimizer, lessons
        self._settings, self._seed, self._processes = settings, seed, processes

    def gradient(self, step: int, photos: Iterator[LoadedPhoto]) -> Taken:
        """Compute a step's gradient on the next photos of this process; the weights stay as they are.

        Raises:
            RedepthError: a loss or the gradient is not finite.
        """
        self._optimizer.zero_grad(set_to_none=True)
        losses: Losses = {}
        names = []
        for slot in self.slots:
            photo = next(photos)
            names.append(photo.name)
            with self._processes.averaging(self._module, slot is self.slots[-1]):
                losses[slot.number] = self._learn(step, slot, photo)
        weights = self._learned.parameters.values()
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self._settings.clip_norm))
        if not math.isfinite(norm):
            raise _not_finite(step, f"the gradient of {', '.join(names)}", self._settings)
        return Taken(losses, norm)

    def change(self, rate: float) -> None:
        """Change the weights by the gradient, with a learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def _learn(self, step: int, slot: Slot, photo: LoadedPhoto) -> dict[str, float]:
        """Add a photo's share of the gradient, and return its losses."""
        lesson = self._lessons[slot.lesson]
        place = Place(self._seed, step, slot.number, step / self._settings.steps)
        named = lesson.loss(self._predictor, photo, place)
        values = {name: float(loss.detach()) for name, loss in named.items()}
        if not all(map(math.isfinite, values.values())):
            listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise _not_finite(step, f"the loss of {photo.name} ({listed})", self._settings)
        if not named[TOTAL].requires_grad:
            raise ConfigError(f"the loss of {photo.name} has no gradient: the depth model cannot be trained")
        # The processes' gradients are averaged, and the photos' shares must be added.
        share = lesson.weight / lesson.per_step * self._processes.world
        (share * named[TOTAL]).backward()
        return values


class _Predictor:
    """The trained model as losses see it."""

    def __init__(self, trainee: Trainee, module: Any, device: torch.device) -> None:
        self.prepare, self._module, self.device = trainee.prepare, module, device

    def predict(self, image: Tensor) -> Tensor:
        raw: Tensor = self._module(image)
        return raw


def _not_finite(step: int, what: str, settings: Adapt) -> RedepthError:
    return RedepthError(
        f"step {step + 1}: {what} is not finite; the last state is kept: start anew with a lower "
        f"adapt.learning_rate than {settings.learning_rate:g}, or with adapt.precision=float32"
    )


def mean_losses(
    lessons: Sequence[Lesson], slots: Sequence[Slot], shares: Sequence[Losses]
) -> dict[str, Mapping[str, float]]:
    """Return lesson -> name -> mean over its photos of a step, added in the order of the slots.

    Args:
        lessons: of the training.
        slots: of a step.
        shares: of all processes.
    """
    everywhere = {number: losses for share in shares for number, losses in share.items()}
    means: dict[str, Mapping[str, float]] = {}
    for index, lesson in enumerate(lessons):
        rows = [everywhere[slot.number] for slot in slots if slot.lesson == index]
        means[lesson.name] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return means
