"""Work on a Ray cluster: one actor per worker, with its resources requested."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from redepth.errors import ConfigError, RedepthError, cut
from redepth.registry import require
from redepth.runtime.component_files import import_same, imported_files
from redepth.runtime.work import Crew, Done, Make, R, Resources, T, attempt, use_threads

CONNECT_SECONDS = 30
"""How long a cluster has to answer."""

POLL_SECONDS = 0.5


class Ray(Crew[Any]):
    """Runs on a Ray cluster. A worker that dies is replaced by a new one."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._ray: Any = require("ray", "ray")
        self._started = False
        self._workers: list[Any] = []
        self._running: dict[Any, Any] = {}
        self._cancelled: list[Any] = []

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address = self.resources.ray
        if address != "local":
            check(str(address))
        try:
            # Ray passes this process's import path to its workers: a clone need not be installed.
            self._ray.init(
                address=None if address == "local" else address, log_to_driver=False, include_dashboard=False
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(str(address), str(error).splitlines()[0]) from error
        self._started = True

    def _close(self) -> None:
        if self._started:
            self._ray.shutdown()
        else:
            for worker in self._workers:
                self._ray.kill(worker)

    def _start(self, make: Make[T, R]) -> Any:
        threads, workers = self.resources.threads_each, self.resources.workers
        ray = self._ray
        gpus = gpu_share(ray.cluster_resources().get("GPU", 0), workers) if self.resources.gpus else 0
        actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_RayWorker)
        self._workers.append(actor.remote(make, threads, imported_files()))
        return self._workers[-1]

    def _give(self, worker: Any, index: int, item: Any) -> None:
        self._running[worker.work.remote(index, item)] = worker

    def _wait(self, workers: Sequence[Any]) -> list[tuple[Any, Done[Any, Any] | None]]:
        ended: list[tuple[Any, Done[Any, Any] | None]] = [(worker, None) for worker in self._cancelled]
        self._cancelled = []
        if not self._running:
            return ended
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        ended += [(self._running.pop(reference), self._answer(reference)) for reference in ready]
        return ended

    def _answer(self, reference: Any) -> Done[Any, Any] | None:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            # `work` catches what its worker raises: here no worker could be made, nor could another one.
            raise RedepthError(f"a Ray worker cannot start: {error.cause}") from error
        except errors.RayError:
            return None

    def _interrupt(self, workers: Sequence[Any]) -> None:
        # Ray does not pass Ctrl-C on to its workers, and what they do may take hours.
        for worker in workers:
            self._ray.kill(worker)
        self._running.clear()
        self._cancelled = list(workers)


def gpu_share(gpus: float, workers: int) -> float:
    """Return the share of a GPU, at most 1, with which all workers find a place on a cluster.

    Raises:
        ConfigError: if the cluster has no GPU.
    """
    if gpus < 1:
        raise ConfigError("the Ray cluster has no GPU: start its nodes with GPUs, or give --device cpu")
    return 1 / math.ceil(workers / int(gpus))


def _no_cluster(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"no Ray cluster at '{address}': {why}; start one with 'ray start --head', or give --ray local"
    )


def check(address: str) -> None:
    """Raise ConfigError unless a cluster answers. Without an answer ``ray.init`` would try for ever."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None
    elif address != "auto":
        raise _no_cluster(address, "an address is HOST:PORT, ray://HOST:PORT or auto")
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    probe = context.Process(target=_probe, args=(address, theirs), daemon=True)
    probe.start()
    theirs.close()
    try:
        problem = ours.recv() if ours.poll(CONNECT_SECONDS) else f"no answer within {CONNECT_SECONDS} s"
    except EOFError:
        problem = "it cannot be reached"
    finally:
        probe.kill()
        probe.join()
    if problem:
        raise _no_cluster(address, problem)


def _probe(address: str, answer: Connection) -> None:
    """Connect to a cluster and send an empty text, or why that is impossible."""
    # What Ray logs meanwhile, line after line, is no help.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    ray = require("ray", "ray")
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        answer.send("")
    except Exception as error:  # Ray has many
        answer.send(cut(str(error).splitlines()[0] if str(error) else type(error).__name__, 200))


@dataclass
class _RayWorker:
    make: Any
    threads: int
    files: Mapping[Path, str] = field(default_factory=dict)
    _worker: Any = field(default=None)

    def work(self, index: int, item: Any) -> Any:
        if self._worker is None:
            use_threads(self.threads)
            import_same(self.files)
            self._worker = self.make()
        return replace(attempt(self._worker, index, item), item=None)
