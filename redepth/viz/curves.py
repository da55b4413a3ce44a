"""Curves of numbers over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redepth.viz.library import import_matplotlib

if TYPE_CHECKING:  # matplotlib takes a while to import
    from matplotlib.figure import Figure

_PANEL = (4.2, 2.8)
"""Width and height of a panel in inches."""
_IN_A_ROW = 3
_COLOUR, _MARK = "#1f4e79", "#c8702a"
_SMOOTHED = 0.05
"""Share of the steps over which a smoothed curve is averaged."""


def curve_figure(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    *,
    marks: Mapping[str, int] | None = None,
    smoothed: Sequence[str] = (),
) -> Figure:
    """Draw a panel for each curve. The figure is no part of pyplot: nothing has to be closed.

    Args:
        curves: title -> step and value of each point, in the order of the steps.
        marks: title -> a step at which the curve is marked.
        smoothed: titles of noisy curves: the running mean is drawn, and the points themselves faintly.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("no curves to draw")
    columns = min(len(curves), _IN_A_ROW)
    rows = -(-len(curves) // columns)
    import_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, points) in zip(panels, curves.items(), strict=False):
        _draw(axes, title, np.asarray(points, np.float64).reshape(-1, 2), title in smoothed)
        _mark(axes, points, (marks or {}).get(title))
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Any, title: str, points: NDArray[np.float64], smoothed: bool) -> None:
    steps, values = points.T
    if smoothed:
        axes.plot(steps, values, color=_COLOUR, linewidth=0.6, alpha=0.35)
        values = running_mean(values, max(1, round(_SMOOTHED * len(values))))
    # A line through a single point would not be seen.
    marker = None if smoothed and len(steps) > 1 else "."
    axes.plot(steps, values, color=_COLOUR, linewidth=1.6, marker=marker)
    axes.set(title=title, xlabel="step")
    axes.title.set_fontsize(10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: Any, points: Sequence[tuple[int, float]], step: int | None) -> None:
    values = [value for at, value in points if at == step]
    if step is not None and values:
        axes.plot([step], values[:1], "o", color=_MARK, markersize=7, label=f"step {step}")
        axes.legend(fontsize=8, frameon=False)


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean over up to ``width`` values that end at each one, which leaves out NaN."""
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(v)]) for v in (np.where(known, values, 0.0), known))
    start = np.maximum(np.arange(len(values)) + 1 - width, 0)
    end = np.arange(1, len(values) + 1)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = (sums[end] - sums[start]) / (counts[end] - counts[start])
    return mean
