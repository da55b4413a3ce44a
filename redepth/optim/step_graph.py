"""A whole step of a group of members as one CUDA graph.

A step of diffusion networks is thousands of small kernels. Launching them one by one takes the host longer
than a fast GPU needs to compute them. A captured step is a single launch: forward, backward and update.
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
"""Steps before the capture, which make constants, choose algorithms, compile and fill optimizer states."""


class Taken(NamedTuple):
    """The tensors of one step, detached.

    Attributes:
        losses: name -> (members,).
        raw: (members,1,H,W) raw outputs at the start of the step.
        depth: their relative depth.
        offset: (members,1,1,1) scale offsets at the start of the step.
        relit: (members,L,3,H,W) re-lit pictures.
    """

    losses: dict[str, Tensor]
    raw: Tensor
    depth: Tensor
    offset: Tensor
    relit: Tensor

    def clone(self) -> Taken:
        """Return a copy that shares no memory."""
        losses = {name: values.clone() for name, values in self.losses.items()}
        return Taken(losses, *(values.clone() for values in self[1:]))


Advance = Callable[[StepDraws], Taken]


class StepGraph:
    """Takes the first steps eagerly, then replays a graph; steps that cannot be captured stay eager.

    The graph has fixed input and output tensors: draws are copied into the inputs, and the outputs are
    copied, because the next step overwrites them. All steps have to be taken inside `stream`.

    Args:
        advance: takes a step: launches the same kernels each time and reads no value from the device.
        device: the GPU.
    """

    def __init__(self, advance: Advance, device: torch.device) -> None:
        self._advance = advance
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._inputs: StepDraws | None = None
        self._outputs: Taken | None = None
        self._replay: Callable[[], None] | None = None
        self._eager_steps = 0
        self.possible = True
        """False after a capture has failed."""

    def __call__(self, draws: StepDraws) -> Taken:
        """Take a step.

        Raises:
            RuntimeError: if memory runs out, also in the capture.
        """
        if self._replay is None and not self._captured(draws):
            self._eager_steps += 1
            return self._advance(draws)
        assert self._inputs is not None
        assert self._outputs is not None
        assert self._replay is not None
        inputs, drawn = _tensors(self._inputs), _tensors(draws)
        if {name: t.shape for name, t in inputs.items()} != {name: t.shape for name, t in drawn.items()}:
            # A replayed record may hold other tensors than those that the graph reads.
            return self._advance(draws)
        for name, tensor in inputs.items():
            tensor.copy_(drawn[name])
        self._replay()
        return self._outputs.clone()

    def forget(self) -> None:
        """Drop the graph, as the kernels of a step have changed; eager steps and a new capture follow."""
        self._inputs = self._outputs = self._replay = None
        self._eager_steps = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Make the graph's stream the current one; a capture needs another stream than the default."""
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
        """Capture the call; return its output tensors and a function that replays it. Computes nothing."""
        return captured(call)

    def _captured(self, draws: StepDraws) -> bool:
        """Capture a step after enough eager steps, if possible; return whether there is a graph."""
        # Draws that stay on the CPU are read as numbers, so each step launches other kernels.
        if not self.possible or draws.noise.on_cpu or self._eager_steps < EAGER_STEPS:
            return False
        inputs = StepDraws(draws.illumination.clone(), draws.noise.clone())
        gc.collect()
        try:
            self._outputs, self._replay = self.capture(lambda: self._advance(inputs))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.possible = False
            log.warning("a step cannot become a CUDA graph and stays eager: %s", str(error).splitlines()[0])
            return False
        self._inputs = inputs
        return True


class Eager:
    """Takes every step eagerly."""

    possible = True

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def __call__(self, draws: StepDraws) -> Taken:
        """Take a step."""
        return self._advance(draws)

    def forget(self) -> None:
        """Do nothing: no graph is kept."""

    def stream(self) -> nullcontext[None]:
        """Keep the current stream."""
        return nullcontext()


def _tensors(draws: StepDraws) -> dict[tuple[str, str], Tensor]:
    records = {"illumination": draws.illumination, "noise": draws.noise}
    return {(kind, name): t for kind, record in records.items() for name, t in record.tensors.items()}
