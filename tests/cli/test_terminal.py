"""What a terminal gets: no code of a name or a message reaches it, and a line stays a line."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from redepth.cli import console
from redepth.cli.terminal import TerminalConsole, log_handler, safe
from tests.support.command import ENVIRONMENT, call, one_line

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9b1md\re\x00f\u202eg\u2066h\ud83di"


def test_control_codes_are_written_out() -> None:
    made = safe(HOSTILE)
    assert made == "a\\x1b[31mb\\x1b]0;title\\x07c\\x9b1md\\re\\x00f\\u202eg\\u2066h\\ud83di"
    made.encode()


@pytest.mark.parametrize(
    "text", ["plain", "two\nlines\tand", "Größe 图像 изображение", "👩‍👧 :smile:", "", "a" * 9]
)
def test_text_of_any_script_stays(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize("kind", ["text", "table", "markup-free"])
def test_a_console_prints_names_and_obeys_none(kind: str) -> None:
    out = io.StringIO()
    printing = TerminalConsole(file=out, width=300, force_terminal=True)
    name = f"{HOSTILE}:smile:"
    if kind == "table":
        table = Table("name")
        table.add_row(Text(name))
        printing.print(table)
    elif kind == "text":
        printing.print(Text(name, "red"))
    else:
        printing.print(name, markup=False, highlight=False, soft_wrap=True)
    plain = out.getvalue().replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert ":smile:" in plain
    for code in ("\x1b]0", "\x07", "\x9b", "\r", "\x00", "\u202e", "\ud83d"):
        assert code not in plain


def test_an_error_about_a_hostile_name_is_one_safe_line(tmp_path: Path) -> None:
    name = "x\x1b[31m:smile:\n.png"
    done = call("refine", tmp_path / name, "--preset", "smoke", "--out", tmp_path / "o")
    one_line(done, "x\\x1b[31m:smile:")
    assert "\x1b" not in done.err


def test_a_log_line_is_safe_and_libraries_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    handler = log_handler()
    monkeypatch.setattr(handler, "stream", out)
    for name in ("redepth.batch", "PIL.Image", "transformers"):
        handler.handle(logging.LogRecord(name, logging.WARNING, "", 1, f"{name} \x1b[31m", None, None))
    assert out.getvalue() == "redepth.batch \\x1b[31m\n"


def test_warnings_of_libraries_are_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        console.show_renamed_options()
        warnings.warn_explicit("two\nlines", UserWarning, "x.py", 1)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX system")
def test_show_into_a_closed_or_full_output_is_one_line() -> None:
    command = [sys.executable, "-m", "redepth", "show", "smoke"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be written to" in done.stderr
    closing = ["import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])", *command]
    done = subprocess.run(
        [sys.executable, "-c", *closing], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "closed" in done.stderr
