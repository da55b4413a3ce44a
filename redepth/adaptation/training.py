"""Train a depth model on photos without labels: the loop, which knows only losses of photos."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redepth import io
from redepth.adaptation.learned import Average, Learned, Trainee, check_adaptable, chosen_precision
from redepth.adaptation.lessons import TOTAL, Lesson, LoadedPhoto, Validation
from redepth.adaptation.photos import PhotoFile, by_content
from redepth.adaptation.processes import Processes
from redepth.adaptation.state import (
    StateRecord,
    TrainingLog,
    load_state,
    optimizer_tensors,
    save_state,
    set_optimizer,
)
from redepth.adaptation.stepping import Step, mean_losses
from redepth.adaptation.streaming import load, stream
from redepth.config.adaptation import Adapt
from redepth.config.units import memory
from redepth.contracts import DepthModel, Features
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.optim.limits import CudaMeter, Deadline
from redepth.runtime.device import is_out_of_memory

CURES = (
    "less is needed with a smaller depth_model.longer_side, with adapt.learns=low-rank or decoder, or with "
    "adapt.precision=bfloat16"
)
"""What lowers the memory of a step. The batch does not count: its photos are computed one by one."""


@dataclass(frozen=True)
class TrainingReport:
    """The progress of a training, after a step or a validation.

    Attributes:
        step: number of steps that are done.
        steps: number of steps at most.
        loss: of the last step; None before the first.
        distance: of the last validation; None without one.
        best: step of the best validation so far.
        left: estimated seconds until all steps are done, or the time limit; None before the first step.
    """

    step: int
    steps: int
    loss: float | None
    distance: float | None
    best: int
    left: float | None


@dataclass(frozen=True)
class Trained:
    """The end of a training, whose result is in the depth model.

    Attributes:
        steps: that were taken, over all calls.
        chosen: the step whose averaged weights are the result; 0 is the starting model.
        stopped: why the training ended, in words.
        finished: whether it ended by itself: not by the limit of time, after which it can go on.
        distances: step -> mean distance of the validation after it; 0 is the starting model. Empty without
            held-out photos.
        learned: number of learned weights, and of all.
        seconds: of the training, over all calls.
        peak_memory: most bytes of GPU memory in this call; None on other devices.
    """

    steps: int
    chosen: int
    stopped: str
    finished: bool
    distances: dict[int, float]
    learned: tuple[int, int]
    seconds: float
    peak_memory: int | None


def train(
    model: DepthModel,
    lessons: Sequence[Lesson],
    validation: Validation | None,
    settings: Adapt,
    folder: Path,
    *,
    seed: int = 0,
    processes: Processes | None = None,
    deadline: Deadline | None = None,
    vram: str | None = None,
    max_pixels: int = io.MAX_PIXELS,
    on_report: Callable[[TrainingReport], object] = lambda report: None,
) -> Trained:
    """Train a depth model; afterwards it holds the result, without adapters, frozen.

    The result is the exponential moving average of the weights at the step of the best validation, or at the
    last step without held-out photos. The starting model counts as step 0. ``folder`` gets
    ``state.safetensors`` at each validation, at Ctrl-C and at the end, and ``log.jsonl``, a line per step and
    per validation. Called again with the same arguments, a training that was ended at any moment continues;
    on a CPU its weights are those of one that was not ended, to the bit. The names of the photos, and the
    order in which they are given, change nothing.

    The model is in eval mode throughout: no dropout, and batch norms keep their statistics.

    Args:
        model: loaded, on the device, of its own: no other object uses its weights.
        lessons: what it learns; all photos of a step, one at a time, give its gradient.
        validation: None, or one without photos: the last weights are the result.
        settings: of the training.
        folder: of the state; it exists.
        seed: of the order of photos and of all draws.
        processes: this process among those of a training (`Processes.start`); by default it is alone.
        deadline: the training ends at this time with the best weights so far.
        vram: most GPU memory, such as ``8GB``.
        max_pixels: refuse photos with more pixels.
        on_report: called after each step and validation, in the first process alone.

    Raises:
        ConfigError: the model cannot be trained, the folder holds another training, or a step needs more
            than ``vram``.
        RedepthError: a loss or a gradient is not finite; the last state remains.
        InputError: a photo cannot be read any more, or its file was replaced.
        KeyboardInterrupt: after Ctrl-C; the state of the last step is saved.
    """
    check_adaptable(model)
    processes = processes or Processes(next(iter(model.encoder_parameters().values())).device)
    lessons = [replace(lesson, photos=by_content(lesson.photos)) for lesson in lessons]
    if validation:
        validation = replace(validation, photos=by_content(validation.photos))
    for lesson in lessons:
        if not lesson.photos:
            raise InputError(f"no photo is left for '{lesson.name}': give more photos")
    meter = _meter(vram, processes.device)
    if processes.device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(processes.device)
    with meter.limited() if meter else nullcontext(), _advice(vram):
        return _Training(
            model,
            lessons,
            validation,
            settings,
            folder,
            seed,
            processes,
            deadline or Deadline.start(None),
            max_pixels,
            on_report,
        ).run()


class _Training:
    """A training in progress. All that decides its numbers is in its record and tensors, or given."""

    def __init__(
        self,
        model: DepthModel,
        lessons: Sequence[Lesson],
        validation: Validation | None,
        settings: Adapt,
        folder: Path,
        seed: int,
        processes: Processes,
        deadline: Deadline,
        max_pixels: int,
        on_report: Callable[[TrainingReport], object],
    ) -> None:
        self.model, self.lessons, self.settings, self.folder = model, lessons, settings, folder
        self.seed, self.processes, self.deadline = seed, processes, deadline
        self.max_pixels, self.on_report = max_pixels, on_report
        self.validation = validation if validation and validation.photos else None
        self.learned = Learned(model, settings, seed)
        trainee = Trainee(model, self.learned, settings.precision, processes.device)
        weights = list(self.learned.parameters.values())
        self.optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=settings.weight_decay)
        self.step = Step(trainee, self.learned, self.optimizer, lessons, settings, seed, processes)
        self.average = Average(self.learned, settings.ema)
        self.best = self.learned.values()
        held_out = self.validation.photos if self.validation else ()
        identity = _identity(settings, seed, lessons, held_out, processes.device)
        files = [photo for lesson in lessons for photo in lesson.photos] + [*held_out]
        self.record = StateRecord(identity=identity, names={photo.sha256: photo.name for photo in files})
        self._restore()
        self.log = TrainingLog(folder, self.record.step, processes.first)
        self.began, self.first_step, self.before = time.perf_counter(), self.record.step, self.record.seconds
        self.time_is_up = ""
        self.whole = True
        """Whether the weights are those after `record.step`, and all of that step is in the record."""

    def run(self) -> Trained:
        """Take the steps that are left, and give the model the result."""
        stopped = self.record.stopped
        if not stopped:
            if self.record.step == 0:
                self._validate()
            self._take_steps()
            stopped = self.record.stopped or self._end_by_time()
        self.learned.finish(self.best)
        record, device = self.record, self.processes.device
        return Trained(
            steps=record.step,
            chosen=record.chosen,
            stopped=stopped,
            finished=bool(self.record.stopped),
            distances=dict(record.distances),
            learned=self.learned.count,
            seconds=record.seconds,
            peak_memory=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
        )

    def _take_steps(self) -> None:
        settings = self.settings
        left = range(self.record.step, settings.steps)
        photos = stream(
            self.lessons,
            self.step.slots,
            left,
            seed=self.seed,
            loaders=settings.loaders,
            max_pixels=self.max_pixels,
        )
        with closing(photos), self._saved_at_interrupt():
            for step in left:
                self._advance(step, photos)
                if self.record.stopped or self.time_is_up:
                    return

    @contextmanager
    def _saved_at_interrupt(self) -> Iterator[None]:
        """Save the last step at Ctrl-C, except while the weights change or are validated."""
        try:
            yield
        except KeyboardInterrupt:
            if self.whole and self.record.step:
                self._save()
            raise

    def _advance(self, step: int, photos: Iterator[LoadedPhoto]) -> None:
        """Take a step, and validate where it is time for it."""
        record, settings = self.record, self.settings
        rate = settings.learning_rate * rate_factor(step, settings.warm_up, settings.steps)
        taken = self.step.gradient(step, photos)
        self.whole = False
        self.step.change(rate)
        self.average.update()
        shares = self.processes.gathered((taken.losses, self.deadline()))
        # The clocks of the processes may differ: that of the first counts.
        self.time_is_up = shares[0][1]
        losses = mean_losses(self.lessons, self.step.all_slots, [share[0] for share in shares])
        total = sum(lesson.weight * losses[lesson.name][TOTAL] for lesson in self.lessons)
        record.step = step + 1
        record.seconds = self.before + time.perf_counter() - self.began
        self.log.add(step=record.step, loss=total, losses=losses, rate=rate, norm=taken.norm)
        last = record.step == settings.steps
        due = last or record.step % settings.validate_every == 0
        if due:
            self._validate()
            self._decide(last)
        self.whole = True
        if due or self.time_is_up:
            self._save()
        self._report(total)

    def _validate(self) -> None:
        """Measure the averaged weights on the held-out photos, and keep them if they are the best so far."""
        record = self.record
        if self.validation is None:
            record.chosen, self.best = record.step, _copied(self.average.values)
            return
        distance = self._distance(self.validation)
        best = record.distances.get(record.chosen, math.inf)
        record.distances[record.step] = distance
        record.stale += 1
        if distance < best:
            record.chosen, record.stale, self.best = record.step, 0, _copied(self.average.values)
        self.log.add(step=record.step, distance=distance)

    def _distance(self, validation: Validation) -> float:
        """Return the mean distance over the held-out photos; each process measures its share."""
        mine = self.processes.mine(list(enumerate(validation.photos)))
        found = {}
        with self.learned.replaced(self.average.values), torch.no_grad():
            for number, file in mine:
                photo = load(file, self.max_pixels).tensor(self.processes.device)
                # In float32, as the result is used.
                found[number] = validation.distance(self.model.decode(self._encoded(photo)), file)
        everywhere: dict[int, float] = {}
        for share in self.processes.gathered(found):
            everywhere |= share
        return sum(everywhere[number] for number in sorted(everywhere)) / len(everywhere)

    def _encoded(self, photo: Tensor) -> Features:
        return self.model.encode(self.model.prepare(photo))

    def _decide(self, last: bool) -> None:
        """End the training after the last step, or where validations have not improved for long."""
        record, patience = self.record, self.settings.patience
        if last:
            record.stopped = f"all {self.settings.steps} steps are done"
        elif self.validation is not None and record.stale >= patience:
            record.stopped = f"{patience} validations without improvement since step {record.chosen}"

    def _end_by_time(self) -> str:
        """Return why the time ended the training, after a validation of the last weights.

        The state is saved before it: where the training goes on, it does as if it had not ended.
        """
        if self.record.step not in self.record.distances:
            self._validate()
        return self.time_is_up

    def _save(self) -> None:
        if self.processes.first:
            weights = self.learned.values()
            groups = {"weights": weights, "average": self.average.values, "best": self.best}
            optimizer = optimizer_tensors(self.optimizer, self.learned.parameters)
            save_state(self.folder, self.record, {**groups, **optimizer})

    def _restore(self) -> None:
        """Continue from the state in the folder, if there is one."""
        stored = load_state(self.folder, self.record.identity, self.record.names)
        if stored is None:
            return
        self.record, groups = stored
        self.learned.set(groups["weights"])
        device = self.processes.device
        for group, kept in (("average", self.average.values), ("best", self.best)):
            kept.update({name: values.to(device) for name, values in groups[group].items()})
        set_optimizer(self.optimizer, self.learned.parameters, groups)

    def _report(self, loss: float | None) -> None:
        if not self.processes.first:
            return
        record = self.record
        taken, elapsed = record.step - self.first_step, time.perf_counter() - self.began
        left = elapsed / taken * (self.settings.steps - record.step) if taken else None
        if left is not None:
            left = max(0.0, min(left, self.deadline.left()))
        distance = next(reversed(record.distances.values()), None)
        self.on_report(TrainingReport(record.step, self.settings.steps, loss, distance, record.chosen, left))


def rate_factor(step: int, warm_up: int, steps: int) -> float:
    r"""Return the factor of the learning rate at a 0-based step.

    It rises as (step + 1) / warm_up, then falls as :math:`(1 + \cos(\pi t)) / 2` with t from 0 to 1, where
    it is 0 after the last step.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def _copied(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in values.items()}


