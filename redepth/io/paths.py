"""Paths as a user wrote them, of any length and content."""

from __future__ import annotations

from pathlib import Path

from redepth.errors import InputError, brief
from redepth.io.files import StrPath


def expanded(path: StrPath) -> Path:
    """Return a path with ``~`` replaced by the home folder.

    Raises:
        InputError: the path holds the character 0, or names the home of a user who does not exist.
    """
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"{brief(str(path))}: a path cannot hold a zero byte; check the spelling")
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"{brief(str(path))}: no such user; write the folder out") from None


def exists(path: Path) -> bool:
    """Return whether there is a file or folder; False if the system refuses the name, as one too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; False if the system refuses the name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
