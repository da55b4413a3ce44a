"""Limits of one run: its time, and the memory of its GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from redepth.config import Optim
from redepth.config.units import seconds
from redepth.errors import ConfigError
from redepth.runtime.device import indexed

Clock = Callable[[], float]
"""Returns the present time in seconds."""


@dataclass(frozen=True)
class Deadline:
    """A time limit, which starts when the object is made with `start`.

    Attributes:
        budget: the limit, such as ``60s``; None for no limit.
        clock: reads the time.
        began: the clock at the start.
    """

    budget: str | None
    clock: Clock
    began: float

    @classmethod
    def start(cls, budget: str | None, clock: Clock = time.perf_counter) -> Deadline:
        """Start the time limit now."""
        return cls(budget, clock, clock())

    @property
    def seconds(self) -> float:
        """The whole time; infinite without a limit."""
        return float("inf") if self.budget is None else seconds(self.budget)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self.began

    def left(self) -> float:
        """Return the seconds until the end; negative after it."""
        return self.began + self.seconds - self.clock()

    def __call__(self) -> str:
        """Return why a run has to end now, or an empty string: the ``watch`` of `Refiner.run`."""
        return f"the time of {self.budget} has ended" if self.elapsed() >= self.seconds else ""


class Meter(Protocol):
    """Measures and limits the memory of a device."""

    def limited(self) -> AbstractContextManager[None]:
        """Limit the memory inside the context: an allocation beyond the limit is out of memory."""
        ...

    def reset(self) -> None:
        """Reset the peak."""
        ...

    def peak(self) -> int:
        """Return the most bytes in use since the last reset."""
        ...


@dataclass(frozen=True)
class CudaMeter:
    """Measures and limits what torch allocates on a CUDA device; the CUDA context, some hundred MB, is extra.

    Args:
        device: the GPU.
        limit: in bytes.
    """

    device: torch.device
    limit: int

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit torch's allocator, and lift the limit afterwards."""
        # set_per_process_memory_fraction needs a device with an index.
        device = indexed(self.device)
        whole = torch.cuda.get_device_properties(device).total_memory
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, self.limit / whole), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)

    def reset(self) -> None:
        """Reset the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """Return the most bytes that torch reserved since the last reset: the limit applies to these."""
        return torch.cuda.max_memory_reserved(self.device)


def check_memory_limit(optim: Optim, device: torch.device) -> None:
    """Raise ConfigError if a memory limit is set and the device is not a CUDA GPU."""
    if optim.vram is not None and device.type != "cuda":
        raise ConfigError(
            f"optim.vram={optim.vram} limits the memory of a CUDA GPU, and this run computes on "
            f"{device.type}: take it out, or set optim.members_per_batch"
        )