def _identity(
    settings: Adapt, seed: int, lessons: Sequence[Lesson], held_out: Sequence[PhotoFile], device: torch.device
) -> dict[str, Any]:
    """Return what decides the numbers of a training, besides the model, the losses and the machine."""
    chosen = settings.model_dump(exclude={"loaders"})
    chosen["precision"] = chosen_precision(settings.precision, device)
    contents = {
        lesson.name: {
            "photos": [photo.sha256 for photo in lesson.photos],
            "per_step": lesson.per_step,
            "weight": lesson.weight,
        }
        for lesson in lessons
    }
    return {
        "adapt": chosen,
        "seed": seed,
        "lessons": contents,
        "held_out": [photo.sha256 for photo in held_out],
    }


def _meter(vram: str | None, device: torch.device) -> CudaMeter | None:
    """Return what limits the GPU memory; None without a limit. Raises ConfigError."""
    if vram is None:
        return None
    if device.type != "cuda":
        raise ConfigError(
            f"vram={vram} limits the memory of a CUDA GPU, and this training computes on {device.type}: take "
            f"it out; {CURES}"
        )
    try:
        return CudaMeter(device, memory(vram))
    except ValueError as error:
        raise ConfigError(f"vram={vram} {error}") from None


@contextmanager
def _advice(vram: str | None) -> Iterator[None]:
    """Say what to do where the memory of the device, or its limit, is exceeded. Raises ConfigError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RedepthError) or not is_out_of_memory(error):
            raise
        limit = f"more than vram={vram}" if vram else "more memory than there is"
        raise ConfigError(f"a step of the training needs {limit}: {CURES}") from error
