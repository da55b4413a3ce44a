"""Tables of aligned columns, in which no path, command or number is ever broken or cut.

A line that is longer than the terminal is continued by the terminal itself, so it can be copied whole. Where
there is no terminal, nothing is broken at all.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from redepth.cli.terminal import TerminalConsole

_GAP = 2
_INDENT = 4
_LEAST_PROSE = 28
"""Columns that prose needs beside the other columns; with fewer it gets lines of its own."""


class Table:
    """Rows under headings; `rich` prints it.

    Args:
        title: a line above the table; empty for none.
        columns: the headings.
        prose: whether the last column is text that a terminal may break between words.
    """

    def __init__(self, title: str, columns: Sequence[str], *, prose: bool = False) -> None:
        self.title = title
        self.columns = columns
        self.prose = prose
        self.rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; a string is plain text without markup, and a line break is written as its code."""
        self.rows.append([_on_one_line(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines."""
        if self.title:
            yield Text(self.title, "italic")
        head = [Text(name, "bold") for name in self.columns]
        fixed = len(self.columns) - self.prose
        widths = [max(cell_len(row[i].plain) for row in [head, *self.rows]) for i in range(fixed)]
        left = sum(widths) + _GAP * fixed
        columns = console.columns if isinstance(console, TerminalConsole) else options.max_width
        columns = sys.maxsize if columns is None else columns
        room = columns - left
        for row in [head, *self.rows]:
            if not self.prose:
                yield _aligned(row, widths)
            elif cell_len(row[-1].plain) <= room:
                yield _aligned(row, [*widths, 0])
            elif room >= _LEAST_PROSE:
                yield from _beside(row, widths, room)
            else:
                yield from _above(row, widths, columns)


def wrap(text: str, width: int | None) -> list[str]:
    """Break a text between words, never inside one; ``None`` leaves it whole."""
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _on_one_line(cell: str | Text) -> Text:
    text = cell if isinstance(cell, Text) else Text(cell)
    return Text(text.plain.replace("\n", "\\n"), text.style) if "\n" in text.plain else text


def _aligned(row: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(row, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width - cell_len(cell.plain) + _GAP))
    line.rstrip()
    return line


def _above(row: Sequence[Text], widths: Sequence[int], width: int) -> Iterator[Text]:
    """Yield the lines of a row whose last cell is prose that stands below the others."""
    *cells, prose = row
    yield _aligned(cells, widths)
    for line in wrap(prose.plain, width - _INDENT):
        yield Text(" " * _INDENT + line, prose.style)


def _beside(row: Sequence[Text], widths: Sequence[int], room: int) -> Iterator[Text]:
    """Yield the lines of a row whose last cell is prose that stands beside the others."""
    *cells, prose = row
    first, *rest = (Text(line, prose.style) for line in wrap(prose.plain, room))
    yield _aligned([*cells, first], [*widths, 0])
    for line in rest:
        yield _aligned([*(Text() for _ in cells), line], [*widths, 0])
