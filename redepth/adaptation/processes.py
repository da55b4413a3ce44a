"""The processes of one training, as torchrun starts them; accelerate connects them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import Self


@dataclass(frozen=True)
class Processes:
    """This process among those of a training.

    Attributes:
        device: where this process computes.
        rank: 0-based; process 0 writes the files.
        world: number of processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def start(cls, device: str = "auto") -> Self:
        """Connect to the other processes if torchrun started this one, and choose the device.

        With several processes ``cuda`` is the GPU of the local rank. On a CPU the backend is gloo.

        Raises:
            ConfigError: the device is not available.
            MissingDependencyError: there are several processes, and accelerate is not installed.
        """
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until all processes are here, such as until the first has written a file."""
        raise NotImplementedError
