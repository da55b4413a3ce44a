"""What every executor shares: the outcome of an input, where work runs, and the contract of an executor."""

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from redepth.errors import one_line
from redepth.runtime.signals import Interruptions, counted, received

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H", bound=Hashable)
Worker = Callable[[T], R]
Make = Callable[[], Worker[T, R]]
"""Makes a worker. Unless it stays in this process it is pickled: a module-level function, or a
`functools.partial` of one."""

DEATHS = 2
"""An input whose worker dies is tried again with another one; after this many deaths it is given up."""

KILLED = f"killed its worker {('', 'once', 'twice')[DEATHS]} (out of memory, or ended from outside)"
INTERRUPTED = "interrupted before it had a result; no part of it is kept"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """The outcome of one input: a result, or the reason why there is none.

    Attributes:
        index: position of the input.
        item: the input.
        result: what the worker returned; None if it failed.
        error: why it failed, in one line.
        interrupted: whether Ctrl-C ended it without a result.
    """

    index: int
    item: T
    result: R | None = None
    error: str = ""
    interrupted: bool = False


class Resources(BaseModel):
    """Where work runs.

    Attributes:
        workers: processes; 1 runs in this one.
        ray: address of a Ray cluster, ``auto`` for the one that this machine belongs to, ``local`` to start
            one here; None: no Ray.
        threads: torch's CPU threads for each worker; None: an equal share.
        gpus: GPUs that processes are spread over: worker i computes on GPU i modulo their number, counted as
            torch does, after ``CUDA_VISIBLE_DEVICES``. Ray spreads its workers over the cluster's GPUs
            where this is above 0. 0: every worker computes on the device that its input names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    ray: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0

    @property
    def kind(self) -> Literal["inline", "processes", "ray"]:
        """Which executor this is."""
        if self.ray is not None:
            return "ray"
        return "processes" if self.workers > 1 else "inline"

    @property
    def threads_each(self) -> int:
        """Return the CPU threads of one worker."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)


class Executor(ABC):
    """Runs inputs through workers and yields each outcome as it ends."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._stopped = False
        self._interrupted = False

    def stop(self) -> None:
        """Start no further input. Those that run now still end."""
        self._stopped = True

    def run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield the outcome of every input, in the order in which they end.

        After Ctrl-C no further input is started. The outcomes of those that were running are yielded, then
        KeyboardInterrupt is raised.

        Raises:
            RedepthError: if no worker can be made.
            KeyboardInterrupt: after Ctrl-C.
        """
        if not inputs:
            return
        for done in self._run(make, inputs):
            if done.interrupted:
                self._interrupted = True
                self.stop()
            yield done
        if self._interrupted:
            raise KeyboardInterrupt

    @abstractmethod
    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes as they end, and start no further input once `stop` was called."""


class Crew(Executor, Generic[H]):
    """Hands inputs out to workers elsewhere. A worker that dies takes no other input with it.

    The input that it had in hand is tried once more, at the end and alone; the others are not affected.
    """

    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        self._connect()
        try:
            with counted() as interruptions:
                yield from self._hand_out(make, inputs, interruptions)
        finally:
            self._close()

    def _hand_out(
        self, make: Make[T, R], inputs: Sequence[T], interruptions: Interruptions
    ) -> Iterator[Done[T, R]]:
        left = deque(enumerate(inputs))
        # Tried again at the end and alone: several at a time may have been too many for the memory.
        again: deque[tuple[int, T]] = deque()
        idle: list[H] = []
        running: dict[H, tuple[int, T]] = {}
        deaths: Counter[int] = Counter()
        told = False
        while running or ((left or again) and not self._stopped):
            while not self._stopped and len(running) < (self.resources.workers if left else 1):
                if not (left or again):
                    break
                worker = idle.pop() if idle else self._start(make)
                index, item = (left or again).popleft()
                self._give(worker, index, item)
                running[worker] = (index, item)
            ended = self._wait(list(running))
            if interruptions.count and not told:
                told = self._interrupted = True
                self.stop()
                self._interrupt(list(running))
            for worker, done in ended:
                index, item = running.pop(worker)
                if done is not None:
                    idle.append(worker)
                    yield replace(done, item=item)
                    continue
                deaths[index] += 1
                if self._stopped:
                    yield Done(index, item, error=INTERRUPTED, interrupted=True)
                elif deaths[index] < DEATHS:
                    again.append((index, item))
                else:
                    yield Done(index, item, error=KILLED)

    @abstractmethod
    def _connect(self) -> None:
        """Prepare for workers."""

    @abstractmethod
    def _close(self) -> None:
        """End all workers."""

    @abstractmethod
    def _start(self, make: Make[T, R]) -> H:
        """Return a new worker."""

    @abstractmethod
    def _give(self, worker: H, index: int, item: Any) -> None:
        """Hand an input to an idle worker. A dead one is found by `_wait`."""

    @abstractmethod
    def _wait(self, workers: Sequence[H]) -> list[tuple[H, Done[Any, Any] | None]]:
        """Return the workers that have ended their input, with its outcome, or None for a dead one.

        It returns after at most a second, so that interruptions are noticed.
        """

    @abstractmethod
    def _interrupt(self, workers: Sequence[H]) -> None:
        """Ask the workers to end the input that they have in hand."""


def attempt(worker: Worker[T, R], index: int, item: T) -> Done[T, R]:
    """Call a worker; whatever it raises becomes the outcome of this input."""
    signals_before = received()
    try:
        return Done(index, item, result=worker(item))
    except KeyboardInterrupt:
        return Done(index, item, error=INTERRUPTED, interrupted=True)
    except Exception as error:  # an error of one input must not stop the others
        if received() > signals_before:
            # A library that loads weights makes an error of its own of a KeyboardInterrupt.
            return Done(index, item, error=INTERRUPTED, interrupted=True)
        log.debug("input %d failed", index, exc_info=True)
        return Done(index, item, error=one_line(error))


def use_threads(threads: int | None) -> None:
    """Set the CPU threads of torch, also of one that is imported later; None leaves them."""
    if threads is None:
        return
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = str(threads)
