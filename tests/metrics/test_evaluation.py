"""The paper's evaluation of one prediction: recorded arrays, properties, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import align, depth_metrics, evaluate
from tests.support.helpers import golden, seeded
from tests.support.metrics import depths


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_align_and_metrics_are_what_was_recorded(case: str) -> None:
    recorded = golden("evaluation", case)
    raw, truth, mask = recorded("raw_disparity"), recorded("gt_depth"), recorded("mask")
    aligned = align(raw, truth, mask, "affine-disparity-then-depth")
    torch.testing.assert_close(aligned.unclipped.float(), recorded("aligned_depth"), rtol=1e-5, atol=1e-6)
    for name, value in depth_metrics(aligned.depth, truth, mask).items():
        assert float(value) == pytest.approx(float(recorded(f"metric_{name}")), rel=1e-5), name
    assert evaluate(raw, truth, mask).metrics == {
        name: float(value) for name, value in depth_metrics(aligned.depth, truth, mask).items()
    }


def test_the_score_ignores_scale_and_shift_of_the_disparity() -> None:
    truth = torch.rand(16, 16, generator=seeded()) + 1
    raw = 1 / truth + 0.05 * torch.randn(16, 16, generator=seeded(1))
    one, other = evaluate(raw, truth), evaluate(5 * raw + 3, truth)
    assert other.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert evaluate(1 / truth, truth).metrics["silog"] < 1e-4


def test_depth_that_comes_out_negative_is_clipped_and_reported() -> None:
    truth = torch.linspace(0.01, 1.0, 100).view(10, 10)
    raw = truth.clone()
    raw[5, 5] = -0.5
    evaluation = evaluate(raw, truth, predicts="depth")
    assert evaluation.aligned[5, 5] < 0
    assert evaluation.clipped >= 0.01
    assert all(math.isfinite(value) for value in evaluation.metrics.values())


def test_the_paper_leaves_out_what_is_not_finite() -> None:
    truth, raw = depths(), depths(1)
    raw[2, 3] = torch.nan
    mask = torch.ones_like(raw, dtype=torch.bool)
    mask[2, 3] = False
    assert evaluate(raw, truth).metrics == evaluate(raw, truth, mask).metrics


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (torch.zeros(4, 4), "no known depth"),
        (torch.ones(4, 4), "constant"),
        (torch.full((4, 4), float("nan")), "no known depth"),
        (torch.ones(4, 5), "sizes differ"),
    ],
)
def test_ground_truth_that_cannot_be_used_is_refused(truth: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(torch.rand(4, 4, generator=seeded()), truth)
