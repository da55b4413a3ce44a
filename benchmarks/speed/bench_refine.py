"""Time a refinement on the CPU: a member's share of a step and its stages, and the whole command.

    python -m benchmarks.speed.bench_refine               # rows go to benchmarks/results
    python -m benchmarks.speed.bench_refine --tiny        # both parts with less work, in seconds

Parts: ``embedded`` (that preset on a photo: members together, one at a time, and the authors' way, in turns)
and ``command`` (the whole of ``redepth refine`` in a new process). `benchmarks.speed.gpu` measures on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer

from benchmarks.speed import report
from benchmarks.speed.records import RESULTS, ROOT, Row, circumstances, result_path, save, timing
from benchmarks.speed.ways import (
    ALONE,
    EMBEDDED,
    PHOTO,
    PLAIN,
    RUNS,
    THEIRS,
    Bench,
    Effort,
    Subject,
    Way,
    dotted,
)
from redepth.runtime.allocator import keep_freed_memory

PARTS = ("embedded", "command")
CPU = torch.device("cpu")

app = typer.Typer(add_completion=False)


def embedded(bench: Bench) -> list[Row]:
    """Time the preset's members together, one at a time, and the authors' way, in turns."""
    together = bench.subject.preset().optim.members
    theirs = Way(THEIRS, 1, dotted(PLAIN), reloads=True)
    return list(bench.in_turns([Way(f"{together} together", together), Way(ALONE, 1), theirs]))


def command(preset: str, tiny: bool) -> Row:
    """Time ``redepth refine PHOTO`` on the CPU, from the start of Python to the last file."""
    took, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            given = ("refine", PHOTO, "--preset", preset, "--device", "cpu", "--out", folder)
            seconds, peak = run_command(*given)
            took.append(seconds * 1e3)
            peaks.append(peak)
        record = json.loads(next(Path(folder).rglob("run.json")).read_text(encoding="utf-8"))
    return Row(
        benchmark="refine",
        case="command",
        implementation=f"redepth refine --preset {preset}",
        **timing(took)._asdict(),
        **circumstances(torch.device("cpu")),
        shape=(record["members_done"], *record["network_size"]),
        lights=record["preset"]["renderer"]["lights"],
        dtype=record["prior"]["dtype"],
        peak_mib=max(peaks),
        extra={"timings": record["timings"]} | ({"tiny": True} if tiny else {}),
    )


def run_command(*arguments: str | Path) -> tuple[float, float]:
    """Run ``redepth ARGUMENTS``; return wall seconds and peak resident memory in MiB.

    Raises:
        RuntimeError: if it fails, with its output.
    """
    call = [sys.executable, "-m", "redepth", *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        start = perf_counter()
        process = subprocess.Popen(call, stdout=output, stderr=output, cwd=ROOT)
        # Unlike `wait`, `wait4` returns the memory of this process alone.
        _, status, usage = os.wait4(process.pid, 0)
        took = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(call)}: {output.read().decode()}")
    return took, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# --- command line ---------------------------------------------------------------------------------


def chosen_parts(only: Sequence[str] | None) -> tuple[str, ...]:
    """Return the parts to measure, all by default."""
    if unknown := set(only or ()) - set(PARTS):
        raise typer.BadParameter(f"no {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    return tuple(only or PARTS)


def chosen_effort(tiny: bool, warmup: int | None, steps: int | None) -> Effort:
    """Return the effort of the options, with defaults that suit a CPU."""
    usual = Effort(1, 2, 1) if tiny else Effort(2, 8, 3)
    return Effort(usual.warmup if warmup is None else warmup, steps or usual.steps, usual.rounds)


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; may be repeated.")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Steps before those that count.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Steps that count.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time to spend on the matrix product.")] = 0.5,
    tiny: Annotated[bool, typer.Option("--tiny", help="Less work, to check that everything runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the rows.")] = None,
) -> None:
    """Measure, store the rows as they come, and print tables and targets."""
    keep_freed_memory()  # as the command does
    parts, rows = chosen_parts(only), []
    path = (out or (Path("out") if tiny else RESULTS)) / result_path(None, "refine", CPU).name
    if "embedded" in parts:
        effort = chosen_effort(tiny, warmup, steps)
        rows += embedded(Bench.of(Subject(EMBEDDED, CPU, tiny=tiny), effort, seconds))
        save(path, rows)
    if "command" in parts:
        rows.append(command("smoke" if tiny else EMBEDDED, tiny))
        save(path, rows)
    typer.echo(report.text(rows))
    typer.echo(f"wrote {path}")


if __name__ == "__main__":
    app()
