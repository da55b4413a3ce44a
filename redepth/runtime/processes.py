"""Work in fresh processes of this machine, each with a share of the threads or one GPU."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from redepth.errors import RedepthError, one_line
from redepth.runtime import signals
from redepth.runtime.component_files import import_same, imported_files
from redepth.runtime.work import (
    INTERRUPTED,
    Crew,
    Done,
    Make,
    R,
    Resources,
    T,
    attempt,
    use_threads,
)

POLL_SECONDS = 0.5
END_SECONDS = 5.0
"""How long idle processes have to end by themselves, all together."""


class WorkerProcess:
    """A process with a worker, and the connection to it."""

    def __init__(self, make: Make[Any, Any], slot: int, resources: Resources) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        gpu = slot % resources.gpus if resources.gpus else None
        self.process: BaseProcess = context.Process(
            target=_serve,
            args=(make, theirs, resources.threads_each, gpu, _log_levels(), imported_files()),
            daemon=True,
        )
        # Ctrl-C of the terminal must not end it in the middle of an import, before it has its handler.
        with signals.blocked():
            self.process.start()
        # The process has its own copy: without this one, the connection ends with the process.
        theirs.close()
        self.slot = slot
        self.ready = False

    def end(self, seconds: float) -> None:
        """End the process: an idle one ends with its connection, a busy one is killed after some seconds."""
        self.connection.close()
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Processes(Crew[WorkerProcess]):
    """Runs in fresh processes of this machine. They end when this process ends, however it does."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._workers: list[WorkerProcess] = []
        self._failed_starts = 0

    def _connect(self) -> None:
        """Do nothing: a process is started when there is work for it."""

    def _close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
        deadline = time.monotonic() + END_SECONDS
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers.clear()

    def _start(self, make: Make[T, R]) -> WorkerProcess:
        taken = {worker.slot for worker in self._workers}
        slot = next(slot for slot in itertools.count() if slot not in taken)
        self._workers.append(WorkerProcess(make, slot, self.resources))
        return self._workers[-1]

    def _give(self, worker: WorkerProcess, index: int, item: Any) -> None:
        try:
            worker.connection.send((index, item))
        except ConnectionError:
            return

    def _wait(self, workers: Sequence[WorkerProcess]) -> list[tuple[WorkerProcess, Done[Any, Any] | None]]:
        by_connection = {worker.connection: worker for worker in workers}
        ended: list[tuple[WorkerProcess, Done[Any, Any] | None]] = []
        for ready in connection.wait(list(by_connection), POLL_SECONDS):
            assert isinstance(ready, Connection)
            worker = by_connection[ready]
            try:
                answer = ready.recv()
            except (EOFError, ConnectionError):
                self._bury(worker)
                ended.append((worker, None))
                continue
            if isinstance(answer, Done):
                ended.append((worker, answer))
            elif isinstance(answer, Exception):
                raise answer
            else:
                worker.ready, self._failed_starts = True, 0
        return ended

    def _bury(self, worker: WorkerProcess) -> None:
        """Forget a dead process.

        Raises:
            RedepthError: if several have died in a row while they made their worker: no other input will fare
                better.
        """
        self._workers.remove(worker)
        worker.end(END_SECONDS)
        if worker.ready or self._stopped:
            return
        self._failed_starts += 1
        if self._failed_starts > self.resources.workers:
            raise RedepthError(
                f"{self._failed_starts} worker processes died while they loaded the models (exit code "
                f"{worker.process.exitcode}): take fewer workers if memory is short; a script that starts "
                'workers needs the line if __name__ == "__main__"'
            )

    def _interrupt(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            if worker.process.pid is not None and worker.process.is_alive():
                # Windows cannot send Ctrl-C to one process: there it ends without a partial result.
                os.kill(worker.process.pid, signal.SIGINT)


# --- in the process -------------------------------------------------------------------------------


class _Interruption:
    """Turns the first signal during an input into KeyboardInterrupt.

    Ctrl-C may arrive twice: from the terminal, and from the parent.
    """

    def __init__(self) -> None:
        self.busy = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.busy:
            self.busy = False
            signals.note(number)
            raise KeyboardInterrupt

    def attempt(self, work: Callable[[], Any]) -> Any:
        self.busy = True
        try:
            # A signal that arrived before there was a handler arrives now.
            signals.unblock()
            return work()
        finally:
            self.busy = False


def _serve(
    make: Make[Any, Any],
    parent: Connection,
    threads: int,
    gpu: int | None,
    levels: dict[str, int] | None,
    files: Mapping[Path, str],
) -> None:
    """Make a worker, and call it with each input from the parent, until the parent closes the connection."""
    interruption = _Interruption()
    signals.set_all(interruption)
    _end_with_parent()
    if levels is not None:
        _use_log_levels(levels)
    if gpu is not None:
        import torch

        # What computes on "cuda" computes on the current GPU. It is too late for CUDA_VISIBLE_DEVICES: an
        # import may have made torch count the GPUs already, and the variable may be the user's own.
        torch.cuda.set_device(gpu)
    use_threads(threads)
    try:
        import_same(files)
        worker = interruption.attempt(make)
    except KeyboardInterrupt:
        _decline(parent)
        return
    except Exception as error:
        parent.send(error if isinstance(error, RedepthError) else RedepthError(one_line(error)))
        return
    # The connection ends with the parent, or when it needs this process no more.
    with suppress(EOFError, ConnectionError):
        parent.send("ready")
        while True:
            index, item = parent.recv()
            try:
                done = interruption.attempt(partial(attempt, worker, index, item))
            except KeyboardInterrupt:
                done = Done(index, None, error=INTERRUPTED, interrupted=True)
            # The parent has the input already.
            parent.send(Done(index, None, done.result, done.error, done.interrupted))


def _decline(parent: Connection) -> None:
    """Answer that Ctrl-C ended the first input, before there was a worker for it."""
    with suppress(EOFError, ConnectionError):
        index, _ = parent.recv()
        parent.send(Done(index, None, error=INTERRUPTED, interrupted=True))


def _end_with_parent() -> None:
    """End this process when its parent is gone, also in the middle of an input: nobody reads the result."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        # A signal that this thread takes would not wake the main thread, whose handler acts on it.
        signals.block()
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
