"""Retry requests after transient errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redepth.checkpoints import progress
from redepth.checkpoints.messages import is_transient, known_meaning, reason, retry_delay

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry; a download starts over with the first one whenever bytes have arrived."""


def retry(attempt: Callable[[], T], doing: str) -> T:
    """Call a function again after each transient error; ``doing`` describes it in messages."""
    for seconds in WAITS:
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            pause(error, seconds, doing)
    return attempt()


def pause(error: BaseException, seconds: float, doing: str) -> None:
    """Report an error and wait before the next attempt, as long as the hub demands if it says so."""
    seconds = retry_delay(error, default=seconds)
    problem = (known_meaning(error) or reason(error)).partition(":")[0]
    progress.watcher().line(f"{doing}: {problem}; trying again in {seconds:.0f} s")
    time.sleep(seconds)
