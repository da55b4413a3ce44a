"""Turn rows into the tables of docs/performance.md.

    python -m benchmarks.speed.report DIR          # prints all tables of the rows in DIR
    python -m benchmarks.speed.report --page       # writes the tables of stored rows to docs/performance.md

A table on the page is between ``<!-- rows: NAME TABLE -->`` and ``<!-- end -->``: NAME is a file of
benchmarks/results without its ending, TABLE one of `TABLES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.speed.records import RESULTS, ROOT, Row, load
from benchmarks.speed.ways import ALONE, EMBEDDED, THEIRS
from redepth.io import save_text

PAGE = ROOT / "docs" / "performance.md"
PAPER, FAST = "re-depth-anything", "re-depth-fast"

GIGABYTE = 2**20 / 1e9
MOST_GB = 24.0
MOST_SECONDS = {("H200", PAPER): 100.0, ("H100", PAPER): 120.0, ("H200", FAST): 50.0, ("H100", FAST): 50.0}
SPEEDUPS = {(EMBEDDED, ALONE): 1.5, (EMBEDDED, THEIRS): 2.0}
COMMAND_SECONDS, COMMAND_GB = 30.0, 1.5
MOST_KERNELS = 12
GENERIC = {
    *("elementwise_kernel", "vectorized_elementwise_kernel", "unrolled_elementwise_kernel"),
    *("gpu_kernel_impl_nocast", "gpu_kernel_impl", "binary_internal", "func_wrapper_t"),
}
"""Words in the names of many torch kernels."""
OUTCOMES = ("passed", "failed", "skipped")
SHADING_SHAPE = (16, 1024, 1024)
SHADING_FRACTION, SHADING_SPEEDUPS = 0.8, {"eager": 8.0, "compile": 1.3}


# --- tables ---------------------------------------------------------------------------------------


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; empty without rows."""
    if not rows:
        return ""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def on_steps(rows: Sequence[Row]) -> list[Row]:
    """Return the rows on member-steps."""
    return [row for row in rows if row.of_steps is not None]


def steps_table(rows: Sequence[Row]) -> str:
    """The time of a member-step in each way, and of the whole run by extrapolation."""
    columns = ("preset, way", "dtype", "ms", "p20 to p80", "of floor", "all members and steps", "warm-up")
    lines = []
    for row in on_steps(rows):
        own = row.of_steps
        assert own is not None
        spread = f"{row.p20_ms:.4g} to {row.p80_ms:.4g}"
        whole = f"{own.extrapolated_s:.0f} s"
        lines.append(
            [
                f"{own.preset}, {row.implementation}",
                row.dtype,
                f"{row.median_ms:.4g}",
                spread,
                f"{own.times_floor:.2f} x",
                whole,
                f"{own.warmup_s:.1f} s",
                _memory(row),
                _error(row),
            ]
        )
    return grid((*columns, "peak used / held", "error of the gradient"), lines)


def _memory(row: Row) -> str:
    if not row.peak_mib:
        return ""
    return f"{_gigabytes(row):.1f} / {_held(row):.1f} GB"


def _error(row: Row) -> str:
    error = row.extra.get("gradient_error")
    return f"{error:.1e}" if error is not None else ""


def stages_table(rows: Sequence[Row]) -> str:
    """The time of each stage of a member-step."""
    ways = [(row.implementation, row.of_steps.stages_ms) for row in rows if row.of_steps is not None]
    timed = [(name, stages) for name, stages in ways if stages]
    if not timed:
        return ""
    all_stages = dict.fromkeys(stage for _, stages in timed for stage in stages)
    lines = [[stage, *(f"{stages.get(stage, 0.0):.3g}" for _, stages in timed)] for stage in all_stages]
    return grid(("stage, ms a member-step", *(name for name, _ in timed)), lines)


def rates_table(rows: Sequence[Row]) -> str:
    """The rates of the device: copies and matrix products."""
    lines = [
        [f"{row.case}, {row.implementation}", f"{row.extra['rate']:.4g} {row.extra['unit']}"]
        for row in rows
        if row.benchmark == "rates"
    ]
    return grid(("what", "rate"), lines)


def shading_table(rows: Sequence[Row]) -> str:
    """The re-lighting kernel against its torch twin, eager and compiled."""
    lines = []
    for row in rows:
        if row.benchmark != "shading":
            continue
        gains = [f"{over} {gain:.1f} x" for over in SHADING_SPEEDUPS if (gain := speedup(row, rows, over))]
        lines.append(
            [
                " x ".join(map(str, row.shape)),
                str(row.lights),
                row.case,
                row.implementation,
                f"{row.median_ms:.4g}",
                f"{row.fraction_of_copy or 0:.0%}",
                ", ".join(gain for gain in gains if row.implementation == "triton"),
            ]
        )
    headings = ("size", "lights", "case", "implementation", "ms", "of copy bandwidth", "faster than")
    return grid(headings, lines)


