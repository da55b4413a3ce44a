"""Maps carried along a flow, and along the motion of a camera."""

from __future__ import annotations

import pytest
import torch

from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.warp import consistent, pixels, reproject, warp, within
from tests.support.helpers import seeded

PINHOLE = Camera(field_of_view=60.0)


def constant_flow(x: float, y: float, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return motion


def test_whole_pixels_are_moved_exactly() -> None:
    values = torch.rand(1, 2, 12, 16, generator=seeded())
    carried = warp(values, constant_flow(3, -2))
    torch.testing.assert_close(carried[..., 2:, :-3], values[..., :-2, 3:], atol=1e-5, rtol=0)


def test_a_plane_is_moved_exactly_by_parts_of_a_pixel() -> None:
    x, y = pixels(12, 16, like=torch.zeros(1))[0]
    plane = (2 * x - 3 * y)[None, None]
    carried = warp(plane, constant_flow(0.4, -0.3))
    torch.testing.assert_close(carried[..., 3:-3, 3:-3], (plane + 0.8 + 0.9)[..., 3:-3, 3:-3])


def test_an_edge_is_not_exceeded() -> None:
    step = torch.zeros(1, 1, 12, 16)
    step[..., 8:] = 5.0
    carried = warp(step, constant_flow(0.5, 0.5))
    assert carried.min() >= 0
    assert carried.max() <= 5
    assert 1 < float(carried[0, 0, 5, 7]) < 4


def test_where_a_flow_leaves_the_picture() -> None:
    inside = within(constant_flow(3, 0))
    assert inside[..., :-3].all()
    assert not inside[..., -3:].any()


def test_flows_are_consistent_where_they_lead_back() -> None:
    back, forth = constant_flow(2, 0), constant_flow(-2, 0)
    forth[..., 4:8, 4:8] = 0
    ok = consistent(back, forth, 0.5)
    assert not ok[0, 0, 5, 3]
    assert ok[0, 0, 1, 1]
    assert not ok[..., -2:].any()
    assert not consistent(back, forth + 0.6, 0.5).any()
    assert consistent(back, forth + 0.3, 0.5)[0, 0, 1, 1]


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE])
def test_a_camera_that_stands_still_sees_the_same(camera: Camera) -> None:
    depth = 1 + torch.rand(1, 1, 12, 16, generator=seeded())
    seen = reproject(depth, camera, moved())
    assert seen.valid.all()
    assert seen.back.abs().max() < 1e-4
    assert seen.change.abs().max() < 1e-5


def test_parallax_of_a_plane() -> None:
    height, width, z = 12, 16, 4.0
    depth = torch.full((1, 1, height, width), z)
    fx, fy, _, _ = PINHOLE.intrinsics_in_pixels(height, width)
    # The camera goes right and down: points go left and up.
    seen = reproject(depth, PINHOLE, moved(x=-2 * z / fx, y=-1 * z / fy))
    assert seen.valid[..., :-1, :-2].all()
    assert not seen.valid[..., -2:].any()
    torch.testing.assert_close(
        seen.back[..., :-1, :-2], constant_flow(2, 1)[..., :-1, :-2], atol=1e-4, rtol=0
    )
    assert seen.change[seen.valid].abs().max() < 1e-5


def test_a_camera_that_goes_forward_comes_nearer() -> None:
    depth = torch.full((1, 1, 12, 16), 4.0)
    seen = reproject(depth, PINHOLE, moved(z=-0.2))
    torch.testing.assert_close(seen.change[seen.valid], torch.full_like(seen.change[seen.valid], -0.2))
    # What is 7.5 columns right of the axis now was 7.5 * 3.8 / 4 columns right of it before.
    assert float(seen.back[0, 0, 6, 15]) == pytest.approx(7.5 * (3.8 / 4 - 1), abs=0.02)


def test_an_orthographic_camera_moves_by_its_own_unit() -> None:
    depth = 1 + torch.rand(1, 1, 12, 16, generator=seeded())
    # The width spans 15 pixels over twice the aspect.
    seen = reproject(depth, ORTHOGRAPHIC, moved(x=-3 * 2 * (16 / 12) / 15, z=0.5))
    torch.testing.assert_close(seen.back[..., :-3], constant_flow(3, 0)[..., :-3], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        seen.change[..., :-3], torch.full_like(seen.change[..., :-3], 0.5), atol=1e-5, rtol=0
    )


def test_a_near_surface_hides_a_far_one() -> None:
    depth = torch.full((1, 1, 12, 16), 10.0)
    depth[..., 4:8] = 1.0
    fx = PINHOLE.intrinsics_in_pixels(12, 16)[0]
    # The near block goes left by 4 columns, the ground by 0.4.
    seen = reproject(depth, PINHOLE, moved(x=-4 / fx))
    assert float(seen.back[0, 0, 6, 1]) == pytest.approx(4, abs=0.05)
    assert not seen.valid[0, 0, 6, 5:7].any(), "the ground behind the block was not seen"


def test_a_camera_that_turns() -> None:
    angle = torch.tensor(0.1, dtype=torch.float64)
    motion = torch.eye(4, dtype=torch.float64)
    motion[0, 0] = motion[1, 1] = angle.cos()
    motion[1, 0], motion[0, 1] = angle.sin(), -angle.sin()
    depth = torch.full((1, 1, 12, 12), 2.0)
    seen = reproject(depth, ORTHOGRAPHIC, motion)
    # x right, y down: the point right of the centre goes down, so it was above where it is now.
    place = torch.tensor([3.5, 0.5])
    before = torch.tensor(
        [
            place[0] * angle.cos() + place[1] * angle.sin(),
            place[1] * angle.cos() - place[0] * angle.sin(),
        ]
    )
    found = seen.back[0, :, 6, 9]
    torch.testing.assert_close(found, (before - place).float(), atol=0.02, rtol=0)
