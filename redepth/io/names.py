"""Names of files that are made from a user's names: of any script, any length, on every system."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

from redepth.io.files import StrPath

LONGEST = 255
"""Most bytes of a name in common file systems."""

READABLE = 120
"""Most bytes of the readable part of a name with a hash."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices."""


def as_text(name: StrPath) -> str:
    """Return a name or a path as text, the same under every locale.

    Python decodes names by the locale: under ``LC_ALL=C`` every letter beyond ASCII becomes two or more
    surrogates. Bytes that are not UTF-8 stay surrogates.
    """
    return _as_bytes(name).decode("utf-8", "surrogateescape")


def displayed(name: StrPath) -> str:
    """Return a name or a path as text for people and for records: U+FFFD where it is not UTF-8."""
    return _as_bytes(name).decode("utf-8", "replace")


def is_safe_name(name: str, longest: int = LONGEST) -> bool:
    """Return whether a name can be that of a visible file in any folder, on every system."""
    return (
        0 < len(_as_bytes(name)) <= longest
        and not name.startswith(".")
        and not name.endswith((".", " "))
        and not any(unicodedata.category(letter) == "Cc" or letter in "/\\" for letter in name)
        and not _RESERVED.fullmatch(name)
    )


def hashed_name(name: str) -> str:
    """Return a safe name for any name: a readable part, ``=``, and 16 digits of the name's SHA-256."""
    raw = _as_bytes(name)
    known = unicodedata.normalize("NFC", raw.decode("utf-8", "replace"))
    readable = "".join(letter if _is_plain(letter) else "_" for letter in known).strip()
    readable = readable.encode()[:READABLE].decode(errors="ignore")
    # By its bytes: the name on the disk is the same under every locale.
    return os.fsdecode(f"{readable}={hashlib.sha256(raw).hexdigest()[:16]}".encode())


def _is_plain(letter: str) -> bool:
    # Marks (M) are the vowels of Indic scripts, for example.
    return letter.isalnum() or letter in "-_ " or unicodedata.category(letter).startswith("M")


def _as_bytes(name: StrPath) -> bytes:
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:  # a locale without these letters
        return os.fspath(name).encode("utf-8", "surrogateescape")