def parts_table(rows: Sequence[Row]) -> str:
    """One part of a network in several forms: decoders of all members, normalisations."""
    lines = [
        [
            *(row.benchmark, row.case, row.implementation, " x ".join(map(str, row.shape)), row.dtype),
            f"{row.median_ms:.4g}",
            f"{row.fraction_of_copy:.0%}" if row.fraction_of_copy else "",
        ]
        for row in rows
        if row.benchmark in ("decoders", "group-norm")
    ]
    return grid(("part", "case", "form", "size", "dtype", "ms", "of copy bandwidth"), lines)


def tests_table(rows: Sequence[Row]) -> str:
    """The outcomes of the GPU tests."""
    lines = [
        [
            row.implementation,
            *(str(len(row.extra[k])) if k == "failed" else str(row.extra[k]) for k in OUTCOMES),
            f"{row.median_ms / 1e3:.0f} s",
        ]
        for row in rows
        if row.benchmark == "tests"
    ]
    return grid(("tests", "passed", "failed", "skipped", "time"), lines)


def short(name: str) -> str:
    """Return the readable part of a kernel's name, which torch's elementwise kernels have deep inside."""
    inner = re.findall(r"at::native::(?:\(anonymous namespace\)::)?(\w+)", name)
    own = [part for part in inner if part not in GENERIC]
    if not own:
        return name[:70]
    dtype = re.search(r"c10::\w+|\bfloat\b", name[name.rindex(own[-1]) :])
    return f"{own[-1]}, {dtype[0]}" if dtype else own[-1]


def kernels_table(rows: Sequence[Row]) -> str:
    """The kernels that take most of the time of a step."""
    lines = []
    for row in rows:
        for kernel in row.extra["kernels"][:MOST_KERNELS] if row.benchmark == "kernels" else ():
            share = kernel["ms"] / row.median_ms
            name = f"`{short(kernel['name'])}`"
            lines.append(
                [row.implementation, name, f"{kernel['calls']:g}", f"{kernel['ms']:.3g}", f"{share:.1%}"]
            )
    return grid(("way", "kernel", "calls a step", "ms a step", "share"), lines)


def commands_table(rows: Sequence[Row]) -> str:
    """Whole commands: wall time and memory."""
    lines = [
        [
            f"`{row.implementation}`",
            f"{row.median_ms / 1e3:.3g} s",
            f"{_gigabytes(row):.2f} GB",
        ]
        for row in rows
        if row.case == "command"
    ]
    return grid(("command", "wall time", "peak memory"), lines)


def runs_table(rows: Sequence[Row]) -> str:
    """Runs of a command: loading and steps."""
    lines = [
        [
            row.case,
            f"{row.median_ms / 1e3:.0f} s",
            f"{row.extra['timings']['load_seconds']:.0f} s",
            f"{row.extra['timings']['optimise_seconds']:.0f} s",
            f"{_gigabytes(row):.1f} GB",
        ]
        for row in rows
        if row.benchmark == "real-size"
    ]
    return grid(("run", "wall time", "loading, download included", "steps", "peak memory"), lines)


def memory_table(rows: Sequence[Row]) -> str:
    """Peak memory by the photo's size."""
    lines = [
        [
            f"{row.shape[0]} x {row.shape[1]}",
            f"{row.shape[0] * row.shape[1] / 1e6:.0f}",
            f"{_gigabytes(row):.2f} GB",
            f"{row.extra['bytes_written'] / 1e6:.0f} MB",
        ]
        for row in rows
        if (row.benchmark, row.case) == ("memory", "size")
    ]
    return grid(("photo", "megapixels", "peak memory", "files written"), lines)


def growth_table(rows: Sequence[Row]) -> str:
    """Resident memory of one process while it refines many photos."""
    lines = [
        [
            f"{(number + 1) * row.extra['photos'] // len(row.extra['resident_mib'])}",
            f"{mib * 2**20 / 1e6:.0f} MB",
        ]
        for row in rows
        if (row.benchmark, row.case) == ("memory", "growth")
        for number, mib in enumerate(row.extra["resident_mib"])
    ]
    return grid(("photos done", "resident memory"), lines)


def targets_list(rows: Sequence[Row]) -> str:
    """The targets that were measured, and whether they hold."""
    return "\n".join(f"- {'holds' if holds else '**missed**'}: {what}" for what, holds in targets(rows))


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "rates": rates_table,
    "tests": tests_table,
    "steps": steps_table,
    "stages": stages_table,
    "shading": shading_table,
    "parts": parts_table,
    "kernels": kernels_table,
    "commands": commands_table,
    "runs": runs_table,
    "memory": memory_table,
    "growth": growth_table,
    "targets": targets_list,
}


