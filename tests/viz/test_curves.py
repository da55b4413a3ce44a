"""The figure of curves over the steps of a training."""

from __future__ import annotations

import numpy as np
import pytest

from redepth.viz import curve_figure
from redepth.viz.curves import running_mean

VALIDATION = [(0, 9.0), (25, 8.0), (50, 8.5)]
LOSS = [(step, 1.0 + (-1) ** step) for step in range(1, 101)]


def test_each_curve_has_a_panel_and_the_chosen_step_is_marked() -> None:
    figure = curve_figure({"distance": VALIDATION, "loss": LOSS}, marks={"distance": 25})
    distance, loss = figure.axes
    assert [axes.get_title() for axes in (distance, loss)] == ["distance", "loss"]
    line, mark = distance.lines
    assert line.get_xydata().tolist() == [list(point) for point in VALIDATION]
    assert mark.get_xydata().tolist() == [[25, 8]]
    assert [text.get_text() for text in distance.get_legend().get_texts()] == ["step 25"]
    assert len(loss.lines) == 1
    assert loss.get_legend() is None


def test_a_noisy_curve_is_smoothed_and_its_points_stay_faint() -> None:
    (axes,) = curve_figure({"loss": LOSS}, smoothed=["loss"]).axes
    points, mean = axes.lines
    assert points.get_xydata().tolist() == [list(point) for point in LOSS]
    assert points.get_alpha() < 0.5
    values = mean.get_ydata()
    assert len(values) == len(LOSS)
    # Five values of 0 and 2 in turn: 0.8 or 1.2.
    assert abs(values[10:] - 1).max() == pytest.approx(0.2)


def test_the_running_mean_ends_at_each_value_and_leaves_out_what_is_unknown() -> None:
    values = np.array([4.0, 2.0, np.nan, 6.0])
    assert running_mean(values, 2).tolist() == [4, 3, 2, 6]
    assert running_mean(values, 1)[[0, 1, 3]].tolist() == [4, 2, 6]
    assert np.isnan(running_mean(values, 1)[2])


def test_a_mark_at_no_point_is_not_drawn_and_nothing_to_draw_is_an_error() -> None:
    (axes,) = curve_figure({"distance": VALIDATION}, marks={"distance": 7}).axes
    assert len(axes.lines) == 1
    with pytest.raises(ValueError, match="no curves"):
        curve_figure({})


def test_more_curves_than_fit_in_a_row_go_below() -> None:
    figure = curve_figure({str(number): VALIDATION for number in range(4)})
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == 4
    assert len({axes.get_subplotspec().rowspan.start for axes in shown}) == 2
