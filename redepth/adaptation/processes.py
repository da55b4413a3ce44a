"""The processes of one training, as torchrun starts them; accelerate connects them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn
from typing_extensions import Self

from redepth.errors import ConfigError
from redepth.registry import require
from redepth.runtime.device import choose_device

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=30)
"""How long a process waits for the others. torchrun ends it at once if one of them fails."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a training.

    Attributes:
        device: where this process computes.
        rank: 0-based; process 0 writes the files.
        world: number of processes.
        accelerator: of accelerate; None for a process that is alone.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    accelerator: Any = None

    @classmethod
    def start(cls, device: str = "auto") -> Self:
        """Connect to the other processes if torchrun started this one, and choose the device.

        With several processes ``cuda`` is the GPU of the local rank. On a CPU the backend is gloo.

        Raises:
            ConfigError: the device is not available, or is one GPU by its number.
            MissingDependencyError: there are several processes, and accelerate is not installed.
        """
        chosen = choose_device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls(chosen)
        if ":" in device:
            raise ConfigError(f"device {device}: each process of torchrun has a GPU of its own: say cuda")
        accelerate = require("accelerate", "adapt")
        # Some weights get no gradient, and which ones may depend on the photo.
        unused = accelerate.DistributedDataParallelKwargs(
            find_unused_parameters=True, broadcast_buffers=False
        )
        # A process waits while others refine photos, or the first one writes the result.
        patience = accelerate.InitProcessGroupKwargs(timeout=LONGEST_WAIT)
        accelerator = accelerate.Accelerator(cpu=chosen.type == "cpu", kwargs_handlers=[unused, patience])
        rank, world = accelerator.process_index, accelerator.num_processes
        return cls(accelerator.device, rank, world, accelerator)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """Return this process's share of some items, in order: every ``world``-th."""
        return list(items[self.rank :: self.world])

    def wait(self) -> None:
        """Wait until all processes are here, such as until the first has written a file."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def gathered(self, values: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.accelerator is None:
            return [values]
        found: list[T] = require("accelerate.utils", "adapt").gather_object([values])
        return found

    def wrapped(self, module: nn.Module) -> Any:
        """Return a module whose gradients are averaged over the processes (DistributedDataParallel)."""
        return module if self.accelerator is None else self.accelerator.prepare(module)

    def averaging(self, module: Any, now: bool) -> AbstractContextManager[Any]:
        """Return a context for a forward and backward pass of a wrapped module.

        Args:
            module: of `wrapped`.
            now: whether this is the step's last pass, in which the gradients are averaged.
        """
        return nullcontext() if self.accelerator is None or now else self.accelerator.no_sync(module)

    def close(self) -> None:
        """Disconnect from the other processes."""
        if self.accelerator is not None:
            self.accelerator.end_training()
