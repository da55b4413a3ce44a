"""Read text files of bounded size."""

from __future__ import annotations

import codecs
from pathlib import Path

from redepth.errors import InputError
from redepth.io.files import StrPath, open_regular

TEXT_LIMIT = 16 * 2**20
"""Largest size of a text file in bytes, unless a reader sets its own."""

_OTHER_MARKS = {
    # The mark of UTF-32 starts with that of UTF-16, so it comes first.
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: StrPath, *, limit: int = TEXT_LIMIT) -> str:
    r"""Read a UTF-8 text file.

    Args:
        path: the file; a byte-order mark at its start is dropped, and an empty file gives an empty text.
        limit: size in bytes beyond which the file is refused; never more is read.

    Returns:
        The text, its line ends as ``\n``.

    Raises:
        InputError: the file is missing, unreadable, no regular file (a pipe, a device), longer than
            ``limit``, of another encoding than UTF-8, or holds the character 0, as only binary files do.
    """
    path = Path(path)
    with open_regular(path, may_be_empty=True) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); copy it again") from None
    if len(content) > limit:
        raise InputError(f"{path}: longer than {limit} bytes, too long for this kind of file; check the path")
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            raise InputError(f"{path}: encoded as {encoding}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}: holds a zero byte, so it is not a text in UTF-8; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
