"""Curvature: known for planes, spheres and cylinders, and compared pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import curvature_metrics, has_curvature
from redepth.ops.camera import Camera
from redepth.ops.geometry import ORTHOGRAPHIC, point_map
from tests.support.helpers import seeded


def error(p: Tensor, t: Tensor, mask: Tensor | None = None, camera: Camera = ORTHOGRAPHIC) -> float:
    return float(curvature_metrics(p, t, mask, camera=camera)["curvature_error"])


def ball(radius: float, side: int = 64, sign: float = 1) -> Tensor:
    """An orthographic picture of a ball (sign 1) or a bowl (-1) around the axis, in a picture 2 wide."""
    u, v = ORTHOGRAPHIC.axes(side, side, dtype=torch.float64)
    return 50 - sign * (radius**2 - u**2 - v[:, None] ** 2).sqrt()


def test_a_plane_does_not_bend() -> None:
    u, v = ORTHOGRAPHIC.axes(40, 50, dtype=torch.float64)
    tilted = 5 + 0.3 * u - 0.7 * v[:, None]
    assert error(tilted, torch.full((40, 50), 2.0)) == pytest.approx(0, abs=1e-12)
    pinhole = Camera(field_of_view=70)
    u, v = pinhole.axes(40, 50, dtype=torch.float64)
    assert error(1 / (0.5 + 0.1 * u + 0.2 * v[:, None]), torch.full((40, 50), 2.0), camera=pinhole) < 1e-12


def test_a_ball_bends_by_the_distance_over_its_radius() -> None:
    flat = torch.full((64, 64), 5.0, dtype=torch.float64)
    step = 2 / 63
    for radius in (8.0, 20.0):
        # At scale s the neighbours are 2 s pixels apart; on a large ball the chord is the distance in the
        # picture within (1 / radius)^2.
        expected = np.mean([2 * s * step / radius for s in (1, 2, 4, 8)])
        assert error(flat, ball(radius)) == pytest.approx(expected, rel=1.2 / radius**2)
        # A bowl bends the other way.
        assert error(ball(radius, sign=-1), ball(radius)) == pytest.approx(2 * expected, rel=1.2 / radius**2)
    assert error(ball(8), ball(20)) == pytest.approx(
        np.mean([2 * s * step * (1 / 8 - 1 / 20) for s in (1, 2, 4, 8)]), rel=0.03
    )


def test_a_cylinder_bends_along_one_direction_only() -> None:
    u, _ = ORTHOGRAPHIC.axes(64, 64, dtype=torch.float64)
    cylinder = (50 - (20.0**2 - u**2).sqrt()).expand(64, 64)
    flat = torch.full((64, 64), 5.0, dtype=torch.float64)
    assert error(flat, cylinder) == pytest.approx(error(flat, ball(20)) / 2, rel=0.01)
    assert error(flat, cylinder.T) == pytest.approx(error(flat, cylinder))


def test_the_unit_does_not_count_for_a_pinhole() -> None:
    camera = Camera(field_of_view=55)
    generator = seeded(0)
    p, t = (3 + 0.1 * torch.rand(2, 30, 40, generator=generator, dtype=torch.float64)).unbind()
    assert error(1000 * p, 0.3 * t, camera=camera) == pytest.approx(error(p, t, camera=camera), rel=1e-9)


def test_it_is_bounded_at_an_edge() -> None:
    step = torch.ones(30, 30, dtype=torch.float64)
    step[:, 15:] = 1e6
    assert 0.05 < error(torch.ones(30, 30), step, camera=Camera(field_of_view=55)) < 2


def test_a_small_picture_again_by_hand() -> None:
    """Five by six pixels have two with a bend, at the first scale alone."""
    p, t = (3 + torch.rand(2, 5, 6, generator=seeded(4), dtype=torch.float64)).unbind()
    camera = Camera(field_of_view=55)

    def bends(depth: Tensor) -> list[float]:
        points = point_map(depth[None, None], camera)[0].permute(1, 2, 0).numpy()

        def normal(i: int, j: int) -> np.ndarray:
            across = np.cross(points[i, j + 1] - points[i, j - 1], points[i + 1, j] - points[i - 1, j])
            return across / np.linalg.norm(across)

        found = []
        for j in (2, 3):
            total = 0.0
            for di, dj in ((0, 1), (1, 0)):
                chord = points[2 + di, j + dj] - points[2 - di, j - dj]
                turn = normal(2 + di, j + dj) - normal(2 - di, j - dj)
                total += float(turn @ chord) / float(np.linalg.norm(chord))
            found.append(total / 2)
        return found

    expected = np.mean([abs(a - b) for a, b in zip(bends(p), bends(t), strict=True)])
    # Scale 2 makes a picture of 3 x 3, which has no pixel two steps away from its sides.
    assert error(p, t, camera=camera) == pytest.approx(expected, rel=1e-12)


def test_only_pixels_with_their_neighbours_count() -> None:
    p, t = (3 + torch.rand(2, 24, 24, generator=seeded(5), dtype=torch.float64)).unbind()
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[4:20, 3:19] = True
    assert error(torch.where(mask, p, torch.nan), torch.where(mask, t, 0.0)) == error(p, t, mask)
    diamond = torch.zeros(24, 24, dtype=torch.bool)
    for i in range(-2, 3):
        for j in range(-2, 3):
            diamond[10 + i, 10 + j] = abs(i) + abs(j) <= 2
    assert has_curvature(t, diamond)
    assert math.isfinite(error(p, t, diamond))
    diamond[10, 12] = False
    assert not has_curvature(t, diamond)
    with pytest.raises(InputError, match="moon: the mask holds no 5 x 5 pixels"):
        curvature_metrics(p, t, diamond, camera=ORTHOGRAPHIC, names=["moon"])
    assert not has_curvature(torch.ones(4, 30))
