"""One function over many inputs: in this process, in several, or on a Ray cluster, with the same results.

``make`` builds a worker once per process (it loads the models). The worker is then called with one input
after the other. An input that fails is an outcome like any other. An input whose process dies is tried again.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from redepth.errors import ConfigError, RedepthError
from redepth.registry import require

T = TypeVar("T")
R = TypeVar("R")
Worker = Callable[[T], R]
Make = Callable[[], Worker[T, R]]
"""Makes a worker. Unless it stays in this process it is pickled: a module-level function, or a
`functools.partial` of one."""

DEATHS = 2
"""How often an input that may have killed its process is tried again."""

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


def executor(resources: Resources) -> Executor:
    """Return the executor for these resources."""
    kinds: dict[str, type[Executor]] = {"inline": Inline, "processes": Processes, "ray": Ray}
    return kinds[resources.kind](resources)


class Inline(Executor):
    """In this process, one after the other."""

    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes in the order of the inputs."""
        _use_threads(self.resources.threads)
        worker = make()
        for index, item in enumerate(inputs):
            if self._stopped:
                return
            yield _attempt(worker, index, item)


class Processes(Executor):
    """Runs in fresh processes of this machine, each with a share of the threads or one GPU."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._ctrl_c = False

    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes as they end. When a process dies, a new pool takes the inputs that are left."""
        left = deque(enumerate(inputs))
        while left and not self._stopped:
            suspects = yield from self._one_pool(make, left, self.resources.workers)
            for index, item in suspects:
                yield from self._alone(make, index, item)

    def _alone(self, make: Make[T, R], index: int, item: T) -> Iterator[Done[T, R]]:
        """Run an input alone in a pool: a process died while it ran, and it may not be the cause."""
        for _ in range(DEATHS):
            if self._stopped:
                yield Done(index, item, error=INTERRUPTED, interrupted=True)
                return
            if not (yield from self._one_pool(make, deque([(index, item)]), 1)):
                return
        yield Done(index, item, error="its process died (out of memory, or killed)")

    def _one_pool(self, make: Make[T, R], left: deque[tuple[int, T]], workers: int) -> Any:
        """Work until nothing is left or the pool breaks; return what was running then."""
        running: dict[Future[Any], tuple[int, T]] = {}
        with self._pool(make, min(workers, len(left))) as pool:
            while running or (left and not self._stopped):
                try:
                    while left and not self._stopped and len(running) < workers:
                        index, item = left.popleft()
                        running[pool.submit(_work, index, item)] = (index, item)
                except BrokenProcessPool:
                    return [(index, item), *running.values()]
                finished = self._wait(running)
                if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
                    return list(running.values())
                for future in finished:
                    _, item = running.pop(future)
                    yield replace(future.result(), item=item)
        return []

    def _pool(self, make: Make[T, R], size: int) -> ProcessPoolExecutor:
        resources = self.resources
        context = get_context("spawn")
        slots = context.Queue()
        for slot in range(size):
            slots.put(slot)
        return ProcessPoolExecutor(
            size,
            mp_context=context,
            initializer=_start,
            initargs=(make, slots, resources.threads_each, resources.gpus, _log_levels()),
        )

    def _wait(self, running: dict[Future[Any], tuple[int, T]]) -> set[Future[Any]]:
        """Return the futures that have ended; none after a first Ctrl-C, a second one is raised.

        A terminal sends Ctrl-C to the workers too. Each ends its input early, so there is little to wait for.
        """
        try:
            return wait(running, return_when=FIRST_COMPLETED).done
        except KeyboardInterrupt:
            if self._ctrl_c:
                raise
            self._ctrl_c = self._interrupted = True
            self.stop()
            return set()


