from __future__ import annotations

import pytest
import torch

from redepth.errors import InputError
from redepth.metrics import depth_metrics, evaluate
from redepth.ops.align import scale_and_shift
from tests.helpers import seeded

METRICS = ("a1", "a2", "a3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log_10", "silog")


def test_scale_and_shift_recovers_an_affine_map_over_the_mask_alone() -> None:
    p = torch.rand(9, 11, generator=seeded())
    mask = p > 0.3
    target = torch.where(mask, 3.0 * p - 0.5, 1e6)
    a, b = scale_and_shift(p, target, mask)
    assert float(a) == pytest.approx(3.0, rel=1e-5)
    assert float(b) == pytest.approx(-0.5, rel=1e-4)


def test_a_constant_prediction_gives_the_mean() -> None:
    target = torch.rand(5, 5, generator=seeded())
    a, b = scale_and_shift(torch.full((5, 5), 4.0), target, torch.ones(5, 5, dtype=torch.bool))
    assert float(a) == 0
    assert float(b) == pytest.approx(float(target.mean()))


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
    found = evaluate(raw, truth, predicts="depth")
    assert found.aligned[5, 5] < 0
    assert found.clipped >= 0.01
    assert all(torch.isfinite(torch.tensor(v)) for v in found.metrics.values())


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (torch.zeros(4, 4), "no known depth"),
        (torch.ones(4, 4), "constant"),
        (torch.full((4, 4), float("nan")), "no known depth"),
        (torch.ones(4, 5), "sizes differ"),
    ],
)
def test_ground_truth_that_cannot_be_used_is_refused(truth: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(torch.rand(4, 4, generator=seeded()), truth)


def test_closed_forms() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0])
    found = depth_metrics(2 * truth, truth)
    assert found["silog"] == pytest.approx(0, abs=1e-5)
    assert found["abs_rel"] == pytest.approx(1.0)
    assert found["a3"] == 0.0
    assert found["rmse_log"] == pytest.approx(0.693147, rel=1e-5)
    assert found["log_10"] == pytest.approx(0.30103, rel=1e-4)
