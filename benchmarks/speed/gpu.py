"""Run all benchmarks that need a GPU in a few minutes, and keep all results if the time is cut short.

    python -m benchmarks.speed.gpu --minutes 10 --out DIR --commit $(git rev-parse HEAD)
    python -m benchmarks.speed.gpu --minutes 3 --out DIR --tiny       # every part on a CPU: a check
    python -m benchmarks.speed.report DIR                             # the tables

Each part (`benchmarks.speed.gpu_parts`) is a process with a time limit. If one fails or is stopped, the next
one runs. Rows are appended to ``DIR/rows.jsonl`` as they are measured, the output of the parts goes to
``DIR/log.txt``, and the tables to ``DIR/tables.md``. Parts run in the order of `LIMITS`, the most valuable
first.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from benchmarks.speed.records import COMMIT, ROOT

LIMITS: dict[str, float] = {
    "rates": 60,
    "kernel-tests": 90,
    "tests": 120,
    "steps": 180,
    "kernels": 60,
    "options": 240,
    "shading": 60,
    "norms": 40,
    "decoders": 60,
    "compile": 200,
    "fast": 60,
    "mesh": 90,
    "compiled-tests": 120,
    "compile-all": 150,
}
"""Part -> the seconds after which it is stopped."""

OFF_BY_DEFAULT = ("compiled-tests", "compile-all")
LEAST = 5.0
"""With fewer seconds left, no part is started."""


def chosen(parts: str) -> list[str]:
    """Return the parts of a comma-separated list, in the order of `LIMITS`.

    Raises:
        typer.BadParameter: if there is no such part.
    """
    names = [name for name in parts.split(",") if name] or [n for n in LIMITS if n not in OFF_BY_DEFAULT]
    if unknown := set(names) - set(LIMITS):
        raise typer.BadParameter(f"no {', '.join(sorted(unknown))}; there are: {', '.join(LIMITS)}")
    return [name for name in LIMITS if name in names]


def whole_hash(commit: str) -> str:
    """Return the hash of a commit, which is stored in each row.

    Raises:
        typer.BadParameter: if it is abbreviated, which rows do not allow.
    """
    if re.fullmatch("[0-9a-f]{40}", commit) is None:
        raise typer.BadParameter(f"'{commit}' is no whole commit hash, as 'git rev-parse HEAD' prints it")
    return commit


def run_part(command: list[str], limit: float, log: IO[str]) -> str:
    """Run a part in a new process group; return how it ended."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
    )
    try:
        code = process.wait(timeout=limit)
        return "done" if code == 0 else f"FAILED with exit code {code}"
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for all parts together.")],
    out: Annotated[Path, typer.Option(help="Folder of rows.jsonl, log.txt and tables.md.")],
    parts: Annotated[str, typer.Option(help=f"With commas, of: {', '.join(LIMITS)}.")] = "",
    commit: Annotated[str, typer.Option(help="Of the files, where the repository itself is not there.")] = "",
    tiny: Annotated[bool, typer.Option("--tiny", help="Narrow networks; a CPU will do.")] = False,
    scratch: Annotated[Path | None, typer.Option(help="Folder of networks, kept for other runs.")] = None,
    ways: Annotated[str, typer.Option(help="With commas: only ways whose name contains one.")] = "",
) -> None:
    """Run the parts, one after the other, until the time is over; exit with 1 unless all ended well."""
    names, end = chosen(parts), time.monotonic() + 60 * minutes
    if commit:
        os.environ[COMMIT] = whole_hash(commit)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    ends: dict[str, str] = {}
    with _folder(scratch) as shared, (out / "log.txt").open("a", encoding="utf-8") as log:
        # The parts share one cache of compiled code.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{shared}/inductor")
        for name in names:
            left = end - time.monotonic()
            if left < LEAST:
                ends[name] = "not begun: the time is over"
                continue
            limit = min(left, LIMITS[name])
            command = [
                sys.executable,
                "-m",
                "benchmarks.speed.gpu_parts",
                name,
                str(out / "rows.jsonl"),
                shared,
            ]
            command += ["--limit", f"{limit:.0f}", "--ways", ways]
            if tiny:
                command.append("--tiny")
            log.write(f"\n== {name}\n")
            log.flush()
            began = time.monotonic()
            ends[name] = run_part(command, limit, log)
            typer.echo(f"{name}: {ends[name]}, {time.monotonic() - began:.0f} s")
    _tables(out)
    if any(ended != "done" for ended in ends.values()):
        raise typer.Exit(1)


@contextmanager
def _folder(kept: Path | None) -> Iterator[str]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield str(kept.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def _tables(out: Path) -> None:
    from benchmarks.speed import records, report

    rows = out / "rows.jsonl"
    if rows.is_file():
        text = report.text(records.load(rows))
        (out / "tables.md").write_text(text + "\n", encoding="utf-8")
        typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
