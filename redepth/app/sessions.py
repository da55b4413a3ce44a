"""What the app keeps for each browser tab: its jobs, its last result, and the means to end both."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redepth.app.results import Shown
from redepth.app.running import Run

LONGEST_IDLE = 24 * 3600.0
"""Seconds after which the files of a client that did not say goodbye are removed."""


PATIENCE = 10.0
"""Seconds that the end of the app waits for its runs: each ends after the step in progress."""


@dataclass(frozen=True)
class Fields:
    """What was filled in, unchecked.

    Attributes:
        photo: path of the upload.
        preset: name.
        members: number.
        steps: number.
        budget: time limit.
        seed: number.
        prompt: text.
    """

    photo: str | None = None
    preset: str | None = None
    members: float | None = None
    steps: float | None = None
    budget: str | None = None
    seed: float | None = None
    prompt: str | None = None


@dataclass(eq=False)
class Job:
    """One run of a session: what was filled in for it, and the files of its result.

    Attributes:
        fields: as they were when it was begun, whatever changes while it waits for its turn.
        folder: of its files; it is made when there are some.
        stop: ends it.
        running: whether its turn has come.
        over: is set when its turn has ended.
        run: its refinement, once there is one.
        shown: its result.
    """

    fields: Fields
    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    run: Run | None = None
    shown: Shown | None = None

    def made_folder(self) -> Path:
        """Make the folder, and return it."""
        self.folder.mkdir(parents=True)
        return self.folder

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_over(self, patience: float = 0.0) -> bool:
        """Wait for some seconds, and return whether neither its turn nor its thread goes on."""
        return self.over.wait(patience) and (self.run is None or self.run.is_over(patience))


class Session:
    """A browser tab, or a client. A client may have several jobs at the same time.

    Args:
        root: of the folders of its jobs. Their names are random, and no part of a user's names is in them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._finished: Job | None = None
        self.ended = False
        """Whether nobody is there any more."""
        self.used = 0.0
        """When it was last used, by the clock of `Sessions`."""

    @property
    def going_on(self) -> list[Job]:
        """The jobs that are running."""
        with self._lock:
            return [job for job in self._jobs if job.running]

    @property
    def shown(self) -> Shown | None:
        """The last result."""
        with self._lock:
            return None if self._finished is None else self._finished.shown

    def begin(self, fields: Fields) -> Job:
        """Return a new job, which waits for its turn."""
        job = Job(fields, self._root / uuid.uuid4().hex)
        with self._lock:
            self._jobs.append(job)
            if self.ended:
                job.stop.set()
        return job

    def waiting(self) -> Job | None:
        """Return the job that has waited longest for its turn."""
        with self._lock:
            return next((job for job in self._jobs if not job.running), None)

    def withdraw(self) -> None:
        """Forget the jobs that wait."""
        with self._lock:
            for job in self._jobs:
                if not job.running:
                    job.stop.set()
            self._jobs = [job for job in self._jobs if job.running]

    def stop(self) -> bool:
        """Withdraw the jobs that wait, stop those that are running, and return whether there were any."""
        self.withdraw()
        running = self.going_on
        for job in running:
            job.stop.set()
        return bool(running)

    @contextmanager
    def turn(self, job: Job) -> Iterator[None]:
        """Run a job. At the end its files are removed, unless they are the result that is shown."""
        with self._lock:
            job.running = True
        try:
            yield
        finally:
            with self._lock:
                job.running = False
                self._jobs = [other for other in self._jobs if other is not job]
                is_kept = self._finished is job and not self.ended
            if not is_kept:
                job.remove()
            job.over.set()

    def finish(self, job: Job, shown: Shown) -> None:
        """Keep the result of a job in place of the former one, whose files are removed."""
        with self._lock:
            former, self._finished = self._finished, job
            job.shown = shown
        if former is not None:
            former.remove()

    def end(self) -> None:
        """Stop all jobs, and remove the last result; a job that is running removes its own files."""
        with self._lock:
            self.ended = True
            finished, self._finished = self._finished, None
            for job in self._jobs:
                job.stop.set()
        if finished is not None and not finished.running:
            finished.remove()


class Sessions:
    """All sessions of the app.

    Args:
        folder: of the folders of their jobs.
        clock: reads the time in seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._sessions: dict[str, Session] = {}
        self._leaving: list[Session] = []
        self._lock = threading.Lock()

    def get(self, key: str | None) -> Session:
        """Return a session, made if it is new; those that were idle for a day end."""
        now = self._clock()
        with self._lock:
            idle = [k for k, s in self._sessions.items() if not s.going_on and now - s.used > LONGEST_IDLE]
        for old in idle:
            self.end(old)
        with self._lock:
            name = key or uuid.uuid4().hex
            if name not in self._sessions:
                self._sessions[name] = Session(self._folder)
            session = self._sessions[name]
            session.used = now
            return session

    def end(self, key: str | None) -> None:
        """End a session: its runs, and its files."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
            self._leaving = [other for other in self._leaving if other.going_on]
            if session is not None:
                self._leaving.append(session)
        if session is not None:
            session.end()

    def running(self) -> list[Session]:
        """Return the sessions that have a run."""
        with self._lock:
            return [session for session in self._sessions.values() if session.going_on]

    def close(self, patience: float = PATIENCE) -> None:
        """End all sessions, and wait for their runs for some seconds: they might still write files."""
        for key in list(self._sessions):
            self.end(key)
        jobs = [job for session in self._leaving for job in session.going_on]
        end = self._clock() + patience
        for job in jobs:
            job.is_over(max(0.0, end - self._clock()))
