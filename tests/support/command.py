"""Call the command line, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from redepth import cli
from redepth.cli import console
from redepth.cli.terminal import TerminalConsole

SMOKE = ("--preset", "smoke", "--device", "cpu")

# One thread: results are the same to the bit, and a busy machine is not made busier.
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


_PROGRESS = re.compile(r"^[^:]+: step \d+/\d+, |^\d+/\d+: |━")
"""A line about the steps of a photo or about a task, and a bar."""


@dataclass(frozen=True)
class Finished:
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr without those of the progress."""
        return [line for line in self.err.splitlines() if line.strip() and not _PROGRESS.search(line)]

    @property
    def progress(self) -> list[str]:
        """The lines of stderr that show the progress."""
        return [line for line in self.err.splitlines() if _PROGRESS.search(line)]


def is_installed(distribution: str) -> bool:
    """Look for a distribution without importing it.

    Importing ``pip``, or asking ``find_spec`` for it, makes setuptools leave its own distutils for the
    standard library's: from then on nothing here can import setuptools, as ``torch.compile`` does.
    """
    return next(iter(importlib.metadata.distributions(name=distribution)), None) is not None


def call(*args: str | Path) -> Finished:
    """Run ``redepth ARGS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["redepth", *map(str, args)]),
        mock.patch.object(console, "out", TerminalConsole(width=200)),
        mock.patch.object(console, "err", TerminalConsole(width=200, stderr=True)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
    return Finished(code, out.getvalue(), err.getvalue())


def spawn(*args: str | Path, extra: Mapping[str, str] | None = None) -> Finished:
    """Run ``python -m redepth ARGS`` in a process of its own."""
    command = [sys.executable, "-m", "redepth", *map(str, args)]
    done = subprocess.run(
        command, env={**ENVIRONMENT, **(extra or {})}, capture_output=True, text=True, timeout=300
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def one_line(done: Finished, *words: str) -> None:
    """Assert that a call failed with exit code 2 and one line on stderr that holds all the words."""
    assert done.code == 2, done
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def record(folder: Path) -> dict[str, Any]:
    """Read the run record in a folder of results."""
    return json.loads((folder / "run.json").read_text())
