"""Open a user's file, with one line for everything that can be wrong with it."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from redepth.errors import InputError

StrPath = str | os.PathLike[str]


class _SizedReader(io.BufferedReader):
    """Reads no more than there is: Python would first make room for all that a damaged header announces."""

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def open_regular(path: Path, *, may_be_empty: bool = False) -> BinaryIO:
    """Open a regular file, by default one that has content.

    Raises:
        InputError: the file is missing, empty, unreadable, a folder, or a pipe or device that would block.
    """
    try:
        # Asked before it is opened, because opening a pipe waits for somebody to write into it.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a folder, not a file; name a file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is not a regular file; save its content to a file first")
        file = _SizedReader(path.open("rb", buffering=0))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the spelling and the folder") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({reason(error)}); check the path") from None
    if os.fstat(file.fileno()).st_size == 0 and not may_be_empty:
        file.close()
        raise InputError(f"{path}: the file is empty; copy or download it again")
    return file


def check_name(path: Path) -> None:
    """Raise InputError for a path that no file can have, as one that is too long; it need not exist."""
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{shortened(str(path))}: cannot be used ({reason(error)}); check the path"
        ) from None


def damaged(path: Path, error: BaseException) -> InputError:
    """Return the error for a file whose content cannot be decoded."""
    return InputError(f"{path}: damaged or truncated ({reason(error)}); copy or download it again")


def reason(error: BaseException) -> str:
    """Return an error's text, shortened, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(" ".join(text.split())) or type(error).__name__


def shortened(text: str, length: int = 160) -> str:
    """Cut what a file says of itself, which may have any length."""
    return text if len(text) <= length else f"{text[:length]} ..."
