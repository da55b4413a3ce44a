"""What the app keeps for each browser tab: a folder for its result, and the means to end its run."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from redepth.app.results import Shown

LONGEST_IDLE = 24 * 3600.0
"""Seconds after which the files of a client that did not say goodbye are removed."""


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


NOTHING = Fields()


@dataclass
class Session:
    """A browser tab, or a client.

    Attributes:
        folder: of its result; it is made when there is one.
        stop: ends the run that is going on, or waits for its turn.
        running: whether there is one.
        ended: whether nobody is there any more.
        used: when it was last used, by the clock of `Sessions`.
        fields: what was filled in for its run.
        shown: its result.
    """

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = False
    ended: bool = False
    used: float = 0.0
    fields: Fields = NOTHING
    shown: Shown | None = None

    def begin(self, fields: Fields) -> None:
        """Begin a run with what was filled in now, whatever changes while it waits for its turn."""
        self.fields, self.stop = fields, threading.Event()

    def fresh_folder(self) -> Path:
        """Remove the former result, and return an empty folder for the next."""
        self.remove()
        path = self.folder / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def remove(self) -> None:
        """Remove the files of the result."""
        self.shown = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions of the app.

    Args:
        folder: of their folders. Their names are random, and no part of a user's names is in them.
        clock: reads the time in seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def get(self, key: str | None) -> Session:
        """Return a session, made if it is new; those that were idle for a day end."""
        now = self._clock()
        with self._lock:
            idle = [k for k, s in self._sessions.items() if not s.running and now - s.used > LONGEST_IDLE]
        for old in idle:
            self.end(old)
        with self._lock:
            name = key or uuid.uuid4().hex
            if name not in self._sessions:
                self._sessions[name] = Session(self._folder / uuid.uuid4().hex)
            session = self._sessions[name]
            session.used = now
            return session

    def end(self, key: str | None) -> None:
        """End a session: its run, and its files."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
        if session is not None:
            session.ended = True
            session.stop.set()
            session.remove()

    def running(self) -> list[Session]:
        """Return the sessions that have a run."""
        with self._lock:
            return [session for session in self._sessions.values() if session.running]

    def close(self) -> None:
        """End all sessions."""
        for key in list(self._sessions):
            self.end(key)
