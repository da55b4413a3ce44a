"""Train a depth model on photos without labels: the loop. It knows no method, only losses of single photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redepth import io
from redepth.adaptation.lessons import Lesson, Validation
from redepth.adaptation.processes import Processes
from redepth.config.adaptation import Adapt
from redepth.contracts import DepthModel
from redepth.optim.limits import Deadline


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
    ``state.safetensors`` at each validation and at the end, and ``log.jsonl``, a line per step and per
    validation. Called again with the same arguments, a training that was ended at any moment continues; on a
    CPU its weights are those of one that was not ended, to the bit.

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
        InputError: a photo cannot be read any more.
    """
    raise NotImplementedError
