"""The settings that each part of `benchmarks.speed.gpu` runs with, and its rows."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import random_models
from benchmarks.speed.random_models import REAL, SMALL
from benchmarks.speed.records import Row, Timing, append, circumstances
from benchmarks.speed.report import PAPER
from benchmarks.speed.ways import Bench, Effort, Subject, console
from redepth.runtime.device import choose_device


@contextmanager
def alone(what: str = "timing") -> Iterator[None]:
    """Hold a lock, so that processes that share a GPU take turns."""
    with (Path(tempfile.gettempdir()) / f"redepth-benchmarks-{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Part:
    """The settings of a part.

    Attributes:
        rows: the file that rows are appended to.
        scratch: the folder that the parts share.
        tiny: whether all sizes are small.
        limit: seconds after which the part is stopped.
        ways: only ways whose name contains one of these words are timed; empty times all.
        started: the time from which the limit counts.
        failures: names of what failed; a part with failures ends with exit code 1.
    """

    rows: Path
    scratch: Path
    tiny: bool
    limit: float = 600.0
    ways: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)

    @cached_property
    def device(self) -> torch.device:
        """The GPU, or a CPU if sizes are small and there is no GPU."""
        return choose_device("auto" if self.tiny else "cuda")

    @property
    def effort(self) -> Effort:
        """The number of steps that a way is timed for."""
        # A graph is captured after three steps.
        return Effort(4, 2, 1) if self.tiny else Effort(8, 12, 1)

    @property
    def together(self) -> int:
        """Members of the paper's preset."""
        return 2 if self.tiny else 10

    @property
    def seconds(self) -> float:
        """Seconds for each single measurement."""
        return 0.0 if self.tiny else 0.3

    def add(self, row: Row) -> None:
        """Store a row and print it."""
        if self.tiny:
            row = row.model_copy(update={"extra": row.extra | {"tiny": True}})
        append(self.rows, row)
        error = row.extra.get("gradient_error")
        note = f", gradient off by {error:.1e}" if error is not None else ""
        console.print(f"{row.benchmark}, {row.case}, {row.implementation}: {row.median_ms:.4g} ms{note}")

    def row(self, benchmark: str, case: str, implementation: str, took: Timing, **extra: Any) -> Row:
        """Return a row of a measurement that is not a step and has no size."""
        return Row(
            benchmark=benchmark,
            case=case,
            implementation=implementation,
            **took._asdict(),
            **circumstances(self.device),
            shape=(1,),
            lights=1,
            dtype=extra.pop("dtype", "float32"),
            extra=extra,
        )

    def networks(self) -> Path:
        """Return the folder of networks with random weights; the first part that needs them writes them."""
        folder = self.scratch / "networks"
        with alone("networks"):
            if not (folder / "sd/scheduler").exists():
                random_models.write(folder, SMALL if self.tiny else REAL, self.device)
        return folder

    def bench(self, preset: str = PAPER) -> Bench:
        """Return the bench of a preset with these networks."""
        subject = Subject(preset, self.device, self.networks(), self.tiny)
        return Bench.of(subject, self.effort, self.seconds)
