"""The figure of an experiment: relative change of SI-log with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redepth import io
from redepth.experiments.grids import FACTORS, Plot, preset_values
from redepth.experiments.study import Study
from redepth.experiments.summary import Cell
from redepth.viz.library import import_matplotlib

if TYPE_CHECKING:  # matplotlib takes a while to import
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Width of every figure in inches; at `DPI` it stays sharp at 700 pixels."""

DPI = 200
CHANGE = "change of SI-log, % (below 0 is better)"
SERIES = ("#1f4e79", "#c8702a", "#5b8c5a", "#8a6fa8")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "errorbar.capsize": 2.5,
    "legend.frameon": False,
}


def draw(study: Study, cells: Sequence[Cell], path: Path) -> None:
    """Draw the figure of an experiment to a PNG; nothing if no cell has a change."""
    shown = [cell for cell in cells if not math.isnan(cell.change.change)]
    if not shown:
        return
    with import_matplotlib().rc_context(_STYLE):
        figure = PLOTS[study.grid.plot](study, shown)
        with io.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _whiskers(cells: Sequence[Cell]) -> list[list[float]]:
    """Return the lengths of the intervals below and above the changes; rounding may make an empty one < 0."""
    below = [max(0.0, c.change.change - c.change.low) for c in cells]
    above = [max(0.0, c.change.high - c.change.change) for c in cells]
    return [below, above]


def _points(axes: Any, at: Sequence[float], cells: Sequence[Cell], *, upright: bool, **style: Any) -> None:
    """Draw changes with their intervals; ``at`` are their positions along the other axis."""
    style = {"fmt": "o", "markersize": 4.5, "elinewidth": 1.4} | style
    changes = [c.change.change for c in cells]
    if upright:
        axes.errorbar(at, changes, yerr=_whiskers(cells), **style)
    else:
        axes.errorbar(changes, at, xerr=_whiskers(cells), **style)


def _rows(
    study: Study, cells: Sequence[Cell], row: Callable[[Cell], str], series: Callable[[Cell], str]
) -> Figure:
    """Draw a row for each arm or split, and in it a point for each series."""
    shown = _shown(cells, row, series)
    figure = _figure(0.8 + 0.17 * len(shown) + 0.17 * sum(map(len, shown.values())))
    axes: Any = figure.subplots()
    kinds = _draw_rows(axes, cells, row, series)
    if kinds > 1:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    _caption(study, cells, axes)
    return figure


def _shown(
    cells: Sequence[Cell], row: Callable[[Cell], str], series: Callable[[Cell], str]
) -> dict[str, list[str]]:
    """Return the series that each row has."""
    shown: dict[str, list[str]] = {name: [] for name in dict.fromkeys(map(row, cells))}
    for kind in dict.fromkeys(map(series, cells)):
        for name in dict.fromkeys(row(cell) for cell in cells if series(cell) == kind):
            shown[name].append(kind)
    return shown


def _draw_rows(
    axes: Any, cells: Sequence[Cell], row: Callable[[Cell], str], series: Callable[[Cell], str]
) -> int:
    """Draw the rows of `_rows` into axes; return the number of series."""
    shown, kinds = _shown(cells, row, series), list(dict.fromkeys(map(series, cells)))
    rows = list(shown)
    axes.axvline(0, color="#888888", linewidth=0.8)
    for number, kind in enumerate(kinds):
        mine = [cell for cell in cells if series(cell) == kind]
        at = [rows.index(row(c)) + _beside(shown[row(c)], kind) for c in mine]
        _points(axes, at, mine, upright=False, color=_color(number), label=kind)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(CHANGE)
    return len(kinds)


def _beside(kinds: Sequence[str], kind: str) -> float:
    """Return the offset of a point from the middle of its place: no point hides another."""
    return 0.5 * ((kinds.index(kind) + 0.5) / len(kinds) - 0.5)


def _arms(study: Study, cells: Sequence[Cell]) -> Figure:
    return _rows(study, cells, lambda c: c.arm, lambda c: c.scenes)


def _scenes(study: Study, cells: Sequence[Cell]) -> Figure:
    one_arm = len({cell.arm for cell in cells}) == 1

    def series(cell: Cell) -> str:
        strength = "no shift to scale" if cell.strength is None else f"strength {cell.strength:g}"
        return strength if one_arm else f"{cell.arm}, {strength}"

    return _rows(study, cells, lambda c: c.split, series)


