"""Depth edges: which match, and which do not count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import boundary_metrics, has_edges
from tests.support.metrics import SEEDS, close, depths, few


def step_at(column: int, width: int = 20, height: int = 6, ratio: float = 1.5) -> Tensor:
    depth = torch.ones(height, width, dtype=torch.float64)
    depth[:, column:] = ratio
    return depth


def scores(p: Tensor, t: Tensor, **options: Any) -> tuple[float, float, float]:
    metrics = boundary_metrics(p, t, **options)
    return tuple(float(metrics[f"boundary_{name}"]) for name in ("precision", "recall", "f1"))


def test_an_edge_counts_within_the_tolerance_only() -> None:
    truth = step_at(10)
    assert scores(truth, truth) == (1.0, 1.0, 1.0)
    assert scores(step_at(11), truth) == (1.0, 1.0, 1.0)
    assert scores(step_at(9), truth, tolerance=0) == (0.0, 0.0, 0.0)
    assert scores(step_at(12), truth) == (0.0, 0.0, 0.0)
    assert scores(step_at(12), truth, tolerance=2) == (1.0, 1.0, 1.0)
    assert scores(step_at(10).T, truth.T) == (1.0, 1.0, 1.0)


def test_an_edge_in_the_wrong_direction_is_none() -> None:
    assert scores(1 / step_at(10), step_at(10)) == (0.0, 0.0, 0.0)
    assert scores(step_at(5, 10, 10).T, step_at(5, 10, 10)) == (0.0, 0.0, 0.0)


def test_false_and_missed_edges() -> None:
    truth = step_at(5) * step_at(15)
    precision, recall, f1 = scores(step_at(5), truth)
    assert (precision, recall, f1) == pytest.approx((1.0, 0.5, 2 / 3))
    precision, recall, f1 = scores(truth, step_at(5))
    assert (precision, recall, f1) == pytest.approx((0.5, 1.0, 2 / 3))
    assert scores(torch.ones_like(truth), truth) == (0.0, 0.0, 0.0)


def test_only_ratios_at_which_the_truth_has_an_edge_count() -> None:
    truth = step_at(10, ratio=1.12)
    assert scores(truth, truth) == (1.0, 1.0, 1.0)
    # A step of 7 % passes the threshold of 5 % and not that of 10 %.
    assert scores(step_at(10, ratio=1.07), truth) == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"moon: the ground truth has no depth edge of ratio 1.05"):
        boundary_metrics(truth, torch.ones_like(truth), names=["moon"])
    assert has_edges(truth)
    assert not has_edges(step_at(10, ratio=1.04))


def test_edges_at_unknown_depth_do_not_count() -> None:
    truth = step_at(10)
    hole = truth.clone()
    hole[:, 9] = 0.0
    assert not has_edges(hole)
    assert not has_edges(truth, torch.arange(20).expand(6, 20) != 10)
    ragged = truth.clone()
    ragged[0, 10:12] = torch.nan
    assert scores(truth, ragged) == (1.0, 1.0, 1.0)


@few
@given(SEEDS, st.floats(0.01, 100))
def test_boundaries_do_not_depend_on_the_unit(seed: int, unit: float) -> None:
    p, t = depths(seed), depths(seed + 1)
    close(boundary_metrics(unit * p, unit * t), boundary_metrics(p, t))
    swapped = boundary_metrics(t, p, ratios=(1.1,))
    same = boundary_metrics(p, t, ratios=(1.1,))
    torch.testing.assert_close(swapped["boundary_precision"], same["boundary_recall"])
    torch.testing.assert_close(swapped["boundary_f1"], same["boundary_f1"])
