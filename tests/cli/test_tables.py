"""Tables: aligned columns, in which no path is broken."""

from __future__ import annotations

import io

import pytest
from rich.text import Text

from redepth.cli import console
from redepth.cli.tables import Table, wrap
from redepth.cli.terminal import TerminalConsole
from tests.support.terminal import terminal

LONG = "/a/very/long/path with spaces/" + "x" * 150


def printed(table: Table, columns: int | None = None) -> list[str]:
    out = io.StringIO()
    shown = TerminalConsole(file=out, width=80) if columns is None else terminal(columns, out)
    shown.no_color = True
    shown.print(table)
    text = out.getvalue()
    for style in ("\x1b[1m", "\x1b[3m", "\x1b[0m"):
        text = text.replace(style, "")
    return text.splitlines()


@pytest.mark.parametrize("columns", [None, 80])
def test_a_long_path_is_on_one_line(columns: int | None) -> None:
    table = console.table(f"of {LONG}", "photo", "size", "folder")
    table.add_row("a.png", "3 x 4", LONG)
    table.add_row("a name that is longer.png", Text("300 x 400"), "out/b")
    assert printed(table, columns) == [
        f"of {LONG}",
        "photo                      size       folder",
        f"a.png                      3 x 4      {LONG}",
        "a name that is longer.png  300 x 400  out/b",
    ]


def test_cells_are_plain_text_and_wide_characters_are_counted() -> None:
    table = console.table("", "a", "b")
    table.add_row("[bold]", "x")
    table.add_row("図像", "y")
    table.add_row(Text("a\nb"), "z")
    assert printed(table) == ["a       b", "[bold]  x", "図像    y", r"a\nb    z"]


def test_prose_is_broken_between_words_on_a_terminal_alone() -> None:
    table = console.table("", "name", "what it is", prose=True)
    table.add_row("one", "word " * 20 + "end")
    table.add_row("two", "short")
    assert printed(table)[1] == "one   " + "word " * 20 + "end"
    assert printed(table, 42) == [
        "name  what it is",
        "one   " + ("word " * 7).strip(),
        "      " + ("word " * 7).strip(),
        "      word word word word word word end",
        "two   short",
    ]


def test_prose_gets_lines_of_its_own_where_there_is_no_room_beside() -> None:
    table = console.table("", "name", "what", prose=True)
    table.add_row("a-component-of-a-long-name", "some words about it, more than fit")
    table.add_row("two", "short")
    assert printed(table, 40) == [
        "name                        what",
        "a-component-of-a-long-name",
        "    some words about it, more than fit",
        "two                         short",
    ]


def test_a_pipe_is_no_terminal_because_colour_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    console = TerminalConsole(file=out, width=40)
    table = Table("", ("name", "what"), prose=True)
    table.add_row("a", "word " * 30 + "end")
    console.print(table)
    assert console.columns is None
    assert len(out.getvalue().splitlines()) == 2


def test_no_word_is_broken() -> None:
    assert wrap("a very-long-name b", 5) == ["a", "very-long-name", "b"]
    assert wrap("", 10) == [""]
    assert wrap("a b", None) == ["a b"]


def test_a_line_of_results_is_never_broken_but_progress_keeps_the_width() -> None:
    out, err = io.StringIO(), io.StringIO()
    TerminalConsole(file=out, width=40).print(Text(LONG))
    TerminalConsole(file=err, width=40, stderr=True).print(Text(LONG))
    assert out.getvalue() == f"{LONG}\n"
    assert len(err.getvalue().splitlines()) > 1
