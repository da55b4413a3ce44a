"""Report the progress of downloads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# docs/priors.md names this logger.
log = logging.getLogger("redepth.checkpoints.downloads")


class Watcher:
    """Receives the progress of downloads; this one logs lines, the command line has its own."""

    def line(self, text: str) -> None:
        """Show a line that stays. It is a warning: a download of gigabytes should not go unnoticed."""
        log.warning("%s", text)

    def bytes(self, name: str, done: int, size: int | None) -> None:
        """Receive how many bytes of a file have arrived; nothing is logged."""


_watcher = Watcher()


def watcher() -> Watcher:
    """Return the watcher that receives progress now."""
    return _watcher


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Send the progress of all downloads within the context to a watcher."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def size_text(size: int) -> str:
    """Return a number of bytes with a unit, such as ``3.44 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
