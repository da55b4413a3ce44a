"""The figure of the losses."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redepth.viz import loss_figure

LOSSES = {
    "prior": np.array([[3.0, 2.0, 1.0], [5.0, 4.0, np.nan]]),
    "smoothness": np.array([[0.3, 0.2, 0.1], [0.5, 0.4, np.nan]]),
    "total": np.array([[3.3, 2.2, 1.1], [5.5, 4.4, np.nan]]),
}


def lines(axes: Any) -> list[list[float]]:
    return [[float(value) for value in line.get_ydata()] for line in axes.lines]


def test_each_loss_has_a_panel_with_its_members_and_their_mean() -> None:
    figure = loss_figure(LOSSES)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == list(LOSSES)
    assert all((axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss") for axes in panels)
    first, second, mean = panels[0].lines
    assert list(first.get_xdata()) == [1, 2, 3]
    assert lines(panels[0])[0] == [3, 2, 1]
    assert lines(panels[0])[1][:2] == [5, 4]
    assert list(mean.get_ydata()) == [4, 3, 1]
    assert first.get_linewidth() == second.get_linewidth() < mean.get_linewidth()


def test_a_member_alone_is_one_line_and_a_step_alone_is_seen() -> None:
    (axes,) = loss_figure({"total": [[2.0]]}).axes
    (line,) = axes.lines
    assert line.get_marker() == "."
    assert axes.get_legend() is None


def test_more_losses_than_fit_in_a_row_go_below() -> None:
    figure = loss_figure({str(number): [[1.0, 2.0]] for number in range(4)})
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == 4
    assert len({axes.get_subplotspec().rowspan.start for axes in shown}) == 2


def test_the_figure_is_no_part_of_pyplot_and_a_notebook_shows_it() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    figure: Any = loss_figure(LOSSES)
    assert pyplot.get_fignums() == before
    assert Image.open(io.BytesIO(figure._repr_png_())).width > 600


def test_no_loss_is_an_error() -> None:
    with pytest.raises(ValueError, match="no losses"):
        loss_figure({})
