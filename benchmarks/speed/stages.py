"""Where the time of a step goes: marks set around the real components while a `Refiner` runs.

A mark gives the time since the mark before it to a stage. On the CPU it is a reading of the clock, on a GPU
an event in the stream: the host is not waited for, and what the device waits for counts where it waits.
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
    """Return the stages of a step in their order; the rest is draws, objectives, checks, losses read."""
    into = "VAE" if isinstance(refiner.prior, LatentDiffusion) else "windows"
    back = (f"{into} backward", "shading backward", "decoder backward")
    return ("decoder", "shading", f"{into} forward", "UNet", *back, "optimizer", REST)


class Marks:
    """A sequence of moments, each with the name of what ends there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moments: list[tuple[str, Any]] = []

    def set(self, name: str) -> None:
        """Give the time since the last mark to ``name``."""
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
        found: list[dict[str, float]] = [{}]
        for (_, before), (name, now) in pairwise(self._moments):
            stage = REST if name == STEP else name
            took = before.elapsed_time(now) if self.device.type == "cuda" else (now - before) * 1e3
            found[-1][stage] = found[-1].get(stage, 0.0) + took
            if name == STEP:
                found.append({})
        return found[:-1]


@contextmanager
def whole(refiner: Refiner) -> Iterator[Marks]:
    """Mark where each step begins, and nothing inside it."""
    marks = Marks(refiner.device)
    make = refiner.stepper
    with patch.object(refiner, "stepper", lambda advance: _Stepper(make(advance), marks)):
        yield marks


class _Stepper:
    """Takes steps as another does, and marks where each begins; a replay calls nothing that is patched."""

    def __init__(self, own: Any, marks: Marks) -> None:
        self._own, self._marks = own, marks

    def __call__(self, draws: StepDraws) -> Any:
        self._marks.set(STEP)
        return self._own(draws)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


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
        # `Tensor.backward` looks it up here.
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
    def done(*given: Any, **more: Any) -> Any:
        before()
        result = call(*given, **more)
        after()
        return result

    return done
