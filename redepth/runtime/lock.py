"""A lock on a folder of results: two runs at once would mix their files."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from redepth.errors import ConfigError

LOCK = ".redepth.lock"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path, option: str = "--out") -> Iterator[None]:
    """Hold the lock of a folder. The system releases it however this process ends.

    On a file system without locks nothing is locked; that is logged.

    Args:
        folder: which exists.
        option: that names the folder, for the message.

    Raises:
        ConfigError: another process holds it.
    """
    path = folder / LOCK
    descriptor = _acquire(path, option)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        # Before the lock is released, so that no file of another process is removed.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, option: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _lock(descriptor):
                holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                raise ConfigError(
                    f"{option} {path.parent}: {holder} is writing there; wait until it ends, or choose "
                    f"another {option}"
                )
            if _is_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its last holder removed the file between the two calls.
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        # Bytes far behind the text: Windows lets nobody read the locked ones.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            log.warning(
                "two runs at once into this folder would mix: it cannot be locked (%s)", error.strerror
            )
        return True
