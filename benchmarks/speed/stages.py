"""The time of each stage of a step, measured by marks around the real components while a `Refiner` runs.

A mark assigns the time since the previous mark to a stage. On the CPU a mark reads the clock. On a GPU it is
an event in the stream: marks do not synchronise with the host, and idle time of the device counts for the
stage in which it occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from redepth.contracts import Noise, StepDraws
from redepth.optim.parameterizations import Parameterization
from redepth.optim.refiner import Refiner
from redepth.priors.latent import LatentDiffusion

STEP, REST = "step", "rest"


def names(refiner: Refiner) -> tuple[str, ...]:
    """Return the stages of a step in order; the rest is draws, objectives, checks and reading losses."""
    into = "VAE" if isinstance(refiner.prior, LatentDiffusion) else "windows"
    back = (f"{into} backward", "shading backward", "decoder backward")
    return ("decoder", "shading", f"{into} forward", "UNet", *back, "optimizer", REST)


class Marks:
    """A sequence of moments, each with the name of the stage that ends there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moments: list[tuple[str, Any]] = []

    def set(self, name: str) -> None:
        """Assign the time since the last mark to the stage ``name``."""
        if self.device.type == "cuda":
            moment: Any = torch.cuda.Event(enable_timing=True)
            moment.record(torch.cuda.current_stream(self.device))
        else:
            moment = perf_counter()
        self._moments.append((name, moment))

    def steps(self) -> list[dict[str, float]]:
        """Return the milliseconds of each stage of every finished step; a step ends where the next begins."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        steps: list[dict[str, float]] = [{}]
        for (_, before), (name, now) in pairwise(self._moments):
            stage = REST if name == STEP else name
            took = before.elapsed_time(now) if self.device.type == "cuda" else (now - before) * 1e3
            steps[-1][stage] = steps[-1].get(stage, 0.0) + took
            if name == STEP:
                steps.append({})
        return steps[:-1]


@contextmanager
def whole(refiner: Refiner) -> Iterator[Marks]:
    """Mark the beginning of each step, and nothing inside it."""
    marks = Marks(refiner.device)
    make = refiner.stepper
    with patch.object(refiner, "stepper", lambda advance: _Stepper(make(advance), marks)):
        yield marks


class _Stepper:
    """Wraps a stepper and marks the beginning of each step. Replays of a graph call no patched function."""

    def __init__(self, stepper: Any, marks: Marks) -> None:
        self._stepper, self._marks = stepper, marks

    def __call__(self, draws: StepDraws) -> Any:
        self._marks.set(STEP)
        return self._stepper(draws)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stepper, name)


@contextmanager
def split(refiner: Refiner) -> Iterator[Marks]:
    """Mark every stage of a step of a diffusion prior."""
    marks = Marks(refiner.device)
    decoder, shading, forward, unet, backward, shading_back, decoder_back, optimizer, rest = (
        partial(marks.set, name) for name in names(refiner)
    )
    prior: Any = refiner.prior
    relative_depth, to_model_space = refiner.relative_depth, prior.to_model_space
    make_optimizer = refiner.make_optimizer

    def depth_of(raw: Tensor, offset: Tensor | float) -> Tensor:
        if raw.requires_grad:
            decoder()
            raw.register_hook(lambda _: shading_back())
        return relative_depth(raw, offset)

    def into_model_space(relit: Tensor, noise: Noise) -> Tensor:
        if not relit.requires_grad:
            return to_model_space(relit, noise)
        shading()
        relit.register_hook(lambda _: backward())
        x = to_model_space(relit, noise)
        x.register_hook(lambda _: rest())
        forward()
        return x

    def optimizer_of(state: Parameterization) -> torch.optim.Optimizer:
        made = make_optimizer(state)
        made.register_step_pre_hook(lambda *_: rest())
        made.register_step_post_hook(lambda *_: optimizer())
        return made

    changes: tuple[tuple[Any, str, Any], ...] = (
        (refiner, "step", _marked(refiner.step, before=partial(marks.set, STEP), after=rest)),
        (refiner, "relative_depth", depth_of),
        (refiner, "make_optimizer", optimizer_of),
        (prior, "to_model_space", into_model_space),
        (prior, "predict", _marked(prior.predict, before=rest, after=unet)),
        # `Tensor.backward` calls this function.
        (torch.autograd, "backward", _marked(torch.autograd.backward, after=decoder_back)),
    )
    with ExitStack() as stack:
        for owner, name, new in changes:
            stack.enter_context(patch.object(owner, name, new))
        yield marks


def _marked(
    call: Callable[..., Any],
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> Callable[..., Any]:
    """Return a function that calls ``before``, the original call, and ``after``."""

    def marked(*arguments: Any, **options: Any) -> Any:
        before()
        result = call(*arguments, **options)
        after()
        return result

    return marked
