"""Known points, normals and planes as objectives: what they cost, and that they pull on the surface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Surface
from redepth.errors import InputError
from redepth.guidance import Anchors, Frame, Given, Guidance, NormalMap, Planes
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.filters import detail
from redepth.ops.geometry import normals_from_depth, relative_depth
from redepth.optim.objectives import KnownNormals, KnownPlanes, KnownPoints
from redepth.optim.parameterizations import PARAMETERIZATIONS
from tests.ops.test_known_points import raw_map
from tests.support.helpers import make_refiner, photo, seeded

PINHOLE = Camera(field_of_view=60.0)


def frame(raw: Tensor, camera: Camera = ORTHOGRAPHIC, metric: bool = False) -> Frame:
    return Frame(torch.zeros(1, 3, *raw.shape[-2:]), raw, 1.0, "disparity", metric, camera)


def surface(raw: Tensor, data: Any, of: Frame) -> Surface:
    return Surface(raw, relative_depth(raw), of.image, "disparity", Guidance.prepare([data], of))


def points_of(raw: Tensor, count: int = 40, a: float = 0.2, b: float = 0.1, seed: int = 3) -> Anchors:
    """Points at pixel centres that agree with a raw output under a and b."""
    height, width = raw.shape[-2:]
    pixels = torch.randperm(height * width, generator=seeded(seed))[:count]
    rows, columns = pixels // width, pixels % width
    depth = 1 / (a * raw[0, 0, rows, columns].double() + b)
    return Anchors((columns + 0.5) / width, (rows + 0.5) / height, depth)


# --- known points ---------------------------------------------------------------------------------


def test_points_that_agree_cost_nothing_and_others_pull_the_surface_to_them() -> None:
    raw = raw_map().float()
    of = frame(raw)
    given = points_of(raw)
    assert KnownPoints()(surface(raw, given, of)).item() < 1e-6
    moved = (1.1 * raw).requires_grad_()
    loss = KnownPoints()(surface(moved, given, of))
    loss.sum().backward()
    assert loss.item() > 0.1
    assert bool((moved.grad >= 0).all()), "the raw output has to fall"
    assert KnownPoints()(Surface(raw, raw, raw)).tolist() == [0.0]


def test_an_outlier_does_not_pull() -> None:
    raw = raw_map().float()
    given = points_of(raw)
    wrong = Anchors(given.x, given.y, given.depth * torch.where(torch.arange(40) == 7, 3.0, 1.0))
    targets = wrong.prepared(frame(raw)).targets
    assert targets is not None
    assert targets.weight[7] == 0.0
    assert targets.weight[torch.arange(40) != 7].min() > 0.5


def test_a_point_behind_a_nearer_one_counts_less() -> None:
    raw = torch.linspace(1, 4, 48).expand(1, 1, 48, 48).clone()
    given = points_of(raw, 60)
    hidden = int(given.depth.argmin())
    near = Anchors(
        torch.cat([given.x, given.x[hidden : hidden + 1] + 1 / 48]),
        torch.cat([given.y, given.y[hidden : hidden + 1]]),
        torch.cat([given.depth, 1.2 * given.depth[hidden : hidden + 1]]),
    )
    loose = replace(near, sigma=near.depth)  # noise that no point is an outlier under
    targets = loose.prepared(frame(raw)).targets
    assert targets is not None
    assert targets.weight[-1] < 0.11 * targets.weight[hidden]


def test_at_an_edge_a_point_may_be_of_either_side() -> None:
    raw = torch.ones(1, 1, 24, 24)
    raw[..., 12:] = 4.0
    raw[..., :12, :] += 1.0
    given = points_of(raw, 50)
    edge = Anchors(
        torch.cat([given.x, torch.tensor([11.5 / 24, 11.5 / 24])]),
        torch.cat([given.y, torch.tensor([20.5 / 24, 18.5 / 24])]),
        torch.cat([given.depth, 1 / (0.2 * torch.tensor([1.0, 4.0], dtype=torch.float64) + 0.1)]),
    )
    targets = edge.prepared(frame(raw)).targets
    assert targets is not None
    assert targets.edge[-2:].tolist() == [True, True]
    assert targets.errors(raw)[0, -2:].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_many_points_fix_low_frequencies_and_none_far_away() -> None:
    raw = raw_map().float()
    targets = points_of(raw, 600).prepared(frame(raw)).targets
    assert targets is not None
    assert targets.support(8.0).min() > 0.8
    few = points_of(raw, 6).prepared(frame(raw)).targets
    assert few is not None
    assert few.support(8.0).max() < 0.7
    assert few.support(8.0).min() < 0.1


RATES = {"embeddings": 2e-2, "decoder": 3e-4, "encoder": 3e-4} | {
    "depth": 3e-2,
    "correction": 2e-2,
    "offset": 0.0,
}


@pytest.mark.parametrize("name", sorted(PARAMETERIZATIONS))
def test_the_surface_goes_to_the_points_in_every_parameterization(name: str) -> None:
    refiner = make_refiner(parameterization=name, members=1, steps=60, learning_rates=RATES, prior_weight=0.0)
    refiner.objectives = {"anchors": (1.0, KnownPoints())}
    _, _, raw = refiner.predict(photo())
    bent = raw * (1 + 0.3 * torch.linspace(-1, 1, raw.shape[-1]))
    given = points_of(bent, 60)
    outcome = refiner.run(photo(), given=Given(data=(given,)))
    targets = given.prepared(frame(raw)).targets
    assert targets is not None
    before, after = (targets.errors(values).abs().mean() for values in (outcome.initial, outcome.refined))
    assert after < 0.6 * before


def test_the_blend_keeps_low_frequencies_where_points_fix_them() -> None:
    settings: dict[str, Any] = {"parameterization": "low-rank", "members": 1, "steps": 30, "blend": "detail"}
    refiner = make_refiner(learning_rates=RATES, prior_weight=0.0, **settings)
    refiner.objectives = {"anchors": (1.0, KnownPoints())}
    _, _, raw = refiner.predict(photo())
    bent = raw * (1 + 0.3 * torch.linspace(-1, 1, raw.shape[-1]))
    outcome = refiner.run(photo(), given=Given(data=(points_of(bent, 200),)))
    change = outcome.members.mean(0, keepdim=True) - outcome.initial
    small = detail(change, outcome.blend_scale)
    assert outcome.support is not None
    assert torch.allclose(
        outcome.refined, outcome.initial + small + outcome.support * (change - small), atol=1e-6
    )
    assert (outcome.refined - outcome.initial - change).norm() < 0.5 * (small - change).norm()
    assert replace(outcome, support=None).refined.allclose(outcome.initial + small, atol=1e-6)


# --- normals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE])
@pytest.mark.parametrize("convention", ["redepth", "opengl", "opencv"])
def test_true_normals_cost_nothing_in_every_frame_and_under_every_camera(
    camera: Camera, convention: Any
) -> None:
    raw = raw_map().float()
    normals = normals_from_depth(relative_depth(raw), camera)
    if convention == "opencv":
        normals = normals * torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    of = frame(raw, camera)
    given = NormalMap(3.0 * normals, convention)
    assert KnownNormals()(surface(raw, given, of)).item() < 1e-5
    assert KnownNormals()(surface(raw.flip(-1), given, of)).item() > 1e-3
    assert KnownNormals()(Surface(raw, raw, raw)).tolist() == [0.0]


def test_unknown_normals_do_not_count_and_the_wrong_frame_is_refused() -> None:
    raw = raw_map().float()
    normals = normals_from_depth(relative_depth(raw))
    normals[..., :24, :] = torch.nan
    given = NormalMap(normals).prepared(frame(raw))
    assert not given.known[..., :23, :].any()
    assert given.known[..., 25:, :].all()
    with pytest.raises(InputError, match="away from the viewer"):
        NormalMap(normals, "opencv").prepared(frame(raw))
    with pytest.raises(InputError, match="unknown everywhere"):
        NormalMap(0 * normals).prepared(frame(raw))


# --- planes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE])
def test_a_plane_costs_nothing_under_its_camera_and_a_bent_one_does(camera: Camera) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 30), torch.linspace(0, 1, 40), indexing="ij")
    plane = (2 + columns + 0.5 * rows)[None, None]
    depth = 1 / plane if camera.pinhole else plane
    labels = torch.zeros(60, 80, dtype=torch.long)
    labels[10:40, 5:70] = 3
    labels[45:, :] = 9
    of = frame(plane, camera)
    guidance = Guidance.prepare([Planes(labels)], of)

    def cost(values: Tensor) -> float:
        return KnownPlanes()(Surface(plane, values, of.image, guidance=guidance)).item()

    assert cost(depth) < 1e-5
    assert cost(depth * (1 + 0.2 * columns**2)) > 1e-3
    outside = depth.clone()
    outside[..., :4, :] *= 2
    assert cost(outside) < 1e-5
    assert KnownPlanes()(Surface(plane, plane, plane)).tolist() == [0.0]


def test_planes_that_cannot_be_used_are_refused() -> None:
    raw = raw_map().float()
    with pytest.raises(InputError, match="no plane has"):
        Planes(torch.zeros(9, 9, dtype=torch.long)).prepared(frame(raw))
    with pytest.raises(InputError, match="integers"):
        Planes(torch.zeros(9, 9)).prepared(frame(raw))
