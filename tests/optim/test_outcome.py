"""What a run returns: the maps of a panorama, closed after the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from redepth.ops import panorama
from redepth.ops.camera import SPHERICAL, Camera
from redepth.ops.filters import gaussian_blur
from redepth.optim.outcome import Outcome, closed
from tests.support.helpers import seeded
from tests.support.panoramas import box_distance


def outcome(camera: Camera, distance: torch.Tensor, **options: Any) -> Outcome:
    """Two members that differ from the initial distance by noise."""
    noise = 0.1 * torch.rand(2, *distance.shape[1:], generator=seeded())
    members = distance + noise
    return Outcome(
        predicts="depth",
        initial=distance,
        members=members,
        initial_depth=distance,
        member_depths=members,
        offsets=torch.zeros(2),
        history={},
        steps_done=[1, 1],
        members_per_batch=2,
        sky=distance > 2.5,
        camera=camera,
        **options,
    )


def test_an_extended_panorama_is_closed() -> None:
    distance = box_distance(16, 32).float()
    whole = closed(outcome(Camera(spherical=True, margin=1 / 8), panorama.extend(distance, 4)))
    assert whole.camera == SPHERICAL
    assert torch.allclose(whole.initial, distance)
    assert torch.allclose(whole.initial_depth, distance)
    assert whole.sky is not None
    assert torch.equal(whole.sky, distance > 2.5)
    shapes = [whole.members, whole.member_depths, whole.refined, whole.uncertainty]
    assert [tuple(values.shape[-2:]) for values in shapes] == [(16, 32)] * 4


@pytest.mark.parametrize("camera", [SPHERICAL, Camera(field_of_view=60.0), Camera()])
def test_any_other_outcome_is_left_alone(camera: Camera) -> None:
    whole = outcome(camera, box_distance(8, 16).float())
    assert closed(whole) is whole


def test_the_detail_of_a_panorama_knows_no_edge() -> None:
    distance = box_distance(16, 32).float()
    found = outcome(SPHERICAL, distance, blend="detail", blend_scale=0.2)
    change = found.members.mean(dim=0, keepdim=True) - distance
    # Of three turns in a row, the middle one knows no edge.
    blurred = gaussian_blur(change.repeat(1, 1, 1, 3), 0.2 * 16)[..., 32:64]
    assert torch.allclose(found.refined, distance + change - blurred, atol=1e-6)


@pytest.mark.parametrize(("camera", "kept"), [(Camera(field_of_view=60.0), True), (Camera(), False)])
def test_a_change_of_the_far_does_not_move_the_near_of_a_pinhole(camera: Camera, kept: bool) -> None:
    depth = torch.full((1, 1, 24, 24), 2.0)
    depth[..., :6, :] = 40.0
    members = depth.clone()
    members[..., :6, :] = 80.0
    found = outcome(camera, depth, blend="detail", blend_scale=0.2)
    found = replace(found, member_depths=members.expand(2, -1, -1, -1))
    near = found.refined_depth[..., 8:, :]
    assert bool(((near - 2).abs() < 0.2).all()) is kept
    assert bool((found.refined_depth > 0).all()) is kept
