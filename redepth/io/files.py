"""Open a user's file, with one line for everything that can be wrong with it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from redepth.errors import InputError

StrPath = str | os.PathLike[str]


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
        file = path.open("rb")
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


def damaged(path: Path, error: BaseException) -> InputError:
    """Return the error for a file whose content cannot be decoded."""
    return InputError(f"{path}: damaged or truncated ({reason(error)}); copy or download it again")


def reason(error: BaseException) -> str:
    """Return an error's text on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
