from __future__ import annotations

import math

import pytest
import torch

from redepth.ops.statistics import (
    agreement_weight,
    entropy,
    nearness,
    rank_correlation,
    robust_range,
    spread,
)
from tests.support.helpers import seeded


def ramp(height: int = 20, width: int = 51) -> torch.Tensor:
    return torch.linspace(0, 1, width).expand(1, 1, height, width)


def test_the_range_leaves_two_percent_out_at_each_end(device: torch.device) -> None:
    values = torch.arange(101.0, device=device).view(1, 1, 1, 101)
    assert [float(q) for q in robust_range(values)] == pytest.approx([2.0, 98.0])
    assert float(spread(values)) == pytest.approx(96.0)
    values[..., -1] = 1e6
    assert float(spread(values)) == pytest.approx(96.0)


def test_a_large_map_is_sampled_evenly(device: torch.device) -> None:
    values = torch.rand(1, 1, 1200, 1001, generator=seeded()).to(device)
    assert [float(q) for q in robust_range(values)] == pytest.approx([0.02, 0.98], abs=0.003)


@pytest.mark.parametrize("level", [0.0, 5.0, -3e4])
def test_rounding_noise_is_no_spread(level: float, device: torch.device) -> None:
    noise = torch.rand(1, 1, 30, 30, generator=seeded()).to(device)
    constant = level + 1e-7 * level * noise
    assert float(spread(constant)) == 0
    assert not nearness(constant).any()
    assert float(spread(level + 1e-3 * max(abs(level), 1) * noise)) > 0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (40.0, 7.0), (1e-3, 100.0)])
def test_nearness_does_not_depend_on_scale_and_shift(
    scale: float, shift: float, device: torch.device
) -> None:
    raw = torch.rand(1, 1, 20, 20, dtype=torch.float64, generator=seeded()).to(device)
    assert torch.allclose(nearness(scale * raw + shift), nearness(raw), atol=2e-2)
    near = nearness(raw)
    assert [float(q) for q in robust_range(near)] == pytest.approx([0.0, 1.0], abs=1e-5)


def test_of_a_depth_the_smallest_is_nearest() -> None:
    raw = torch.rand(1, 1, 20, 20, generator=seeded())
    assert torch.allclose(nearness(raw, "depth"), nearness(-raw), atol=1e-5)
    assert int(nearness(raw, "depth").argmax()) == int(raw.argmin())


def test_entropy_of_known_histograms(device: torch.device) -> None:
    assert entropy(torch.linspace(0, 1, 6400, device=device).view(1, 1, 64, 100)) == pytest.approx(
        1.0, abs=1e-6
    )
    two = (torch.arange(100, device=device) % 2).float().view(1, 1, 10, 10)
    assert entropy(two) == pytest.approx(math.log(2) / math.log(64))
    assert entropy(torch.full((1, 1, 4, 4), 3.0, device=device)) == 0.0


def test_rank_correlation_follows_order_alone(device: torch.device) -> None:
    values = torch.rand(1, 1, 30, 40, generator=seeded()).to(device)
    assert rank_correlation(values, values.exp() ** 5) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)
    other = torch.rand(1, 1, 30, 40, generator=seeded(1)).to(device)
    assert abs(rank_correlation(values, other)) < 0.1


def test_equal_values_have_no_order() -> None:
    """Ranks by position would find a constant correlated with a ramp from top to bottom."""
    down = torch.arange(30.0)[:, None].expand(30, 40)[None, None]
    assert rank_correlation(down, torch.ones_like(down)) == 0.0
    first, second = torch.tensor([1.0, 1.0, 2.0, 3.0]), torch.tensor([5.0, 6.0, 7.0, 7.0])
    # Mean ranks 1.5 1.5 3 4 and 1 2 3.5 3.5: covariance 4, variances 4.5 and 4.5.
    assert rank_correlation(first, second) == pytest.approx(4 / 4.5)


def test_the_agreement_weight_is_a_half_where_members_differ_by_the_tolerance(device: torch.device) -> None:
    initial = ramp().to(device)
    width = float(spread(initial))
    offsets = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).to(device)
    members = initial + offsets * torch.tensor([0.0, 0.2, 0.6]).repeat_interleave(17).to(device) * width
    weight = agreement_weight(initial, members, 0.2)
    assert weight[0, 0, 0, ::17].tolist() == pytest.approx([1.0, 0.5, 0.1], rel=1e-5)
    assert torch.equal(agreement_weight(initial, members[:1], 0.2), torch.ones_like(initial))


def test_the_agreement_weight_over_a_constant_map() -> None:
    initial = torch.ones(1, 1, 2, 2)
    members = initial.repeat(2, 1, 1, 1)
    members[0, 0, 0, 0] = 2
    assert agreement_weight(initial, members, 0.1).flatten().tolist() == [0.0, 1.0, 1.0, 1.0]
