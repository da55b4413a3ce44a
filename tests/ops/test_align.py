from __future__ import annotations

import pytest
import torch

from redepth.ops.align import errors_in_both, median_ratio, scale_and_shift, scale_only, trimmed_mask
from tests.support.helpers import seeded

EVERYWHERE = torch.ones(5, 5, dtype=torch.bool)


def test_scale_and_shift_recovers_an_affine_map_over_the_mask_alone(device: torch.device) -> None:
    p = torch.rand(9, 11, generator=seeded()).to(device)
    mask = p > 0.3
    target = torch.where(mask, 3.0 * p - 0.5, 1e6)
    a, b = scale_and_shift(p, target, mask)
    assert float(a) == pytest.approx(3.0, rel=1e-5)
    assert float(b) == pytest.approx(-0.5, rel=1e-4)


def test_a_constant_prediction_gives_the_mean(device: torch.device) -> None:
    target = torch.rand(5, 5, generator=seeded()).to(device)
    a, b = scale_and_shift(torch.full((5, 5), 4.0, device=device), target, EVERYWHERE.to(device))
    assert float(a) == 0
    assert float(b) == pytest.approx(float(target.mean()))


def test_scale_only_is_the_projection_over_the_mask(device: torch.device) -> None:
    p = torch.tensor([[1.0, 2.0, 100.0]], device=device)
    target = torch.tensor([[3.0, 5.0, -7.0]], device=device)
    a, b = scale_only(p, target, torch.tensor([[True, True, False]], device=device))
    assert float(a) == pytest.approx((3 + 10) / (1 + 4))
    assert float(b) == 0


def test_the_ratio_of_medians_takes_the_middle_of_an_even_number(device: torch.device) -> None:
    p = torch.tensor([[1.0, 3.0, 5.0, torch.inf]], device=device)
    target = torch.tensor([[2.0, 10.0, 6.0, 30.0]], device=device)
    assert float(median_ratio(p, target, torch.ones(1, 4, dtype=torch.bool, device=device))) == pytest.approx(
        8 / 4
    )
    assert float(
        median_ratio(p, target, torch.tensor([[True, True, True, False]], device=device))
    ) == pytest.approx(6 / 3)


def test_a_trimmed_fit_leaves_outliers_out(device: torch.device) -> None:
    p = torch.rand(20, 20, generator=seeded()).to(device)
    target = 2.0 * p + 1.0 + 1e-3 * torch.randn(20, 20, generator=seeded(2)).to(device)
    outliers = torch.rand(20, 20, generator=seeded(1)).to(device) < 0.15
    dirty = torch.where(outliers, target + 5.0, target)
    mask = torch.ones(20, 20, dtype=torch.bool, device=device)
    kept = trimmed_mask(scale_and_shift, p, dirty, mask, 0.2)
    assert int(kept.sum()) == 320
    assert not bool((kept & outliers).any())
    a, b = scale_and_shift(p, dirty, kept)
    assert float(a) == pytest.approx(2.0, abs=2e-3)
    assert float(b) == pytest.approx(1.0, abs=2e-3)
    plain, _ = scale_and_shift(p, dirty, mask)
    assert abs(float(plain) - 2.0) > 0.01


def test_no_trim_keeps_the_mask_and_equal_residuals_do_not_change_the_number() -> None:
    p = torch.rand(5, 5, generator=seeded())
    mask = p > 0.2
    assert trimmed_mask(scale_and_shift, p, p, mask, 0.0) is mask
    kept = trimmed_mask(scale_and_shift, p, p, mask, 0.5)
    assert int(kept.sum()) == int(mask.sum()) - int(0.5 * int(mask.sum()))
    assert not bool((kept & ~mask).any())


@pytest.mark.parametrize(
    ("fit", "prediction", "mask", "message"),
    [
        (scale_and_shift, torch.ones(5, 4), EVERYWHERE, "one shape"),
        (scale_and_shift, torch.ones(5, 5), ~EVERYWHERE, "0 valid pixels"),
        (scale_and_shift, torch.full((5, 5), torch.nan), EVERYWHERE, "not finite"),
        (scale_only, torch.zeros(5, 5), EVERYWHERE, "0 at every valid pixel"),
        (scale_only, torch.ones(5, 5), ~EVERYWHERE, "0 valid pixels"),
        (median_ratio, torch.zeros(5, 5), EVERYWHERE, "median is 0"),
        (median_ratio, torch.full((5, 5), torch.inf), EVERYWHERE, "median is inf"),
        (median_ratio, torch.ones(5, 5), ~EVERYWHERE, "0 valid pixels"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, prediction, mask, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit(prediction, torch.ones(5, 5), mask)


def test_a_trim_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        trimmed_mask(scale_and_shift, torch.ones(5, 5), torch.ones(5, 5), EVERYWHERE, 1.0)


def test_errors_in_both_find_the_slope_that_least_squares_makes_too_small() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(20_000, generator=generator, dtype=torch.float64)
    p = true + 0.2 * torch.randn(true.shape, generator=generator, dtype=torch.float64)
    t = 3 * true + 1 + 0.1 * torch.randn(true.shape, generator=generator, dtype=torch.float64)
    everywhere = torch.ones_like(true, dtype=torch.bool)
    scale, shift = errors_in_both(p, t, everywhere, 0.25)
    assert float(scale) == pytest.approx(3, rel=0.02)
    assert float(shift) == pytest.approx(1, abs=0.05)
    assert float(scale_and_shift(p, t, everywhere)[0]) < 2.2
    # Exact entries give the exact line, whatever the ratio; entries that contradict give no slope.
    exact = errors_in_both(true, 2 * true - 1, everywhere, 7.0)
    assert [float(value) for value in exact] == pytest.approx([2, -1])
    assert float(errors_in_both(p, -p, everywhere)[0]) == 1


def test_errors_in_both_in_closed_form() -> None:
    """With equal errors it is the main axis, here the diagonal; else Deming's root."""
    p, t = torch.tensor([0.0, 1, 2, 3]), torch.tensor([0.0, 2, 1, 3])
    everywhere = torch.ones(4, dtype=torch.bool)
    assert [float(v) for v in errors_in_both(p, t, everywhere)] == pytest.approx([1, 0])
    # Variances 5/4 and covariance 1: a = (e + sqrt(e^2 + 4 r)) / 2 with e = (1 - r) 5 / 4.
    for ratio in (0.25, 4.0):
        excess = 1.25 * (1 - ratio)
        expected = (excess + (excess**2 + 4 * ratio) ** 0.5) / 2
        scale, shift = errors_in_both(p, t, everywhere, ratio)
        assert float(scale) == pytest.approx(expected)
        assert float(shift) == pytest.approx(1.5 * (1 - expected))
