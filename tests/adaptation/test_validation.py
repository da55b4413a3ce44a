"""The distance of a validation: closed forms, and the failures that it has to show."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redepth.adaptation.losses import relative_depth_in
from redepth.adaptation.targets import Target
from redepth.adaptation.validation import distance
from redepth.depth_models.depth_anything import DepthAnything
from tests.support.helpers import seeded

SIZE = (12, 16)
DISPARITY = relative_depth_in(DepthAnything(scale=7.0), 1.0)


def forms(seed: int = 0) -> Tensor:
    """A random map of disparity as the models give it, in [0, 4]."""
    return 4 * torch.rand(1, 1, *SIZE, generator=seeded(seed))


def target(refined: Tensor, trust: Tensor | None = None) -> Target:
    return Target(refined, refined, torch.ones_like(refined) if trust is None else trust)


def as_is(raw: Tensor) -> Tensor:
    return raw


def signs() -> Tensor:
    """1 in the left half, -1 in the right one."""
    return torch.ones(1, 1, *SIZE).index_fill(-1, torch.arange(SIZE[1] // 2, SIZE[1]), -1.0)


def test_equal_maps_have_no_distance() -> None:
    assert distance(forms(), target(forms()), DISPARITY) == 0
    assert distance(forms(), target(forms()), DISPARITY, metric=True) == 0


@pytest.mark.parametrize("metric", [False, True])
def test_half_of_the_pixels_nearer_and_half_farther(metric: bool) -> None:
    refined = 1 + forms()
    found = distance(refined * (0.03 * signs()).exp(), target(refined), as_is, metric=metric)
    assert found == pytest.approx(3, rel=1e-4)


def test_a_scale_of_depth_counts_for_metric_models_alone() -> None:
    refined = 1 + forms()
    assert distance(1.2 * refined, target(refined), as_is) == pytest.approx(0, abs=1e-4)
    found = distance(1.2 * refined, target(refined), as_is, metric=True)
    assert found == pytest.approx(100 * math.log(1.2), rel=1e-5)


def test_pixels_count_by_their_trust() -> None:
    refined = 1 + forms()
    wrong_right = torch.where(signs() > 0, refined, 3 * refined)
    trust = torch.where(signs() > 0, 0.6, 0.0)
    assert distance(wrong_right, target(refined, trust), as_is) == pytest.approx(0, abs=1e-4)
    # Weights 3/4 and 1/4: the standard deviation is sqrt(3) / 4 of the difference.
    trust = torch.where(signs() > 0, 0.6, 0.2)
    expected = 100 * math.log(3) * math.sqrt(3) / 4
    assert distance(wrong_right, target(refined, trust), as_is) == pytest.approx(expected, rel=1e-4)
    assert distance(wrong_right, target(refined, 0 * trust), as_is) == pytest.approx(
        100 * math.log(3) / 2, rel=1e-4
    )


def test_disparities_that_shrink_are_shifted_or_tilted_are_far_away() -> None:
    refined = 0.5 + forms()
    tilt = torch.linspace(-0.4, 0.4, SIZE[1]).expand_as(refined)
    for wrong in (0.5 * refined, refined + 0.5, refined + tilt):
        assert distance(wrong, target(refined), DISPARITY) > 3


def test_the_way_to_the_refinement_shows() -> None:
    initial, change = 1 + forms(0), 0.1 * forms(1)
    way = [
        distance(initial + share * change, target(initial + change), DISPARITY) for share in (0, 0.5, 0.9, 1)
    ]
    assert way[0] > way[1] > way[2] > way[3] == 0
    assert way[1] == pytest.approx(way[0] / 2, rel=0.1)


def test_the_unit_changes_nothing() -> None:
    automatic, refined, raw = DepthAnything(scale="auto"), forms(0), forms(1)
    once = distance(raw, target(refined), relative_depth_in(automatic, 1.0))
    scaled = distance(50 * raw, target(50 * refined), relative_depth_in(automatic, 50.0))
    assert scaled == pytest.approx(once, rel=1e-5)


def test_negative_and_zero_values_are_the_farthest() -> None:
    refined = forms()
    raw = refined.clone()
    raw[..., 0] = -0.5
    zero = refined.clone()
    zero[..., 0] = 0.0
    found = distance(raw, target(refined), DISPARITY)
    assert 0 < found == distance(zero, target(refined), DISPARITY)
    # log(0) has a bound: 1 % of the mean depth.
    near = torch.where(zero > 0, zero, 0.01 * refined.mean())
    assert distance(zero, target(refined), as_is) == pytest.approx(
        distance(near, target(refined), as_is), rel=1e-4
    )
    assert distance(raw, target(raw), DISPARITY) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_is_infinitely_far(value: float) -> None:
    raw = forms()
    raw[0, 0, 0, 0] = value
    assert distance(raw, target(forms()), DISPARITY) == math.inf


def test_a_distance_has_no_gradient_and_changes_nothing() -> None:
    raw = forms(1).requires_grad_()
    before, seen = raw.detach().clone(), target(forms())
    assert distance(raw, seen, DISPARITY) == distance(raw, seen, DISPARITY) > 0
    assert raw.grad is None
    assert torch.equal(raw, before)


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        distance(torch.ones(1, 1, 2, 3), target(forms()), DISPARITY)
