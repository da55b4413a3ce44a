"""Panoramas through the refiner: extended before the depth model, closed after the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.config import Optim
from redepth.depth_models.precomputed import Precomputed
from redepth.errors import InputError
from redepth.guidance import Anchors, Given, NormalMap, SkyMask
from redepth.ops import geometry, panorama
from redepth.ops.camera import SPHERICAL
from redepth.optim.objectives import KnownNormals, KnownPoints
from redepth.optim.outcome import Outcome, StepReport
from redepth.optim.refiner import Refiner
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.helpers import CPU, TargetPrior, make_refiner
from tests.support.panoramas import HALF_SIDES, box_distance, box_normals, box_parts, room_photo

AROUND = Given(camera=SPHERICAL)


def gaps(values: Tensor) -> tuple[float, float]:
    """Mean step across the edge, and between neighbours of the columns beside it."""
    beside = values.roll(8, -1)[..., :17].diff(dim=-1).abs()
    return (values[..., 0] - values[..., -1]).abs().mean().item(), beside.mean().item()


def room_refiner(tmp_path: Path, distance: Tensor, **optim: Any) -> Refiner:
    np.save(tmp_path / "room.npy", distance[0, 0].numpy())
    model = Precomputed(path=str(tmp_path / "room.npy"), predicts="metric-depth", longer_side=160)
    settings = {"steps": 4, "members": 2, "parameterization": "depth", "objectives": {}} | optim
    rates = {"learning_rates": {"depth": 2e-3}}
    return Refiner(model, BlinnPhong(), TargetPrior(), Optim.model_validate(rates | settings), {}, CPU)


def test_a_network_leaves_no_seam(device: torch.device) -> None:
    """The tiny network answers otherwise at the left edge than at the right; the closed maps fit together."""
    sizes = []

    def watch(report: StepReport) -> None:
        sizes.append(tuple(report.raw.shape[-2:]))

    refiner = make_refiner(device=device)
    whole = room_photo(64, 128)
    found = refiner.run(whole, given=AROUND, on_step=watch)
    plain = refiner.run(whole)
    assert found.camera == SPHERICAL
    assert set(sizes) == {(28, 70)}, "1 / 8 of a turn more on either side"
    assert found.initial.shape == (1, 1, 28, 56)
    for name in ("initial", "refined", "refined_depth"):
        seam, beside = gaps(getattr(found, name))
        assert seam <= 1.2 * beside
    open_seam, open_beside = gaps(plain.initial)
    assert open_seam > 2 * open_beside, "the photo as it is has a seam: this test can fail"


def test_a_room_stays_a_room(tmp_path: Path) -> None:
    """From a map of its distances in metres, before any step and after some."""
    distance = box_distance(64, 128)
    found = room_refiner(tmp_path, distance).run(room_photo(64, 128), given=AROUND)
    assert found.initial.shape == (1, 1, 64, 128)
    assert torch.allclose(found.initial, distance.float(), atol=1e-5)
    points = geometry.point_map(found.initial, SPHERICAL)[0].double()
    on_walls = (points.abs() / HALF_SIDES[:, None, None]).amax(dim=0)
    assert torch.allclose(on_walls, torch.ones(64, 128, dtype=torch.float64), atol=1e-5)
    inside = box_parts(64, 128)
    local = geometry.normals_from_depth(found.initial, SPHERICAL)
    cosine = (geometry.facing_centre(local, SPHERICAL)[0] * box_normals(64, 128)).sum(dim=0)
    assert torch.rad2deg(torch.acos(cosine[inside].clamp(-1, 1))).max() < 0.5
    assert not torch.equal(found.refined, found.initial)
    for name in ("initial", "refined", "refined_depth"):
        seam, beside = gaps(getattr(found, name))
        assert seam <= 1.2 * beside


def test_detail_is_added_without_a_seam(tmp_path: Path) -> None:
    refiner = room_refiner(tmp_path, box_distance(64, 128), blend="detail", blend_scale=0.2)
    seam, beside = gaps(refiner.run(room_photo(64, 128), given=AROUND).refined)
    assert seam <= 1.2 * beside


def test_the_sky_of_a_panorama_goes_around(tmp_path: Path) -> None:
    mask = torch.zeros(1, 1, 64, 128, dtype=torch.bool)
    mask[:, :, :20, :16] = True
    refiner = room_refiner(tmp_path, box_distance(64, 128))
    seen: list[Tensor] = []

    class Remember:
        def __call__(self, surface: Any) -> Tensor:
            seen.append(surface.sky)
            return surface.raw.sum(dim=(1, 2, 3)) * 0

    refiner.objectives = {"remember": (1.0, Remember())}
    found: Outcome = refiner.run(room_photo(64, 128), given=Given(SPHERICAL, (SkyMask(mask),)))
    assert torch.equal(found.sky, mask)
    extended = seen[0]
    assert extended.shape == (1, 1, 64, 160)
    assert extended[0, 0, 0].nonzero().flatten().tolist() == [*range(16, 32), *range(144, 160)]


def test_a_photo_after_a_panorama_is_not_extended(tmp_path: Path) -> None:
    refiner = room_refiner(tmp_path, box_distance(64, 128))
    refiner.run(room_photo(64, 128), given=AROUND)
    assert refiner.run(room_photo(64, 128)).initial.shape == (1, 1, 80, 160)


def test_a_photo_of_another_shape_is_no_panorama() -> None:
    with pytest.raises(InputError, match="twice as wide as high, this photo is 96 x 64"):
        make_refiner().run(room_photo(64, 96), given=AROUND)


def test_known_points_of_a_panorama_are_found_where_the_picture_goes_on(tmp_path: Path) -> None:
    """Points beside the edge are in the extended picture twice, on the same distances both times."""
    distance = box_distance(64, 128)
    rows, columns = torch.tensor([20, 32, 40, 50]), torch.tensor([3, 40, 64, 125])
    depth = distance[0, 0, rows, columns]
    points = Anchors((columns + 0.5) / 128, (rows + 0.5) / 64, depth)
    assert points.extended(0.0) is points
    twice = points.extended(1 / 8)
    assert len(twice.x) == 6
    seen = panorama.extend(distance, 16)[0, 0]
    row, column = (twice.y * 64 - 0.5).round().long(), (twice.x * 160 - 0.5).round().long()
    assert torch.allclose(seen[row, column], twice.depth)
    refiner = room_refiner(tmp_path, 1.7 * distance, blend="detail", blend_scale=0.2)
    refiner.objectives = {"anchors": (10.0, KnownPoints())}
    found = refiner.run(room_photo(64, 128), given=Given(SPHERICAL, (points,)))
    assert found.support is not None
    assert found.support.shape == found.refined.shape == (1, 1, 64, 128)
    seam, beside = gaps(found.refined)
    assert seam <= 1.2 * beside


def test_given_normals_of_a_panorama_go_around(tmp_path: Path) -> None:
    """Normals of the room itself ask for nothing: their loss is that of rounding."""
    distance = box_distance(64, 128).float()
    normals = geometry.normals_from_depth(distance, SPHERICAL)
    refiner = room_refiner(tmp_path, distance, steps=1, prior_weight=0.0)
    refiner.objectives = {"normals": (1.0, KnownNormals())}
    losses = []
    for shift in (0, 16):
        given = Given(SPHERICAL, (NormalMap(normals.roll(shift, -1)),))
        losses.append(refiner.run(room_photo(64, 128), given=given).history["normals"][0][0])
    assert losses[0] < 0.01
    assert losses[1] > 5 * losses[0]
