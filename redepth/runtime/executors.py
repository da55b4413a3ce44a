"""Run one function over many inputs: here, in several processes, or on a Ray cluster, with the same results.

A worker is made once per process by ``make`` (it loads the models) and then called with one input after the
other. An input that fails is an outcome like any other; an input whose process dies is tried again.
"""

from __future__ import annotations

import math
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from redepth.errors import ConfigError, RedepthError
from redepth.registry import require

T = TypeVar("T")
R = TypeVar("R")
Worker = Callable[[T], R]
Make = Callable[[], Worker[T, R]]
"""Makes a worker. It crosses to other processes: a module-level function, or a `functools.partial` of one."""

DEATHS = 2
"""How often an input that may have killed its process is tried again."""


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """What became of one input: a result, or why there is none."""

    index: int
    given: T
    result: R | None = None
    error: str = ""


class Resources(BaseModel):
    """Where work runs.

    Attributes:
        workers: processes; 1 runs in this one.
        ray: address of a Ray cluster, ``auto`` for the one that this machine belongs to, ``local`` to start
            one here; none: no Ray.
        threads: torch's CPU threads for each worker; none: an equal share.
        gpus: GPUs that processes are spread over: worker i computes on GPU i modulo their number, counted as
            torch does, after ``CUDA_VISIBLE_DEVICES``. Ray spreads its workers over the cluster's GPUs
            where this is above 0. 0: workers compute on the device that they are told.
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

    @abstractmethod
    def run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield the outcome of every input, in the order in which they end.

        Raises:
            RedepthError: if no worker can be made.
        """


def executor(resources: Resources) -> Executor:
    """Return the executor for these resources."""
    kinds: dict[str, type[Executor]] = {"inline": Inline, "processes": Processes, "ray": Ray}
    return kinds[resources.kind](resources)


class Inline(Executor):
    """In this process, one after the other."""

    def run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes in the order of the inputs."""
        if not inputs:
            return
        _use_threads(self.resources.threads)
        worker = make()
        for index, given in enumerate(inputs):
            yield _attempt(worker, index, given)


class Processes(Executor):
    """In several fresh processes of this machine, each with its share of the threads or its own GPU."""

    def run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes as they end; a pool that a death has broken is made anew for what is left."""
        left = deque(enumerate(inputs))
        while left:
            suspects = yield from self._one_pool(make, left, self.resources.workers)
            for index, given in suspects:
                yield from self._alone(make, index, given)

    def _alone(self, make: Make[T, R], index: int, given: T) -> Iterator[Done[T, R]]:
        """Try an input during which some process died, with no other beside it that could be to blame."""
        for _ in range(DEATHS):
            if not (yield from self._one_pool(make, deque([(index, given)]), 1)):
                return
        yield Done(index, given, error="its process died (out of memory, or killed)")

    def _one_pool(self, make: Make[T, R], left: deque[tuple[int, T]], workers: int) -> Any:
        """Work until nothing is left or the pool breaks; return what was running then."""
        resources = self.resources
        context = get_context("spawn")
        slots = context.Queue()
        for slot in range(workers):
            slots.put(slot)
        running: dict[Future[Any], tuple[int, T]] = {}
        with ProcessPoolExecutor(
            min(workers, len(left)),
            mp_context=context,
            initializer=_start,
            initargs=(make, slots, resources.threads_each, resources.gpus),
        ) as pool:
            while left or running:
                try:
                    while left and len(running) < workers:
                        index, given = left.popleft()
                        running[pool.submit(_work, index, given)] = (index, given)
                except BrokenProcessPool:
                    return [(index, given), *running.values()]
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
                    return list(running.values())
                for future in finished:
                    del running[future]
                    yield future.result()
        return []


class Ray(Executor):
    """On a Ray cluster: one actor a worker, with its resources requested; Ray starts a dead one again."""

    def run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes as they end."""
        if not inputs:
            return
        ray = require("ray", "ray")
        started = self._connect(ray)
        try:
            yield from self._dispatch(ray, make, inputs)
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> bool:
        if ray.is_initialized():
            return False
        address = None if self.resources.ray == "local" else self.resources.ray
        try:
            # Workers are told this process's import path: a clone need not be installed.
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster at '{self.resources.ray}': {str(error).splitlines()[0]}; start one with "
                "'ray start --head', or give --ray local"
            ) from error
        return True

    def _dispatch(self, ray: Any, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        threads, workers = self.resources.threads_each, min(self.resources.workers, len(inputs))
        actor = ray.remote(
            num_cpus=threads,
            num_gpus=_share(ray.cluster_resources().get("GPU", 0), workers) if self.resources.gpus else 0,
            max_restarts=DEATHS,
            max_task_retries=DEATHS,
        )(_RayWorker)
        idle = deque(actor.remote(make, threads) for _ in range(workers))
        left = deque(enumerate(inputs))
        running: dict[Any, tuple[Any, int, T]] = {}
        while left or running:
            while left and idle:
                index, given = left.popleft()
                hand = idle.popleft()
                running[hand.work.remote(index, given)] = (hand, index, given)
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            hand, index, given = running.pop(ready)
            idle.append(hand)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                # Only making a worker may raise in it: then no other will fare better.
                raise RedepthError(f"a Ray worker cannot start: {error.cause}") from error
            except ray.exceptions.RayError as error:
                yield Done(index, given, error=f"its Ray worker died: {str(error).splitlines()[0]}")


def _share(gpus: float, workers: int) -> float:
    """Return how much of a GPU each worker gets, so that all of them find a place: at most a whole one."""
    if gpus < 1:
        raise ConfigError("the Ray cluster has no GPU: start its nodes with GPUs, or give --device cpu")
    return 1 / math.ceil(workers / int(gpus))


@dataclass
class _RayWorker:
    make: Any
    threads: int
    _worker: Any = field(default=None)

    def work(self, index: int, given: Any) -> Any:
        if self._worker is None:
            _use_threads(self.threads)
            self._worker = self.make()
        return _attempt(self._worker, index, given)


_WORKER: list[Any] = []
"""The worker of a process of `Processes`."""


def _start(make: Make[Any, Any], slots: Any, threads: int, gpus: int) -> None:
    if gpus:
        import torch

        # What computes on "cuda" computes on the current GPU. CUDA_VISIBLE_DEVICES would come too late: what
        # was imported to get here may have asked for the GPUs already. It may also be the user's own.
        torch.cuda.set_device(slots.get() % gpus)
    _use_threads(threads)
    _WORKER.append(make)


def _work(index: int, given: Any) -> Done[Any, Any]:
    if len(_WORKER) == 1:
        _WORKER.append(_WORKER[0]())
    return _attempt(_WORKER[1], index, given)


def _attempt(worker: Worker[T, R], index: int, given: T) -> Done[T, R]:
    try:
        return Done(index, given, result=worker(given))
    except Exception as error:  # whatever goes wrong with one input, the others run
        text = " ".join(str(error).split()) or type(error).__name__
        return Done(index, given, error=text if isinstance(error, RedepthError) else _named(error, text))


def _named(error: Exception, text: str) -> str:
    return f"{type(error).__name__}: {text}"


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = str(threads)
