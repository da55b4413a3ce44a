from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.ops.known_points import fit_points
from redepth.ops.sampling import extremes, nearest_around, read, taps
from tests.support.helpers import seeded

SIZE = 48
KINDS = ("disparity", "depth")


def raw_map(seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 1, 6, 6, generator=seeded(seed), dtype=torch.float64)
    return 1 + 5 * torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")


def known(
    count: int, kind: str, a: float = 0.15, b: float = 0.05, seed: int = 1
) -> tuple[Tensor, Any, Tensor]:
    """A map, points in it, and their depths under a and b."""
    raw = raw_map(seed)
    x, y = torch.rand(2, count, generator=seeded(seed), dtype=torch.float64)
    where = taps(x, y, SIZE, SIZE)
    value = a * read(raw, where)[0] + b
    return raw, where, 1 / value if kind == "disparity" else value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 5, 10, 100, 2500])
@pytest.mark.parametrize(("a", "b"), [(0.15, 0.05), (3.0, 0.0), (0.01, 0.4)])
def test_exact_points_give_the_exact_scale_and_shift(kind: Any, count: int, a: float, b: float) -> None:
    raw, where, depth = known(count, kind, a, b)
    fit = fit_points(raw, where, depth, predicts=kind)
    assert (fit.scale, fit.shift) == pytest.approx((a, b), rel=1e-6, abs=1e-6 * a)
    assert fit.residual < 1e-6
    assert bool(fit.inliers.all())
    assert fit.confidence == pytest.approx((count - 2) / (count - 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [10, 30, 200])
def test_forty_percent_of_outliers_do_not_matter(kind: Any, count: int) -> None:
    raw, where, depth = known(count, kind)
    wrong = int(0.4 * count)
    factor = torch.exp(6 * torch.rand(wrong, generator=seeded(7), dtype=torch.float64) - 3)
    depth[:wrong] *= factor
    fit = fit_points(raw, where, depth, predicts=kind)
    assert (fit.scale, fit.shift) == pytest.approx((0.15, 0.05), rel=1e-3)
    assert int(fit.inliers.sum()) >= count - wrong
    assert bool(fit.inliers[wrong:].all())
    assert float(fit.trust[:wrong][(factor.log().abs() > 0.1)].max()) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_noise_averages_out(kind: Any) -> None:
    raw, where, depth = known(1000, kind)
    depth = depth * (1 + 0.1 * torch.randn(1000, generator=seeded(3), dtype=torch.float64))
    fit = fit_points(raw, where, depth, predicts=kind)
    assert fit.scale == pytest.approx(0.15, rel=0.1)
    assert 0.03 < fit.residual < 0.12
    assert fit.confidence > 0.9


def test_a_metric_prediction_needs_one_point_and_an_affine_one_two() -> None:
    raw, where, depth = known(1, "depth", a=2.0, b=0.0)
    fit = fit_points(raw, where, depth, predicts="depth", shift=False)
    assert (fit.scale, fit.shift, fit.confidence) == (pytest.approx(2.0), 0.0, 0.0)
    with pytest.raises(ValueError, match="known points in the picture: 1, but"):
        fit_points(raw, where, depth, predicts="depth")


def test_points_that_contradict_the_prediction_are_refused_and_a_wall_gives_a_scale() -> None:
    raw, where, depth = known(20, "disparity")
    with pytest.raises(ValueError, match="nearer where the prediction is farther"):
        fit_points(raw, where, 1 / depth)
    fit = fit_points(raw, where, torch.full_like(depth, 3.0))
    assert fit.scale > 0
    assert (fit.shift, fit.confidence, fit.sloped) == (0.0, 0.0, False)


def test_three_points_that_contradict_the_prediction_give_a_flat_map_without_confidence() -> None:
    raw, where, depth = known(3, "disparity")
    fit = fit_points(raw, where, 1 / depth)
    assert (fit.scale, fit.confidence, fit.sloped, fit.contradicted) == (0.0, 0.0, False, True)
    assert (1 / depth).min() < 1 / fit.shift < (1 / depth).max()


def test_the_whole_map_stays_in_front_of_the_camera() -> None:
    """The two points ask for a shift that puts the least disparity beyond infinity."""
    raw, where, _ = known(30, "disparity")
    value = 0.2 * read(raw, where)[0] - 0.35 + 0.3 * torch.rand(30, generator=seeded(5), dtype=torch.float64)
    fit = fit_points(raw, where, 1 / value.clamp(min=0.05))
    assert fit.scale * float(raw.min()) + fit.shift > 0


def test_the_answer_is_the_same_each_time() -> None:
    raw, where, depth = known(3000, "disparity")
    depth = depth * (1 + 0.2 * torch.randn(3000, generator=seeded(3), dtype=torch.float64)).clamp(min=0.2)
    first, second = (fit_points(raw, where, depth) for _ in range(2))
    assert (first.scale, first.shift, first.residual) == (second.scale, second.shift, second.residual)


def test_a_point_on_an_edge_counts_less() -> None:
    raw = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    raw[..., 8:] = 4.0
    raw[..., :8, :4] = 2.0
    x = torch.tensor([0.1, 0.1, 0.35, 0.9, 0.5], dtype=torch.float64)
    y = torch.tensor([0.2, 0.8, 0.8, 0.5, 0.5], dtype=torch.float64)
    where = taps(x, y, 16, 16)
    depth = 1 / read(raw, where)[0]
    depth[4] = 1.0  # of the farther side, where the value between the sides is 2.5
    fit = fit_points(raw, where, depth)
    assert (fit.scale, fit.shift) == pytest.approx((1.0, 0.0), abs=0.02)


def test_a_map_is_read_between_pixel_centres() -> None:
    raw = torch.arange(12.0).view(1, 1, 3, 4)
    x = torch.tensor([0.5 / 4, 2 / 4, 0.0, 1.0])
    y = torch.tensor([0.5 / 3, 1.5 / 3, 0.0, 1.0])
    where = taps(x, y, 3, 4)
    assert read(raw, where)[0].tolist() == pytest.approx([0.0, 5.5, 0.0, 11.0])
    low, high = extremes(raw, where)
    assert (low[0, 0].item(), high[0, 0].item()) == (0.0, 5.0)


def test_a_point_sees_nearer_ones_around_it() -> None:
    depth, pixel = torch.tensor([5.0, 2.0, 7.0]), torch.tensor([0, 2, 9])
    assert nearest_around(depth, pixel, 1, 10, 2).tolist() == [2.0, 2.0, 7.0]
