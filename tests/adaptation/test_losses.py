"""The losses of distillation: closed forms, gradients, and what they do not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.adaptation.losses import (
    FLOOR,
    RelativeDepth,
    deviation,
    distil_loss,
    drift,
    keep_loss,
    relative_depth_in,
)
from redepth.adaptation.targets import Target
from redepth.depth_models.depth_anything import DepthAnything
from redepth.ops import geometry
from redepth.ops.camera import Camera
from tests.support.helpers import seeded

SIZE = (12, 16)
PINHOLE = Camera(field_of_view=50.0)


def smooth(seed: int, low: float = 1.0, high: float = 3.0) -> Tensor:
    """A random map, float64, of values in [low, high]."""
    return low + (high - low) * torch.rand(1, 1, *SIZE, generator=seeded(seed), dtype=torch.float64)


def columns() -> Tensor:
    return torch.arange(SIZE[1], dtype=torch.float64).expand(1, 1, *SIZE)


def target(refined: Tensor, trust: Tensor | float = 1.0, **options: Any) -> Target:
    weight = trust if isinstance(trust, Tensor) else torch.full_like(refined, trust)
    return Target(torch.full_like(refined, math.nan), refined, weight, **options)


def flat(raw: Tensor) -> Tensor:
    """A relative depth without slopes: the normals say nothing."""
    return torch.ones_like(raw)


def as_is(raw: Tensor) -> Tensor:
    return raw


DISPARITY = relative_depth_in(DepthAnything(scale=7.0), 2.0)


def test_the_refined_map_itself_has_no_loss() -> None:
    refined = smooth(0)
    assert float(distil_loss(refined, target(refined), DISPARITY)) == pytest.approx(0, abs=1e-7)
    assert float(keep_loss(refined, refined, DISPARITY)) == pytest.approx(0, abs=1e-7)
    assert float(drift(refined, refined, 0.2)) == 0


@pytest.mark.parametrize("trust", [1.0, 0.25])
def test_a_constant_error_counts_by_its_share_of_the_deviation(trust: float) -> None:
    refined = smooth(0)
    raw = refined - 0.3 * refined.std(correction=0)
    # A shift changes no orthographic normal of depth, and no derivative.
    assert float(distil_loss(raw, target(refined, trust), as_is)) == pytest.approx(0.3 * trust)


def test_a_ramp_counts_by_its_size_and_its_slope() -> None:
    refined, slope = smooth(0), 0.05
    raw = refined + slope * refined.std(correction=0) * columns()
    size = slope * float(columns().mean())
    assert float(distil_loss(raw, target(refined), flat)) == pytest.approx(size + slope / 2, rel=1e-5)


@pytest.mark.parametrize("camera", [Camera(), PINHOLE])
def test_the_third_term_is_the_turn_of_the_normals(camera: Camera) -> None:
    refined, raw = 2 + 0.1 * columns(), 2 + 0.02 * columns()
    seen = target(refined, camera=camera)
    first, second = (geometry.normals_from_depth(m, camera) for m in (raw, refined))
    turn = float((1 - (first * second).sum(1)).mean())
    assert turn > 0.05
    found = distil_loss(raw, seen, as_is) - distil_loss(raw, seen, flat)
    assert float(found) == pytest.approx(turn, rel=1e-4)


def test_two_planes_have_the_cosine_of_their_slopes() -> None:
    refined, raw = 2 + 0.1 * columns(), 2 + 0.02 * columns()
    pitch = _pitch()
    a, b = 0.1 / pitch, 0.02 / pitch
    cosine = (a * b + 1) / math.sqrt((a * a + 1) * (b * b + 1))
    found = distil_loss(raw, target(refined), as_is) - distil_loss(raw, target(refined), flat)
    assert float(found) == pytest.approx(1 - cosine, rel=1e-5)


def _pitch() -> float:
    u, _ = Camera().axes(*SIZE, dtype=torch.float64, device=torch.device("cpu"))
    return float(u[1] - u[0])


def test_pixels_without_trust_have_no_gradient_of_their_own() -> None:
    refined, trust = smooth(0), torch.ones(1, 1, *SIZE, dtype=torch.float64)
    trust[..., :, 8:] = 0
    raw = smooth(1).requires_grad_()
    distil_loss(raw, target(refined, trust), DISPARITY).backward()
    assert raw.grad is not None
    # The column beside the trusted ones is a neighbour of theirs.
    assert bool((raw.grad[..., 9:] == 0).all())
    assert bool((raw.grad[..., :8] != 0).any())


@pytest.mark.parametrize("value", [5.0, 0.0])
def test_a_constant_map_has_a_finite_loss(value: float) -> None:
    refined = torch.full((1, 1, *SIZE), value, dtype=torch.float64)
    raw = (refined + 0.1).requires_grad_()
    loss = distil_loss(raw, target(refined), flat)
    assert float(loss.detach()) == pytest.approx(0.1 / (FLOOR * value or 1.0), rel=1e-4)
    loss.backward()
    assert raw.grad is not None
    assert bool(torch.isfinite(raw.grad).all())
    assert float(drift(raw.detach(), refined, 0.2)) == pytest.approx((0.1 / (FLOOR * value or 1.0)) ** 2)


def test_the_deviation_is_that_of_the_map_unless_it_is_nearly_constant() -> None:
    values = smooth(0)
    assert float(deviation(values)) == pytest.approx(float(values.std(correction=0)))
    assert float(deviation(values + 1e3)) == pytest.approx(FLOOR * float(values.mean() + 1e3))
    assert float(deviation(-7 * values)) == pytest.approx(7 * float(deviation(values)))


@pytest.mark.parametrize("scale", ["auto", 7.0])
def test_a_factor_that_the_unit_follows_changes_nothing(scale: Any) -> None:
    model, refined, raw = DepthAnything(scale=scale), smooth(0), smooth(1)
    once = distil_loss(raw, target(refined), relative_depth_in(model, 0.5))
    scaled = distil_loss(40 * raw, target(40 * refined), relative_depth_in(model, 20.0))
    other = distil_loss(40 * raw, target(40 * refined), relative_depth_in(model, 0.5))
    assert float(scaled) == pytest.approx(float(once))
    assert float(other) != pytest.approx(float(once), rel=1e-3)


def test_relative_depth_has_the_constants_of_the_model() -> None:
    raw = smooth(0)
    model = DepthAnything(scale=5.0, margin=0.3)
    assert torch.allclose(relative_depth_in(model, 2.0)(raw), 5 / (raw / 2 + 0.3))
    model.predicts = "depth"
    assert torch.allclose(relative_depth_in(model, 2.0)(raw), 5 * raw / 2)
    automatic = DepthAnything(scale="auto")
    assert torch.allclose(relative_depth_in(automatic, 2.0)(raw), 7 / (raw / 2 + automatic.margin))


@pytest.mark.parametrize("relative_depth", [DISPARITY, as_is], ids=["disparity", "depth"])
@pytest.mark.parametrize("camera", [Camera(), PINHOLE], ids=["orthographic", "pinhole"])
def test_gradients_are_those_of_finite_differences(relative_depth: RelativeDepth, camera: Camera) -> None:
    seen = target(smooth(0), smooth(2, 0.1, 0.9), camera=camera)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda raw: distil_loss(raw, seen, relative_depth),
        lambda raw: keep_loss(raw, seen.refined, relative_depth, camera),
        lambda raw: drift(raw, seen.refined, 0.2),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, smooth(1).requires_grad_())


def test_keeping_is_distilling_the_start() -> None:
    initial, raw = smooth(0), smooth(1)
    stay = Target(initial, initial, torch.ones_like(initial), camera=PINHOLE)
    assert torch.equal(keep_loss(raw, initial, DISPARITY, PINHOLE), distil_loss(raw, stay, DISPARITY))


def test_drift_counts_large_forms_and_leaves_detail_free() -> None:
    initial = 2 + torch.rand(1, 1, 64, 64, generator=seeded(), dtype=torch.float64)
    std = initial.std(correction=0)
    rows, cols = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
    checks = std * torch.cos(math.pi * (rows + cols))
    waves = std * torch.cos(2 * math.pi * (cols + 0.5) / 64)
    assert float(drift(initial + 0.3 * std, initial, 0.2)) == pytest.approx(0.09)
    # Beyond the border the last pixel is repeated: a little of the checks is left there.
    assert float(drift(initial + checks, initial, 0.2)) < 0.005
    # One wave over the side shrinks by exp(-(2 pi sigma)^2 / 2), up to the border.
    assert float(drift(initial + waves, initial, 0.05)) == pytest.approx(
        0.5 * math.exp(-((2 * math.pi * 0.05) ** 2)), rel=0.03
    )
    assert float(drift(initial + waves, initial, 0.5)) < float(drift(initial + waves, initial, 0.05)) / 3


def test_half_precision_is_upcast() -> None:
    refined = smooth(0).float()
    raw = smooth(1).bfloat16().requires_grad_()
    for loss in (
        distil_loss(raw, target(refined), DISPARITY),
        keep_loss(raw, refined, DISPARITY),
        drift(raw, refined, 0.2),
    ):
        assert loss.dtype == torch.float32
        loss.backward()
    upcast = distil_loss(raw.detach().float(), target(refined), DISPARITY)
    assert torch.equal(upcast, distil_loss(raw, target(refined), DISPARITY))


def test_maps_of_two_sizes_are_refused() -> None:
    small, large = torch.ones(1, 1, 3, 4), torch.ones(1, 1, 6, 8)
    with pytest.raises(ValueError, match=r"\(1, 1, 3, 4\), \(1, 1, 6, 8\)"):
        distil_loss(small, target(large), as_is)
    with pytest.raises(ValueError, match="one shape"):
        drift(small, large, 0.2)
