"""Signals that end a program: Ctrl-C, terminate and hang-up. All three end it in the same orderly way.

The first one is a KeyboardInterrupt, or is counted where work in other processes has to end first. The exit
code is the shell's for the signal: 128 plus its number.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a program to end. Windows has no SIGHUP."""

_received: list[int] = []


@contextmanager
def caught() -> Iterator[None]:
    """Let terminate and hang-up interrupt this program as Ctrl-C does.

    A signal that is ignored stays ignored: ``nohup`` does that to hang-up. Outside the main thread,
    where Python handles no signal, nothing changes.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {n: h for n in ENDING if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
    try:
        for number in former:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def received() -> int:
    """Return how many signals have asked this program to end."""
    return len(_received)


def exit_code() -> int:
    """Return the exit code: 130 after Ctrl-C, 143 after terminate, 129 after hang-up."""
    return 128 + (_received[0] if _received else signal.SIGINT)


class Interruptions:
    """Counts the signals that ask to end."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: Any) -> None:
        """Count a signal; a second one ends the program without more ado."""
        note(number)
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def counted() -> Iterator[Interruptions]:
    """Count the first signal instead of raising KeyboardInterrupt, so that no work is cut off in the middle.

    Terminate and hang-up are counted only inside `caught`. Outside the main thread nothing is.
    """
    interruptions = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield interruptions
        return
    ours = (signal.default_int_handler, _interrupt)
    former = {number: signal.getsignal(number) for number in ENDING if signal.getsignal(number) in ours}
    try:
        for number in former:
            signal.signal(number, interruptions)
        yield interruptions
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def set_all(handler: Callable[[int, Any], Any] | signal.Handlers) -> None:
    """Give all ending signals one handler, in a process that this package starts."""
    for number in ENDING:
        signal.signal(number, handler)


def block() -> None:
    """Block the ending signals in the calling thread. Windows has no such thing."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def unblock() -> None:
    """Let the ending signals through again, also those that have arrived meanwhile."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def blocked() -> Iterator[None]:
    """Hold the ending signals back. A process that is started meanwhile starts with them blocked."""
    if sys.platform != "win32":
        # In Python 3.11 the first start of this helper of multiprocessing unblocks Ctrl-C and terminate.
        resource_tracker.ensure_running()
    block()
    try:
        yield
    finally:
        unblock()


def _interrupt(number: int, frame: Any) -> None:
    note(number)
    raise KeyboardInterrupt


def note(number: int) -> None:
    """Remember a signal: a library may swallow the KeyboardInterrupt that follows."""
    _received.append(number)
    if number == getattr(signal, "SIGHUP", None):
        _leave_terminal()


def _leave_terminal() -> None:
    """Send further output nowhere if it went to the terminal that is gone: writing to it would fail."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            descriptor = stream.fileno()
            if os.isatty(descriptor):
                os.dup2(sink, descriptor)
        except (OSError, ValueError):
            continue
    os.close(sink)