def _members(study: Study, cells: Sequence[Cell]) -> Figure:
    """Draw the change over N, with the interval over images and the spread over draws."""
    figure = _figure(3.2)
    axes: Any = figure.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8)
    sizes = sorted({_size(cell) for cell in cells})
    for number, scenes in enumerate(dict.fromkeys(cell.scenes for cell in cells)):
        mine = [cell for cell in cells if cell.scenes == scenes]
        at = [sizes.index(_size(cell)) + 0.12 * number for cell in mine]
        color = _color(number)
        _points(axes, at, mine, upright=True, color=color, label=f"{scenes}: 95 % over images")
        axes.plot(at, [c.change.change for c in mine], color=color, linewidth=0.8, alpha=0.6)
        drawn = [(x, c) for x, c in zip(at, mine, strict=True) if c.spread is not None]
        axes.errorbar(
            [x for x, _ in drawn],
            [c.change.change for _, c in drawn],
            yerr=[c.spread for _, c in drawn],
            fmt="none",
            elinewidth=6,
            capsize=0,
            alpha=0.35,
            color=color,
            label="standard deviation over draws" if number == 0 else None,
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("members N")
    axes.set_ylabel("change of SI-log, %")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    _caption(study, cells, axes)
    return figure


def _size(cell: Cell) -> int:
    """``N = 5`` -> 5."""
    return int(cell.arm.rpartition(" ")[2])


def _factors(study: Study, cells: Sequence[Cell]) -> Figure:
    """Draw a panel for each factor: the change at each of its values, with time and memory below."""
    varied = {study.arms[c.arm].factor for c in cells}
    factors = [factor for factor in FACTORS if factor in varied]
    columns = 3
    rows = max(1, math.ceil(len(factors) / columns))
    figure = _figure(2.2 * rows + 0.3)
    panels: Any = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes in panels[len(factors) :]:
        axes.set_visible(False)
    for axes, factor in zip(panels, factors, strict=False):
        _factor(axes, study, cells, factor)
    for axes in panels[::columns]:
        axes.set_ylabel("change of SI-log, %", fontsize=8)
    if len({cell.scenes for cell in cells}) > 1:
        panels[0].legend(loc="best", fontsize=7)
    _caption(study, cells, panels[0], figure, "; diamond: the preset; below: time and peak memory")
    return figure


def _factor(axes: Any, study: Study, cells: Sequence[Cell], factor: str) -> None:
    """Draw one panel: a point for each value and set of scenes, a diamond for the preset's own value."""
    values = {name: preset_values(arm.preset, factor) for name, arm in study.arms.items()}
    reference, sets = study.grid.reference, list(dict.fromkeys(cell.scenes for cell in cells))
    mine = [c for c in cells if study.arms[c.arm].factor == factor or c.arm == reference]
    places = sorted({values[c.arm] for c in mine})
    axes.axhline(0, color="#888888", linewidth=0.8)
    for number, scenes in enumerate(sets):
        of_set = [c for c in mine if c.scenes == scenes]
        varied = [c for c in of_set if c.arm != reference]
        unchanged = [c for c in of_set if c.arm == reference]
        for shown, marker, label in ((varied, "o", scenes), (unchanged, "D", None)):
            at = [places.index(values[c.arm]) + 0.5 * _beside(sets, scenes) for c in shown]
            _points(axes, at, shown, upright=True, fmt=marker, color=_color(number), label=label)
    prices = {values[c.arm]: _price(c) for c in reversed(mine)}
    labels = [f"{_short(value)}\n{prices[value]}" for value in places]
    axes.set_xticks(range(len(places)), labels, fontsize=7 if len(places) < 5 else 6)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_title(factor, fontsize=9)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("-", "-\n")


def _price(cell: Cell) -> str:
    memory = "" if cell.memory_mib is None else f"\n{cell.memory_mib / 1024:.2g} GiB"
    return f"{cell.seconds:.1f} s{memory}"


def _color(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _caption(study: Study, cells: Sequence[Cell], axes: Any, figure: Any = None, more: str = "") -> None:
    """Write what was measured above the axes, or above the figure if it is given."""
    counts = sorted({cell.images for cell in cells})
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sets = list(dict.fromkeys(cell.scenes for cell in cells))
    scenes = f"{images} images" + (f" of {sets[0]}" if len(sets) == 1 else " a set")
    text = f"{study.experiment}, preset {study.base.name}: {scenes}, 95 % intervals{more}"
    if figure is None:
        axes.set_title(text, fontsize=8, color="#555555")
    else:
        figure.suptitle(text, fontsize=8, color="#555555")


def _points_axis(study: Study, cells: Sequence[Cell]) -> Figure:
    """Draw SI-log and AbsRel over the number of known points: the initial depth dashed, the refined solid."""
    figure = _figure(3.0)
    panels: Any = figure.subplots(1, 2)
    counts = list(dict.fromkeys(study.arms[c.arm].points or 0 for c in cells))
    sides = {"SI-log": ("before", "after"), "AbsRel": ("abs_rel_before", "abs_rel_after")}
    for axes, (title, (before, after)) in zip(panels, sides.items(), strict=True):
        for number, scenes in enumerate(dict.fromkeys(cell.scenes for cell in cells)):
            mine = [cell for cell in cells if cell.scenes == scenes]
            at = [counts.index(study.arms[c.arm].points or 0) for c in mine]
            for side, style, what in ((before, "o--", "initial"), (after, "o-", "refined")):
                values = [getattr(cell, side) for cell in mine]
                label = f"{scenes}, {what}" if title == "SI-log" else None
                axes.plot(at, values, style, color=_color(number), markersize=4, label=label)
        axes.set_xticks(range(len(counts)), [str(count) if count else "0:\ntruth" for count in counts])
        axes.set_xlabel("known points that align and guide")
        axes.set_ylabel(title)
        axes.set_yscale("log")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    _caption(study, cells, panels[0], figure)
    return figure


def _photos(study: Study, cells: Sequence[Cell]) -> Figure:
    """Draw the change over the number of photos without labels, and every arm with what it does elsewhere."""
    own = [cell for cell in cells if cell.split != study.grid.besides]
    arms = len({cell.arm for cell in own})
    figure = _figure(3.2 + 0.4 * arms)
    grid = figure.add_gridspec(2, 2, height_ratios=(2.4, 0.6 + 0.4 * arms), width_ratios=(1.6, 1))
    top: Any = figure.add_subplot(grid[0, :])
    _draw_photos(top, study, own)
    top.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    left: Any = figure.add_subplot(grid[1, 0])
    _draw_rows(left, own, lambda c: c.arm, lambda c: c.scenes)
    left.set_xlabel("change of SI-log, % (scenes of that kind)", fontsize=8)
    elsewhere = [replace(cell, change=cell.besides) for cell in own if cell.besides is not None]
    if elsewhere:
        right: Any = figure.add_subplot(grid[1, 1], sharey=left)
        _draw_elsewhere(right, own, elsewhere)
        right.set_xlabel(f"change on {study.grid.besides}, %", fontsize=8)
    _caption(study, cells, top)
    return figure


def _draw_photos(axes: Any, study: Study, cells: Sequence[Cell]) -> None:
    """Draw the change over the number of photos, with the reference as a dashed line and its interval."""
    counts = {
        run.label: run.adapt.photos for run in study.arms.values() if run.factor == "photos" and run.adapt
    }
    axes.axhline(0, color="#888888", linewidth=0.8)
    for number, scenes in enumerate(dict.fromkeys(cell.scenes for cell in cells)):
        varied = [cell for cell in cells if cell.scenes == scenes and cell.arm in counts]
        varied.sort(key=lambda cell: counts[cell.arm])
        if varied:
            at = [math.log2(counts[cell.arm]) + 0.05 * number for cell in varied]
            _points(
                axes, at, varied, upright=True, fmt="o-", color=_color(number), label=f"{scenes}, adapted"
            )
        for cell in (c for c in cells if (c.arm, c.scenes) == (study.grid.reference, scenes)):
            style = {"color": _color(number), "linewidth": 1.0, "linestyle": "--"}
            axes.axhline(cell.change.change, label=f"{scenes}, {cell.arm}", **style)
            axes.axhspan(cell.change.low, cell.change.high, color=_color(number), alpha=0.1, linewidth=0)
    shown = sorted({counts[cell.arm] for cell in cells if cell.arm in counts})
    axes.set_xticks([math.log2(count) for count in shown], [str(count) for count in shown])
    axes.set_xlabel("photos without labels")
    axes.set_ylabel("change of SI-log, %")


def _draw_elsewhere(axes: Any, rows: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Draw the changes of cells, at the places and in the colours that `_draw_rows` gives to rows."""
    shown = _shown(rows, lambda c: c.arm, lambda c: c.scenes)
    kinds = list(dict.fromkeys(cell.scenes for cell in rows))
    axes.axvline(0, color="#888888", linewidth=0.8)
    for number, kind in enumerate(kinds):
        mine = [cell for cell in cells if cell.scenes == kind]
        at = [list(shown).index(c.arm) + _beside(shown[c.arm], kind) for c in mine]
        _points(axes, at, mine, upright=False, color=_color(number))
    axes.tick_params(axis="y", length=0, labelleft=False)


PLOTS: Mapping[Plot, Callable[[Study, Sequence[Cell]], Figure]] = {
    "arms": _arms,
    "scenes": _scenes,
    "members": _members,
    "factors": _factors,
    "points": _points_axis,
    "photos": _photos,
}
