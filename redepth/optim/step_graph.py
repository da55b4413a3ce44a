"""A whole step of a group of members as one CUDA graph.

A step of diffusion networks is thousands of small kernels, and a host needs longer to launch them one by one
than a fast GPU needs to compute them. Captured once, a step is one launch: forward, backward and update.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from redepth.contracts import StepDraws
from redepth.runtime.device import captured, is_out_of_memory

log = logging.getLogger(__name__)

EAGER_STEPS = 3
"""Steps before the capture: they make constants, choose algorithms, compile, and fill optimizer states."""


class Taken(NamedTuple):
    """What one step gives, detached.

    Attributes:
        losses: name -> (members,).
        raw: (members,1,H,W) raw outputs that the step started from.
        depth: the relative depth of them.
        offset: (members,1,1,1) scale offsets that it started from.
        relit: (members,L,3,H,W) re-lit pictures.
    """

    losses: dict[str, Tensor]
    raw: Tensor
    depth: Tensor
    offset: Tensor
    relit: Tensor

    def clone(self) -> Taken:
        """Return a copy in memory of its own."""
        losses = {name: values.clone() for name, values in self.losses.items()}
        return Taken(losses, *(values.clone() for values in self[1:]))


Advance = Callable[[StepDraws], Taken]


class StepGraph:
    """Takes steps eagerly at first, then by replaying a graph of one; what cannot be captured stays eager.

    Draws are copied to where the graph reads them. What it writes is copied out, as the next step writes
    there again. All steps have to be taken inside `stream`.

    Args:
        advance: takes a step: launches the same kernels each time and looks at no value on the device.
        device: the GPU.
    """

    def __init__(self, advance: Advance, device: torch.device) -> None:
        self._advance = advance
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._given: StepDraws | None = None
        self._taken: Taken | None = None
        self._replay: Callable[[], None] | None = None
        self._eager_steps = 0
        self.possible = True
        """Whether a step can be captured, as far as is known."""

    def __call__(self, draws: StepDraws) -> Taken:
        """Take a step.

        Raises:
            RuntimeError: if memory runs out, also in the capture.
        """
        if self._replay is None and not self._captured(draws):
            self._eager_steps += 1
            return self._advance(draws)
        assert self._given is not None
        assert self._taken is not None
        assert self._replay is not None
        given, drawn = _tensors(self._given), _tensors(draws)
        if {name: t.shape for name, t in given.items()} != {name: t.shape for name, t in drawn.items()}:
            # Draws of another kind, as a replayed record may have, are none that the graph can read.
            return self._advance(draws)
        for name, own in given.items():
            own.copy_(drawn[name])
        self._replay()
        return self._taken.clone()

    def forget(self) -> None:
        """Drop the graph: what it launches has changed. The next one comes after eager steps again."""
        self._given = self._taken = self._replay = None
        self._eager_steps = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Work in the stream of the graph, which cannot be the default one; others wait for it at the end."""
        if self._stream is None:
            yield
            return
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outside.wait_stream(self._stream)

    def capture(self, call: Callable[[], Taken]) -> tuple[Taken, Callable[[], None]]:
        """Return the tensors that a graph of the call writes, and what runs it; nothing is computed yet."""
        return captured(call)

    def _captured(self, draws: StepDraws) -> bool:
        """Capture a step if it is time, and possible; return whether there is a graph."""
        # Draws that stay on the CPU are read as numbers: each step launches something else.
        if not self.possible or draws.noise.on_cpu or self._eager_steps < EAGER_STEPS:
            return False
        given = StepDraws(draws.illumination.clone(), draws.noise.clone())
        gc.collect()
        try:
            self._taken, self._replay = self.capture(lambda: self._advance(given))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.possible = False
            log.warning("a step cannot become a CUDA graph, and stays eager: %s", str(error).splitlines()[0])
            return False
        self._given = given
        return True


class Eager:
    """Takes every step as it is."""

    possible = True

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def __call__(self, draws: StepDraws) -> Taken:
        """Take a step."""
        return self._advance(draws)

    def forget(self) -> None:
        """Nothing is kept."""

    def stream(self) -> nullcontext[None]:
        """Work where the caller does."""
        return nullcontext()


def _tensors(draws: StepDraws) -> dict[tuple[str, str], Tensor]:
    records = {"illumination": draws.illumination, "noise": draws.noise}
    return {(kind, name): t for kind, record in records.items() for name, t in record.tensors.items()}
