"""Batches drawn ahead of the steps that need them, in processes if there are cores for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

SEEDS = 2**32


@dataclass(frozen=True)
class _Steps(Dataset[T], Generic[T]):
    """The batches of the steps from ``first`` to ``end``; each depends on its seed and number alone."""

    draw: Callable[[int, Generator], T]
    seed: int
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> T:
        step = self.first + index
        return self.draw(step, Generator().manual_seed(self.seed * SEEDS + step))


def drawn_ahead(
    draw: Callable[[int, Generator], T], seed: int, first: int, end: int, workers: int = 0
) -> Iterator[T]:
    """Return the batches of the steps ``first`` to ``end``, the same for every number of processes.

    Args:
        draw: returns the batch of a step, from a generator of the CPU.
        seed: of the training.
        first: the number of the first step.
        end: the number after the last one.
        workers: processes that draw; with 0 a batch is drawn when it is needed.
    """
    loader = DataLoader(
        _Steps(draw, seed, first, end),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        collate_fn=_as_it_is,
    )
    return iter(loader)


def _one_thread(worker: int) -> None:
    """Leave the other cores to the other processes."""
    torch.set_num_threads(1)


def _as_it_is(batch: T) -> T:
    return batch
