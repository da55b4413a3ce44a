"""The curves of a run's losses."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redepth.viz.library import import_matplotlib

if TYPE_CHECKING:  # matplotlib takes a while to import
    from matplotlib.figure import Figure

_COLOURS = ("#1f4e79", "#c8702a", "#5b8c5a", "#8a6fa8", "#8c5b5b")
_IN_A_ROW = 3
_PANEL = (3.4, 2.6)
"""Width and height of a panel in inches."""


def loss_figure(losses: Mapping[str, ArrayLike]) -> Figure:
    """Draw a panel for each loss: the mean over the members, and each member as a thin line.

    The figure is no part of pyplot: nothing has to be closed. A notebook shows it as a picture.

    Args:
        losses: name -> (members, steps), NaN after the last step of a member.

    Raises:
        ValueError: there is no loss.
    """
    if not losses:
        raise ValueError("no losses to draw")
    columns = min(len(losses), _IN_A_ROW)
    rows = -(-len(losses) // columns)
    import_matplotlib()
    from matplotlib.figure import Figure

    class LossFigure(Figure):
        def _repr_png_(self) -> bytes:
            """Return the picture for a notebook, which knows figures of pyplot alone."""
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    figure = LossFigure(figsize=(columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for number, (axes, (name, values)) in enumerate(zip(panels, losses.items(), strict=False)):
        _draw(axes, name, np.asarray(values, np.float64), _COLOURS[number % len(_COLOURS)])
    for axes in panels[len(losses) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Any, name: str, values: NDArray[np.float64], colour: str) -> None:
    members, steps = values.shape
    at = np.arange(1, steps + 1)
    # A line through a single point would not be seen.
    marker = "." if steps == 1 else None
    if members > 1:
        for number, row in enumerate(values):
            label = f"each of {members} members" if number == 0 else None
            axes.plot(at, row, color=colour, linewidth=0.6, alpha=0.4, marker=marker, label=label)
    mean = np.nanmean(values, axis=0)
    axes.plot(at, mean, color=colour, linewidth=1.6, marker=marker, label="mean" if members > 1 else None)
    axes.set(title=name, xlabel="step", ylabel="loss")
    axes.title.set_fontsize(10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if members > 1:
        axes.legend(fontsize=7, frameon=False)