def speedup(row: Row, rows: Sequence[Row], over: str) -> float | None:
    """Return the speed of a row relative to another implementation of the same case."""
    for other in rows:
        same = (other.benchmark, other.case, other.shape, other.lights)
        if other.implementation == over and same == (row.benchmark, row.case, row.shape, row.lights):
            return other.median_ms / row.median_ms
    return None


# --- targets --------------------------------------------------------------------------------------


def targets(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    """Yield each target that was measured at its real size and whether it holds."""
    real = [row for row in rows if not row.extra.get("tiny")]
    for row in real:
        if row.case == "command":
            yield _at_most(row.implementation, row.median_ms / 1e3, COMMAND_SECONDS, "s")
            yield _at_most(row.implementation, _gigabytes(row), COMMAND_GB, "GB")
        if row.implementation.startswith("within ") and row.peak_mib:
            limit = float(re.sub(r"\D", "", row.implementation))
            yield _at_most(row.implementation, _held(row), limit, "GB")
        if row.benchmark == "shading" and (row.shape, row.lights) == (SHADING_SHAPE, 1):
            yield from _shading_targets(row, real)
    for preset in dict.fromkeys(row.of_steps.preset for row in on_steps(real) if row.of_steps):
        yield from _step_targets(
            preset, [r for r in on_steps(real) if r.of_steps and r.of_steps.preset == preset]
        )


def _step_targets(preset: str, rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    fitting = [row for row in rows if _held(row) <= MOST_GB and row.dtype != "float32"]
    best = min(fitting or rows, key=lambda row: row.median_ms)
    assert best.of_steps is not None
    what = f"{preset}, {best.implementation}"
    for (device, name), most in MOST_SECONDS.items():
        if device in best.device and name == preset:
            yield _at_most(f"{what}, extrapolated", best.of_steps.extrapolated_s, most, "s")
    for (name, over), least in SPEEDUPS.items():
        for other in rows:
            if name == preset and other.implementation == over:
                gain = other.median_ms / best.median_ms
                yield f"{what}: {gain:.2f} times {over} (at least {least:g})", gain >= least


def _shading_targets(row: Row, rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    if row.implementation != "triton":
        return
    size, reached = "x".join(map(str, row.shape)), row.fraction_of_copy or 0.0
    text = f"{row.case} at {size}: {reached:.0%} of copy bandwidth (at least {SHADING_FRACTION:.0%})"
    yield text, reached >= SHADING_FRACTION
    for over, least in SHADING_SPEEDUPS.items():
        gain = speedup(row, rows, over)
        if gain is not None:
            yield f"{row.case} at {size}: {gain:.1f} times {over} (at least {least:g})", gain >= least


def _held(row: Row) -> float:
    """Return the peak GB that torch reserved, including unused memory, which no other process can use."""
    return float(row.extra.get("reserved_mib") or row.peak_mib or 0.0) * GIGABYTE


def _gigabytes(row: Row) -> float:
    return (row.peak_mib or 0.0) * GIGABYTE


def _at_most(what: str, found: float, most: float, unit: str) -> tuple[str, bool]:
    return f"{what}: {found:.3g} {unit} (at most {most:g})", found <= most


# --- pages ----------------------------------------------------------------------------------------


def text(rows: Sequence[Row]) -> str:
    """Return all tables of the rows, and the targets."""
    parts = [found for table in TABLES.values() if (found := table(rows))]
    if not list(targets(rows)):
        parts.append("No target was measured: they are for real sizes.")
    return "\n\n".join(parts)


def rows_of(name: str) -> list[Row]:
    """Return stored rows by the name of their file."""
    found = [path for path in (RESULTS / f"{name}.jsonl", RESULTS / f"{name}.json") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"benchmarks/results has no rows named '{name}'")
    return load(found[0])


def with_tables(page: str) -> str:
    """Put each table between its marks."""

    def filled(mark: re.Match[str]) -> str:
        return f"<!-- rows: {mark[1]} {mark[2]} -->\n\n{TABLES[mark[2]](rows_of(mark[1]))}\n\n<!-- end -->"

    return re.sub(r"<!-- rows: (\S+) (\S+) -->.*?<!-- end -->", filled, page, flags=re.DOTALL)


def main(
    folder: Annotated[Path | None, typer.Argument(help="Folder of rows.jsonl.")] = None,
    page: Annotated[bool, typer.Option("--page", help="Write docs/performance.md's tables.")] = False,
) -> None:
    """Print the tables of a run, or write those of the stored rows into the page."""
    if page:
        save_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    if folder is not None:
        typer.echo(text(load(folder / "rows.jsonl")))
    if not page and folder is None:
        raise typer.BadParameter("give a folder, or --page")


if __name__ == "__main__":
    typer.run(main)