class Ray(Executor):
    """On a Ray cluster: one actor per worker, with its resources requested. Ray restarts a dead one."""

    def _run(self, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        """Yield outcomes as they end."""
        ray = require("ray", "ray")
        started = self._connect(ray)
        try:
            yield from self._dispatch(ray, make, inputs)
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> bool:
        """Connect to the cluster, and return whether that was necessary."""
        if ray.is_initialized():
            return False
        address = None if self.resources.ray == "local" else self.resources.ray
        try:
            # Ray passes this process's import path to its workers: a clone need not be installed.
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster at '{self.resources.ray}': {str(error).splitlines()[0]}; start one with "
                "'ray start --head', or give --ray local"
            ) from error
        return True

    def _dispatch(self, ray: Any, make: Make[T, R], inputs: Sequence[T]) -> Iterator[Done[T, R]]:
        idle = deque(self._actors(ray, make, min(self.resources.workers, len(inputs))))
        left = deque(enumerate(inputs))
        running: dict[Any, tuple[Any, int, T]] = {}
        while running or (left and not self._stopped):
            while left and idle and not self._stopped:
                index, item = left.popleft()
                actor = idle.popleft()
                running[actor.work.remote(index, item)] = (actor, index, item)
            try:
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
            except KeyboardInterrupt:
                # Ray does not pass Ctrl-C on to its workers, and what they do may take hours.
                for actor, index, item in running.values():
                    ray.kill(actor)
                    yield Done(index, item, error=INTERRUPTED, interrupted=True)
                return
            actor, index, item = running.pop(ready)
            idle.append(actor)
            try:
                yield replace(ray.get(ready), item=item)
            except ray.exceptions.RayTaskError as error:
                # `work` catches what its worker raises: here no worker could be made, nor could another one.
                raise RedepthError(f"a Ray worker cannot start: {error.cause}") from error
            except ray.exceptions.RayError as error:
                yield Done(index, item, error=f"its Ray worker died: {str(error).splitlines()[0]}")

    def _actors(self, ray: Any, make: Make[T, R], workers: int) -> list[Any]:
        threads = self.resources.threads_each
        gpus = gpu_share(ray.cluster_resources().get("GPU", 0), workers) if self.resources.gpus else 0
        actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=DEATHS, max_task_retries=DEATHS)(
            _RayWorker
        )
        return [actor.remote(make, threads) for _ in range(workers)]


def gpu_share(gpus: float, workers: int) -> float:
    """Return the share of a GPU, at most 1, with which all workers find a place on a cluster.

    Raises:
        ConfigError: if the cluster has no GPU.
    """
    if gpus < 1:
        raise ConfigError("the Ray cluster has no GPU: start its nodes with GPUs, or give --device cpu")
    return 1 / math.ceil(workers / int(gpus))


@dataclass
class _RayWorker:
    make: Any
    threads: int
    _worker: Any = field(default=None)

    def work(self, index: int, item: Any) -> Any:
        if self._worker is None:
            _use_threads(self.threads)
            self._worker = self.make()
        return replace(_attempt(self._worker, index, item), item=None)


# --- in a process of `Processes` ------------------------------------------------------------------


@dataclass
class _Process:
    """The state of a worker process: its worker, made with the first input, and its handler of Ctrl-C."""

    make: Make[Any, Any]
    on_interrupt: Any
    worker: Worker[Any, Any] | None = None


_process: _Process | None = None


def _start(make: Make[Any, Any], slots: Any, threads: int, gpus: int, levels: dict[str, int] | None) -> None:
    global _process
    # Ctrl-C ends an input; a process that waits for one ignores it.
    _process = _Process(make, signal.signal(signal.SIGINT, signal.SIG_IGN))
    if levels is not None:
        _use_log_levels(levels)
    if gpus:
        import torch

        # What computes on "cuda" computes on the current GPU. It is too late for CUDA_VISIBLE_DEVICES: an
        # import may have made torch count the GPUs already, and the variable may be the user's own.
        torch.cuda.set_device(slots.get() % gpus)
    _use_threads(threads)


def _work(index: int, item: Any) -> Done[Any, Any]:
    process = _process
    assert process is not None
    try:
        signal.signal(signal.SIGINT, process.on_interrupt)
        if process.worker is None:
            process.worker = process.make()
        done = _attempt(process.worker, index, item)
    except KeyboardInterrupt:
        done = Done(index, item, error=INTERRUPTED, interrupted=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The other process has the input already.
    return replace(done, item=None)


def _log_levels() -> dict[str, int] | None:
    """Return the levels of this package's loggers and of the root; None if the program set no logging up."""
    root = logging.getLogger()
    if not root.handlers:
        return None
    levels = {"": root.level}
    for name, logger in root.manager.loggerDict.items():
        if name.startswith("redepth") and isinstance(logger, logging.Logger):
            levels[name] = logger.level
    return levels


def _use_log_levels(levels: dict[str, int]) -> None:
    logging.basicConfig(format="%(message)s")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


# --- in every process -----------------------------------------------------------------------------


def _attempt(worker: Worker[T, R], index: int, item: T) -> Done[T, R]:
    try:
        return Done(index, item, result=worker(item))
    except KeyboardInterrupt:
        return Done(index, item, error=INTERRUPTED, interrupted=True)
    except Exception as error:  # an error of one input must not stop the others
        log.debug("input %d failed", index, exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, RedepthError):
            text = f"{type(error).__name__}: {text}"
        return Done(index, item, error=text)


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["OMP_NUM_THREADS"] = str(threads)
