"""Text that comes from files, names and libraries, made safe for a terminal."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

_KEPT = frozenset("\n\t")
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that a terminal obeys, hides or cannot write: control codes, marks that change
the direction of text, halves of characters that stand for bytes of a name that are not UTF-8."""
_JOINERS = frozenset("\u200c\u200d")
"""Format characters that several scripts and emoji need."""


def safe(text: str) -> str:
    """Return a text in which each character that a terminal would obey or hide is written as its code."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_safe_character, text))


def _safe_character(character: str) -> str:
    if character in _KEPT or character in _JOINERS or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class TerminalConsole(Console):
    """A console whose styles and cursor moves are its own, and no part of what it prints.

    ``:name:`` is no emoji: it may be part of a path. A line of results is never broken or cut: what is longer
    than the terminal is continued by the terminal itself. Progress on stderr keeps to the terminal's width.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(emoji=False, stderr=stderr, soft_wrap=not stderr, **options)
        self._forced = bool(options.get("force_terminal"))

    @property
    def columns(self) -> int | None:
        """The width of the terminal; None for a pipe or a file, also under ``FORCE_COLOR``."""
        return self.width if self._forced or (self.is_terminal and self.file.isatty()) else None

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer([s if s.control else s._replace(text=safe(s.text)) for s in buffer])


class LineFormatter(logging.Formatter):
    """Writes a record as its message alone, safe for a terminal; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return safe(super().format(record))


def log_handler() -> logging.Handler:
    """Return a handler that prints redepth's records; those of libraries only with the debug log."""

    def shown(record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] == "redepth"
        return ours or logging.getLogger("redepth").level == logging.DEBUG

    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    handler.addFilter(shown)
    return handler
