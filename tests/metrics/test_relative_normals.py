"""RelNormal: agrees with its source, ignores what turns, moves or scales a scene, and sees bumps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import curvature_metrics, has_pairs, relative_normal_metrics
from redepth.metrics.relative_normals import PAIRS, PAIRS_OF_A_PIXEL
from redepth.metrics.surfaces import thinned
from redepth.ops.camera import Camera
from redepth.ops.geometry import ORTHOGRAPHIC, point_map
from tests.support.helpers import seeded

FEW = 20_000
PINHOLE = Camera.from_pixels(50, 52, 30, 21, 45, 61, centres="integer")


def index(height: int, width: int) -> tuple[Tensor, Tensor]:
    i, j = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    return i, j


def wavy() -> tuple[Tensor, Tensor, Tensor]:
    """Two surfaces and a mask (45, 61), by formulas alone."""
    i, j = index(45, 61)
    truth = 3 + 0.02 * j + 0.4 * torch.sin(0.3 * i) * torch.cos(0.2 * j)
    prediction = 3.1 + 0.018 * j + 0.3 * torch.sin(0.28 * i + 0.4) * torch.cos(0.21 * j)
    return prediction, truth, (7 * i + 3 * j) % 11 != 0


def plane(camera: Camera, slope: tuple[float, float], distance: float) -> Tensor:
    """The depth of a plane (45, 61)."""
    u, v = camera.axes(45, 61, dtype=torch.float64)
    along = slope[0] * u + slope[1] * v[:, None]
    return 1 / (along + 1 / distance) if camera.pinhole else distance + along


def rel_normal(p: Tensor, t: Tensor, mask: Tensor | None = None, camera: Camera = PINHOLE) -> float:
    return float(relative_normal_metrics(p, t, mask, camera=camera, pairs=FEW)["rel_normal"])


def test_it_is_that_of_the_paper() -> None:
    # Both numbers are from rel_normal of princeton-vl/EvalMDE, num_sample 20,000, on the same arrays.
    prediction, truth, mask = wavy()
    assert rel_normal(prediction, truth, mask) == pytest.approx(0.20734646772353021, rel=1e-9)
    assert rel_normal(1 / truth, truth, mask) == pytest.approx(0.16842701337966623, rel=1e-9)


def test_a_small_picture_has_fewer_pairs() -> None:
    prediction, truth, mask = wavy()
    found, counted = (
        relative_normal_metrics(prediction, truth, mask, camera=PINHOLE, pairs=pairs)["rel_normal"]
        for pairs in (None, PAIRS_OF_A_PIXEL * 45 * 61)
    )
    assert float(found) == float(counted)
    # The number of the paper's million pairs.
    assert float(found) == pytest.approx(0.20805592634504919, rel=1e-3)


@pytest.mark.slow
def test_it_is_that_of_the_paper_with_all_its_pairs() -> None:
    prediction, truth, mask = wavy()
    found = relative_normal_metrics(prediction, truth, mask, camera=PINHOLE, pairs=PAIRS)["rel_normal"]
    assert float(found) == pytest.approx(0.20805592634504919, rel=1e-9)


def test_a_picture_of_one_scale_again_by_hand() -> None:
    """Every pair of a picture of 5 x 5, which has 3 x 3 triangles."""
    generator = seeded(1)
    p, t = (2 + torch.rand(2, 5, 5, generator=generator, dtype=torch.float64)).unbind()
    camera = Camera(field_of_view=60)
    angles = []
    for depth in (p, t):
        points = point_map(depth[None, None], camera)[0].permute(1, 2, 0).numpy()
        normals = {
            (i, j): np.cross(points[i + 2, j] - points[i, j], points[i, j + 2] - points[i, j])
            for i in range(3)
            for j in range(3)
        }
        angles.append(
            {
                (a, b): math.acos(min(1, float(n @ m) / float(np.linalg.norm(n) * np.linalg.norm(m))))
                for a, n in normals.items()
                for b, m in normals.items()
            }
        )
    error = np.mean([abs(angles[0][pair] - angles[1][pair]) for pair in angles[0]])
    # Scale 2 has one triangle, and so only the pair of it with itself.
    assert rel_normal(p, t, camera=camera) == pytest.approx((error + 0) / 2, rel=0.01)


@pytest.mark.parametrize("camera", [PINHOLE, ORTHOGRAPHIC])
def test_all_planes_are_alike(camera: Camera) -> None:
    # A plane turned and moved is a plane: this is the invariance under rotation and translation.
    level, tilted = plane(camera, (0, 0), 2), plane(camera, (0.2, -0.1), 3)
    assert rel_normal(tilted, level, camera=camera) == pytest.approx(0, abs=1e-9)
    bumpy = tilted * (1 + 0.002 * torch.randn(45, 61, generator=seeded(2), dtype=torch.float64))
    assert rel_normal(bumpy, level, camera=camera) > 0.01


def roof(slopes: tuple[float, float]) -> Tensor:
    """Two planes of an orthographic picture (40, 80) that meet in its middle."""
    u = ORTHOGRAPHIC.axes(40, 80, dtype=torch.float64)[0]
    return (5 + torch.where(u < 0, slopes[0] * u, slopes[1] * u)).expand(40, 80)


def test_a_turned_roof_is_the_same_roof() -> None:
    # Slopes of -20 and 20 degrees, and the roof turned by 30 degrees: -50 to -10 degrees.
    straight, turned, flat = (
        roof((math.tan(math.radians(a)), math.tan(math.radians(b)))) for a, b in ((20, -20), (50, 10), (0, 0))
    )
    one_slope = rel_normal(flat, straight, camera=ORTHOGRAPHIC)
    # Only the triangles across the ridge, whose normal is neither slope's, differ.
    assert rel_normal(turned, straight, camera=ORTHOGRAPHIC) < 0.1 * one_slope
    # All that a flat roof gets wrong is 40 degrees at the pairs that cross the ridge.
    assert 0.05 < one_slope / math.radians(40) < 0.5


def test_the_unit_does_not_count() -> None:
    prediction, truth, mask = wavy()
    assert rel_normal(1000 * prediction, 3.28 * truth, mask) == pytest.approx(
        rel_normal(prediction, truth, mask), rel=1e-9
    )


def test_a_relief_turned_inside_out_needs_the_curvature() -> None:
    relief = wavy()[1] - 3
    inside_out, truth = 3 - relief, 3 + relief
    assert rel_normal(inside_out, truth, camera=ORTHOGRAPHIC) == pytest.approx(0, abs=1e-9)
    wrong, none = (
        float(curvature_metrics(depth, truth, camera=ORTHOGRAPHIC)["curvature_error"])
        for depth in (inside_out, torch.full_like(truth, 3))
    )
    assert wrong == pytest.approx(2 * none)


def test_a_prediction_without_a_normal_counts_as_opposite() -> None:
    narrow = Camera(field_of_view=1e-4)
    i, j = index(45, 61)
    # From each pixel, those two to the right and two below lie almost behind it: at scale 1 only, because
    # the pixels that stand for larger patches are all of one depth.
    board = 1 + (i // 2 + j // 2) % 2
    assert rel_normal(board, torch.full_like(board, 2), camera=narrow) == pytest.approx(math.pi / 4, abs=1e-6)


def test_only_the_mask_counts() -> None:
    prediction, truth, _ = wavy()
    mask = torch.zeros(45, 61, dtype=torch.bool)
    mask[10:30, 5:40] = True
    spoilt = torch.where(mask, prediction, torch.nan)
    assert rel_normal(spoilt, torch.where(mask, truth, 0.0)) == rel_normal(prediction, truth, mask)


def test_what_cannot_be_measured_is_an_error() -> None:
    prediction, truth, _ = wavy()
    dots = torch.zeros(45, 61, dtype=torch.bool)
    dots[::9, ::9] = True
    assert has_pairs(truth, pairs=FEW)
    assert not has_pairs(truth, torch.zeros(45, 61, dtype=torch.bool), pairs=FEW)
    lonely = torch.zeros(45, 61, dtype=torch.bool)
    lonely[20, 20] = True
    assert not has_pairs(truth, lonely, pairs=FEW)
    with pytest.raises(InputError, match="moon: no two pixels of the mask have a surface"):
        relative_normal_metrics(prediction, truth, lonely, camera=PINHOLE, pairs=FEW, names=["moon"])
    with pytest.raises(InputError, match="moon: some depths are not positive"):
        relative_normal_metrics(-prediction, truth, camera=PINHOLE, pairs=FEW, names=["moon"])
    # Scattered points have neighbours at a coarse scale.
    assert has_pairs(truth, dots, pairs=FEW)


def test_a_batch_is_its_images() -> None:
    prediction, truth, mask = wavy()
    both = torch.stack([prediction, truth])
    found = relative_normal_metrics(both, truth, mask, camera=PINHOLE, pairs=FEW)["rel_normal"]
    assert found.tolist() == [rel_normal(prediction, truth, mask), 0.0]


def test_a_patch_is_its_measured_pixel_next_to_the_centre() -> None:
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[0:4, 0:4] = False
    mask[3, 0] = True
    mask[5, 5] = False
    grids = {grid.scale: grid for grid in thinned(mask)}
    assert list(grids) == [1, 2, 4]
    assert torch.equal(grids[1].index, torch.arange(144).view(12, 12))
    assert torch.equal(grids[1].known, mask)
    found = grids[4].index
    # Of four that are next to the centre, the first; (5, 5) is not measured; (3, 0) is the only one.
    assert [divmod(int(found[i, j]), 12) for i, j in ((0, 0), (1, 1), (2, 2))] == [(3, 0), (5, 6), (9, 9)]
    assert bool(grids[4].known.all())
    assert int(grids[2].known.sum()) == 36 - 3
    # Patches beyond the edge have no measured pixel outside the picture.
    for grid in thinned(torch.ones(13, 14, dtype=torch.bool)):
        assert bool(grid.known.all())
        assert int(grid.index.max()) < 13 * 14
