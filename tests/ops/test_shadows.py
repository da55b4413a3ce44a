from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redepth.ops import shading
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.shadows import soft_shadows
from tests.support.helpers import seeded

WIDE = Camera(field_of_view=60.0)


def light(x: float, y: float, z: float) -> Tensor:
    return shading.normalize(torch.tensor([[[float(x), y, z]]]))


def wall(size: int = 128, height: float = 0.25) -> Tensor:
    """A ground at depth 2 with a wall of that height across columns 60 to 63."""
    depth = torch.full((1, 1, size, size), 2.0)
    depth[..., 60:64] -= height
    return depth


@pytest.mark.parametrize("elevation", [8.0, 30.0, 90.0])
@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, WIDE], ids=["orthographic", "pinhole"])
def test_a_flat_ground_is_lit_by_any_light_above_it(elevation: float, camera: Camera) -> None:
    angle = math.radians(elevation)
    lit = soft_shadows(
        torch.full((1, 1, 20, 30), 2.0), light(math.cos(angle), 0, math.sin(angle)), camera=camera
    )
    assert lit.shape == (1, 1, 20, 30)
    assert lit.min() > 0.99


@pytest.mark.parametrize("elevation", [30.0, 45.0, 60.0])
def test_a_wall_casts_a_shadow_of_its_height_over_the_tangent(elevation: float, device: torch.device) -> None:
    angle, pitch = math.radians(elevation), 2 / 127
    # The light is on the left, so the shadow falls to the right.
    direction = light(-math.cos(angle), 0, math.sin(angle))
    lit = soft_shadows(wall().to(device), direction.to(device), samples=200, softness=0.02)[0, 0, 64]
    shadow = 0.25 / math.tan(angle) / pitch
    dark = (lit < 0.5).nonzero().flatten()
    assert dark.min() == 64
    assert dark.max().item() == pytest.approx(63 + shadow, abs=2.5)
    assert lit[:56].min() > 0.95


def test_the_shadow_turns_with_the_light() -> None:
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        depth = torch.full((1, 1, 65, 65), 2.0)
        depth[..., 30:35, 30:35] = 1.8
        lit = soft_shadows(depth, light(x, y, 1), samples=64)[0, 0]
        # Rows run downwards.
        before, behind = lit[32 - 5 * y, 32 + 5 * x], lit[32 + 5 * y, 32 - 5 * x]
        assert behind < 0.2
        assert before > 0.95


def test_a_pinhole_sees_the_shadow_of_a_near_wall_too(device: torch.device) -> None:
    lit = soft_shadows(wall().to(device), light(-1, 0, 1).to(device), camera=WIDE, samples=64)[0, 0, 64]
    assert lit[66] < 0.1
    assert lit[40] > 0.9


def test_gradients_are_those_of_the_function() -> None:
    bumps = torch.rand(1, 1, 3, 3, dtype=torch.float64, generator=seeded())
    depth = 1 + torch.nn.functional.interpolate(bumps, (6, 7), mode="bilinear").requires_grad_()
    direction = light(0.5, 0.4, 0.6).double().expand(1, 1, 3)
    for camera in (ORTHOGRAPHIC, WIDE):
        # A pinhole marches in parts of the depth; that only says where to look and has no gradient.
        def lit(z: Tensor) -> Tensor:
            return soft_shadows(z, direction, samples=5, softness=0.5)

        assert torch.autograd.gradcheck(lit, depth.detach().requires_grad_())
        z = depth.detach().requires_grad_()
        soft_shadows(z, direction, camera=camera, samples=5, softness=0.5).sum().backward()
        assert torch.isfinite(z.grad).all()
        assert z.grad.abs().max() > 0


def test_lowering_a_wall_gives_light() -> None:
    depth = wall().requires_grad_()
    soft_shadows(depth, light(-1, 0, 1), samples=64)[0, 0, 64, 75:80].sum().backward()
    assert depth.grad[0, 0, 64, 60:64].sum() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_an_invalid_pixel_neither_occludes_nor_spreads(value: float, device: torch.device) -> None:
    depth = torch.full((1, 1, 24, 24), 2.0, device=device)
    depth[0, 0, 12, 12] = value
    depth.requires_grad_()
    lit = soft_shadows(depth, light(1, 0, 1).to(device))
    assert lit.min() > 0.99
    lit.sum().backward()
    assert torch.isfinite(depth.grad).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_degenerate_sizes_are_lit(size: tuple[int, int], device: torch.device) -> None:
    for camera in (ORTHOGRAPHIC, WIDE):
        assert (
            soft_shadows(
                torch.ones(1, 1, *size, device=device), light(1, 1, 1).to(device), camera=camera
            ).min()
            > 0.99
        )
