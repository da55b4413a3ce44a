"""Draw the rows of a benchmark as bars.

    python -m benchmarks.speed.plot benchmarks/results/shading-nvidia-h200.json

There is one panel per size and number of lights. A bar is the median, its whisker the 20th to 80th
percentile. If the memory floor is known, a line shows the time of a copy of the same bytes. Rows of the
refinement have one panel per preset and one bar per way, divided into stages if they are known; the line is
the floor of the counted operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from benchmarks.speed.records import Row, load

WIDTH = 0.8
"""Width of a group of bars, in units of the distance between groups."""


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by size and lights, in the order of the file."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        size = "x".join(map(str, row.shape))
        lights = "1 light" if row.lights == 1 else f"{row.lights} lights"
        grouped.setdefault(f"{size}, {lights}", []).append(row)
    return grouped


def labels(rows: Sequence[Row]) -> list[str]:
    """Name each row's bar; a sweep has several rows of one implementation."""
    settings = (" ".join(f"{k} {v}" for k, v in row.extra.items() if k != "peak_mib") for row in rows)
    return [f"{row.implementation} {setting}".strip() for row, setting in zip(rows, settings, strict=True)]


def draw_panel(axes: Any, rows: Sequence[Row]) -> None:
    """Draw the bars of one size, one group per case."""
    cases = list(dict.fromkeys(row.case for row in rows))
    names = list(dict.fromkeys(labels(rows)))
    width = WIDTH / len(names)
    for number, name in enumerate(names):
        mine = [row for row, label in zip(rows, labels(rows), strict=True) if label == name]
        x = [cases.index(row.case) - WIDTH / 2 + (number + 0.5) * width for row in mine]
        heights = [row.median_ms for row in mine]
        whiskers = [[r.median_ms - r.p20_ms for r in mine], [r.p80_ms - r.median_ms for r in mine]]
        bars = axes.bar(x, heights, 0.9 * width, yerr=whiskers, label=name, capsize=2)
        if len(names) <= 4:
            axes.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=7, padding=2)
    for row in rows:
        if row.bytes_floor and row.copy_gb_s:
            floor = row.bytes_floor / row.copy_gb_s / 1e6
            middle = cases.index(row.case)
            axes.hlines(floor, middle - WIDTH / 2, middle + WIDTH / 2, colors="black", linestyles="dotted")
    axes.set_xticks(range(len(cases)), cases)
    axes.set_yscale("log")
    axes.set_ylabel("ms")


def draw_steps(axes: Any, rows: Sequence[Row]) -> None:
    """Draw a preset's ways: stacked stages, the time of the whole step, and the floor as a line."""
    ways = [row.implementation for row in rows]
    own = [row.of_steps for row in rows if row.of_steps]
    bottoms = [0.0] * len(rows)
    for number, stage in enumerate(dict.fromkeys(name for steps in own for name in steps.stages_ms)):
        heights = [steps.stages_ms.get(stage, 0.0) for steps in own]
        axes.bar(ways, heights, WIDTH, bottom=bottoms, label=stage, color=f"C{number}")
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    # Stages are measured in a separate run: the whole step was timed without their marks.
    medians = [row.median_ms for row in rows]
    whiskers = [[r.median_ms - r.p20_ms for r in rows], [r.p80_ms - r.median_ms for r in rows]]
    axes.errorbar(ways, medians, yerr=whiskers, fmt="ko", markersize=4, capsize=3, label="whole step")
    for place in enumerate(medians):
        axes.annotate(f"{place[1]:.3g}", place, (6, 4), textcoords="offset points", fontsize=7)
    axes.axhline(own[0].floor_ms, color="black", linestyle="dotted")
    axes.tick_params(axis="x", labelsize=7, rotation=30)
    axes.margins(x=0.1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms a member-step")


def draw_refinement(rows: Sequence[Row]) -> Figure:
    """Draw a panel for each preset, and for each sweep of options."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        if row.of_steps is not None:
            title = row.of_steps.preset
            if row.benchmark != "refine":
                title += ", options"
            grouped.setdefault(title, []).append(row)
    figure = Figure(figsize=(max(7.0, 4.2 * len(grouped)), 4.8), layout="constrained")
    entries: dict[str, Any] = {}
    for axes, (title, own) in zip(
        figure.subplots(1, len(grouped), squeeze=False)[0], grouped.items(), strict=True
    ):
        draw_steps(axes, own)
        axes.set_title(title, fontsize=9)
        handles, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), fontsize=7, loc="outside lower center", ncols=6)
    figure.suptitle(f"{_headline(rows[0])}; dotted: floor of the counted operations", fontsize=9)
    return figure


def _headline(row: Row) -> str:
    return f"{row.benchmark} on {row.device}, {row.dtype}, commit {row.commit[:7]}"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw all panels."""
    if rows[0].benchmark == "refine":
        return draw_refinement(rows)
    grouped = panels(rows)
    figure = Figure(figsize=(3.2 * len(grouped) + 1, 3.6), layout="constrained")
    for axes, (title, members) in zip(
        figure.subplots(1, len(grouped), squeeze=False)[0], grouped.items(), strict=True
    ):
        draw_panel(axes, members)
        axes.set_title(title, fontsize=9)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=7, loc="outside lower center", ncols=4)
    figure.suptitle(f"{_headline(rows[0])}; dotted: memory floor", fontsize=9)
    return figure


def main(
    rows: Annotated[Path, typer.Argument(help="JSON file of a benchmark.")],
    out: Annotated[Path | None, typer.Argument(help="PNG file; by default beside the JSON.")] = None,
) -> None:
    """Draw a benchmark's rows to a PNG."""
    draw(load(rows)).savefig(out or rows.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    typer.run(main)
