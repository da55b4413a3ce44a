"""What the docstrings of classes say about each of their settings."""

from __future__ import annotations

import inspect
import re
from functools import cache

_SECTION = re.compile(r"(?:Args|Attributes):")
_ENTRY = re.compile(r"(\w[\w ,`]*):\s+(\S.*)")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!al\.)\s+")


@cache
def described(owner: type) -> dict[str, str]:
    """Return setting -> what ``Args:`` and ``Attributes:`` of a class and of its bases say about it.

    A class overrides its bases. Line breaks and marks of code are gone.
    """
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base is object:
            continue
        for holder in (base.__dict__.get("__init__"), base):
            found |= _entries(inspect.cleandoc(getattr(holder, "__doc__", None) or ""))
    return found


def _entries(docstring: str) -> dict[str, str]:
    """Return the entries of the sections that list settings."""
    found: dict[str, str] = {}
    inside = False
    names: list[str] = []
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 0 and line.strip():
            inside, names = bool(_SECTION.fullmatch(line.strip())), []
        elif inside and indent == 4 and (entry := _ENTRY.fullmatch(line.strip())):
            names = re.findall(r"\w+", entry[1])
            found |= dict.fromkeys(names, entry[2])
        elif inside and indent > 4:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: _plain(text) for name, text in found.items()}


def _plain(text: str) -> str:
    """Return a text without the marks of code."""
    text = re.sub(r"``?([^`]*)``?", r"\1", text)
    return " ".join(text.split())


def shortened(text: str, limit: int) -> str:
    """Return as many whole sentences of a text as a number of characters holds, at least the first."""
    sentences = _SENTENCE_END.split(text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > limit:
            break
        kept = f"{kept} {sentence}"
    return kept
