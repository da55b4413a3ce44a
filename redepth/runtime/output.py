"""The folder of the results: it is made and locked before any work, so that no result is lost later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from redepth.errors import ConfigError

LEAST_ROOM = 2**24
"""Bytes that a disk needs at the start."""


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make the folder, keep other runs out of it, and remove what killed runs left half-written.

    A folder that stays empty is removed again.

    Raises:
        ConfigError: results could not be written there, or another process writes there.
    """
    from redepth.io import remove_leftovers
    from redepth.runtime.lock import locked

    made: list[Path] = []
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        try:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            made += missing
            stack.enter_context(locked(folder))
            remove_leftovers(folder)
            free = shutil.disk_usage(folder).free
        except FileExistsError:
            raise ConfigError(f"--out {folder}: is a file, not a folder; choose another one") from None
        except NotADirectoryError:
            raise ConfigError(f"--out {folder}: part of it is a file; choose another one") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"--out {folder}: cannot be written to ({why}); choose another one") from None
        if free < LEAST_ROOM:
            raise ConfigError(
                f"--out {folder}: the disk is full ({free / 2**20:.0f} MiB are free); make room, or choose "
                "another one"
            )
        yield


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
