"""Errors of depth: closed forms, properties, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redepth.errors import InputError
from redepth.metrics import (
    Method,
    align,
    boundary_metrics,
    depth_means,
    depth_metrics,
    metrics_of,
    pooled,
)
from tests.support.metrics import GOOD, METHODS, SEEDS, close, depths, few

NAMES = {"a1", "a2", "a3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log_10", "silog"}
SCALE_FREE = NAMES - {"sq_rel", "rmse"}


@few
@given(SEEDS, st.floats(1e-3, 1e3), st.sampled_from(METHODS[1:]))
def test_the_unit_of_the_truth_matters_only_where_the_metric_says_so(
    seed: int, unit: float, method: Method
) -> None:
    raw, truth = depths(seed), depths(seed + 1)
    one = depth_metrics(align(raw, truth, None, method).depth, truth)
    other = depth_metrics(align(raw, unit * truth, None, method).depth, unit * truth)
    for name in SCALE_FREE:
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-6, abs=1e-9), name
    for name in ("rmse", "sq_rel"):
        assert float(other[name]) == pytest.approx(unit * float(one[name]), rel=1e-6)


@few
@given(SEEDS, st.floats(1e-3, 1e3))
def test_silog_ignores_the_scale_of_the_prediction_at_lambda_1_alone(seed: int, scale: float) -> None:
    p, t = depths(seed), depths(seed + 1)
    one, other = depth_metrics(p, t)["silog"], depth_metrics(scale * p, t)["silog"]
    assert float(other) == pytest.approx(float(one), rel=1e-9)
    half = [depth_metrics(scale * q, t, silog_lambda=0.0) for q in (p, 2 * p)]
    assert float(half[0]["silog"]) == pytest.approx(100 * float(half[0]["rmse_log"]), rel=1e-9)


@few
@given(SEEDS, st.integers(2, 6))
def test_pooling_images_is_measuring_all_their_pixels(seed: int, count: int) -> None:
    p, t = depths(seed, count, 6, 7), depths(seed + 1, count, 6, 7)
    mask = depths(seed + 2, count, 6, 7) > 1.2
    together = metrics_of(pooled(depth_means(p, t, mask)), silog_lambda=0.85)
    side_by_side = [torch.cat(list(values), dim=1) for values in (p, t, mask)]
    close(together, depth_metrics(*side_by_side, silog_lambda=0.85))


def test_closed_forms() -> None:
    truth = torch.tensor([[1.0, 2.0, 4.0]])
    metrics = {name: float(value) for name, value in depth_metrics(2 * truth, truth).items()}
    assert set(metrics) == NAMES
    assert metrics == pytest.approx(
        {
            "a1": 0.0,
            "a2": 0.0,
            "a3": 0.0,
            "abs_rel": 1.0,
            "sq_rel": 7 / 3,
            "rmse": math.sqrt(7),
            "rmse_log": math.log(2),
            "log_10": math.log10(2),
            "silog": 0.0,
        },
        abs=1e-12,
    )
    p, t = torch.tensor([[math.e, 1.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    assert float(depth_metrics(p, t)["silog"]) == pytest.approx(100 * 0.5)
    assert float(depth_metrics(p, t, silog_lambda=0.5)["silog"]) == pytest.approx(100 * math.sqrt(0.375))
    assert float(depth_metrics(p, t, silog_lambda=0.0)["silog"]) == pytest.approx(100 * math.sqrt(0.5))


def test_the_thresholds_are_strict() -> None:
    truth = torch.tensor([[1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    metrics = depth_metrics(torch.tensor([[1.25, 1.2, 1.5, 1.9]], dtype=torch.float64), truth)
    assert [float(metrics[f"a{k}"]) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]


def test_a_small_spread_around_a_large_offset_is_not_lost() -> None:
    e = 20 + 1e-7 * torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    metrics = depth_metrics(e.exp(), torch.ones(1, 2, dtype=torch.float64))
    assert float(metrics["silog"]) == pytest.approx(1e-5, rel=1e-6)


def test_sums_are_taken_in_float64() -> None:
    truth = torch.full((400, 400), 3.0)
    truth[0, 0] = 2.0
    p = torch.full((400, 400), 3.0) * (1 + 1e-3)
    exact = np.abs(p.numpy().astype(np.float64) - truth.numpy()) / truth.numpy()
    assert float(depth_metrics(p, truth)["abs_rel"]) == pytest.approx(exact.mean(), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("metrics", [depth_metrics, boundary_metrics])
def test_depth_that_was_not_aligned_is_refused(metrics: Any, value: float) -> None:
    p = GOOD.clone()
    p[1, 2] = value
    with pytest.raises(InputError, match=r"moon: .* not positive and finite; align them first"):
        metrics(p, GOOD, names=["moon"])


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"silog_lambda must be in \[0, 1\], got 1.5"):
        depth_metrics(GOOD, GOOD, silog_lambda=1.5)
    with pytest.raises(ValueError, match="ratios must be > 1"):
        boundary_metrics(GOOD, GOOD, ratios=(1.0,))
    with pytest.raises(ValueError, match="tolerance"):
        boundary_metrics(GOOD, GOOD, tolerance=-1)
