from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redepth.ops import geometry
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from tests.support.helpers import photo, seeded


def test_normals_of_a_tilted_plane_are_its_gradient(device: torch.device) -> None:
    u, v = ORTHOGRAPHIC.axes(20, 30, dtype=torch.float64, device=device)
    depth = (2 + 0.5 * u[None, :] - 0.25 * v[:, None])[None, None]
    # It recedes to the right and downward, so it faces right and down: x right, y up, z towards the viewer.
    expected = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64, device=device)
    expected = expected / expected.norm()
    normals = geometry.normals_from_depth(depth)
    assert torch.allclose(normals, expected.view(1, 3, 1, 1).expand_as(normals), atol=1e-7)


def test_a_half_turn_negates_x_and_y() -> None:
    vectors = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])
    turned = torch.tensor([[-1.0, 2.0, 3.0], [-0.5, -0.25, -1.0]])
    assert torch.equal(geometry.half_turn(vectors), turned)
    assert torch.equal(geometry.half_turn(vectors.mT, dim=0), turned.mT)


def test_normals_gradcheck(device: torch.device) -> None:
    depth = torch.rand(2, 1, 5, 4, dtype=torch.float64, generator=seeded()).to(device) + 0.5
    assert torch.autograd.gradcheck(geometry.normals_from_depth, depth.requires_grad_())


def test_one_nan_does_not_spread(device: torch.device) -> None:
    depth = torch.rand(1, 1, 9, 9, generator=seeded()).to(device) + 1
    clean = geometry.normals_from_depth(depth)
    broken = depth.clone()
    broken[0, 0, 4, 4] = float("nan")
    broken.requires_grad_()
    normals = geometry.normals_from_depth(broken)
    assert torch.isfinite(normals).all()
    assert normals[0, :, 4, 4].tolist() == [0.0, 0.0, -1.0]
    far = torch.ones(9, 9, dtype=torch.bool, device=device)
    far[3:6, 3:6] = False
    assert torch.equal(normals[0][:, far], clean[0][:, far])
    normals.sum().backward()
    assert torch.isfinite(broken.grad).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_unusable_depth_has_the_backward_normal(value: float, device: torch.device) -> None:
    normals = geometry.normals_from_depth(torch.full((1, 1, 4, 4), value, device=device))
    assert torch.equal(normals[0, :, 1, 1].cpu(), torch.tensor([0.0, 0.0, -1.0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (2, 5)])
def test_degenerate_sizes_give_finite_unit_normals(size: tuple[int, int], device: torch.device) -> None:
    depth = (torch.rand(1, 1, *size, generator=seeded()).to(device) + 1).requires_grad_()
    normals = geometry.normals_from_depth(depth)
    assert torch.allclose(normals.norm(dim=1), torch.ones(1, *size, device=device), atol=1e-5)
    normals.sum().backward()
    assert torch.isfinite(depth.grad).all()


def test_a_depth_without_its_channel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), got \(1, 4, 4\)"):
        geometry.normals_from_depth(torch.ones(1, 4, 4))


def test_relative_depth_of_disparity_and_depth(device: torch.device) -> None:
    raw = torch.tensor([0.0, 6.9]).view(1, 1, 1, 2).to(device)
    assert geometry.relative_depth(raw).flatten().tolist() == pytest.approx([70.0, 1.0])
    shifted = geometry.relative_depth(raw, offset=torch.tensor(0.5, device=device))
    assert shifted.flatten()[1].item() == pytest.approx((7 + np.tanh(0.5)) / 7)
    metric = geometry.relative_depth(raw, predicts="depth", scale=2.0)
    assert metric.flatten().tolist() == pytest.approx([0.0, 13.8])


def test_the_reference_depth_is_where_an_orthographic_slope_is_that_of_a_camera() -> None:
    """A plane of slope 0.3 through the axis, seen by a camera of 55 degrees: one normal in the middle."""
    z, t = geometry.TRUE_SLOPE_DEPTH, np.tan(np.radians(27.5))
    u = torch.linspace(-1, 1, 401, dtype=torch.float64)
    depth = (z / (1 - 0.3 * t * u)).expand(401, 401)[None, None]
    middle = [
        geometry.normals_from_depth(depth, camera)[0, :, 200, 200]
        for camera in (ORTHOGRAPHIC, Camera(field_of_view=55.0))
    ]
    assert torch.allclose(middle[0], middle[1], atol=1e-3)
    expected = torch.tensor([0.3, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(middle[0], expected / expected.norm(), atol=1e-3)


def test_the_auto_unit_puts_the_edge_of_the_nearest_quarter_there(device: torch.device) -> None:
    disparity = torch.linspace(0.5, 9.5, 101, device=device).view(1, 1, 1, 101)
    unit = geometry.auto_unit(disparity)
    assert unit == pytest.approx(7.25 / (7 / 1.920982 - 0.1))
    depth = geometry.relative_depth(disparity / unit)
    assert depth[..., 75].item() == pytest.approx(1.920982)
    metres = torch.linspace(2.0, 12.0, 101, device=device).view(1, 1, 1, 101)
    unit = geometry.auto_unit(metres, predicts="depth")
    assert geometry.relative_depth(metres / unit, predicts="depth")[..., 25].item() == pytest.approx(1.920982)


def test_the_auto_unit_follows_the_range_and_what_says_nothing_of_scale_does_not_count() -> None:
    raw = torch.rand(1, 1, 20, 30, generator=seeded()) + 0.1
    for predicts in ("disparity", "depth"):
        unit = geometry.auto_unit(raw, predicts=predicts)
        assert geometry.auto_unit(1000 * raw, predicts=predicts) == pytest.approx(1000 * unit, rel=1e-5)
        sky = torch.cat([raw, torch.zeros(1, 1, 200, 30), torch.full((1, 1, 1, 30), torch.nan)], dim=2)
        assert geometry.auto_unit(sky, predicts=predicts) == unit
    with pytest.raises(ValueError, match="no value is finite and positive"):
        geometry.auto_unit(torch.zeros(1, 1, 4, 4))


def test_relative_depth_gradcheck(device: torch.device) -> None:
    raw = torch.rand(2, 1, 3, 3, dtype=torch.float64, generator=seeded()).to(device).requires_grad_()
    offset = torch.zeros(2, 1, 1, 1, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, o: geometry.relative_depth(r, offset=o), (raw, offset))


def test_difference_is_numpys_gradient(device: torch.device) -> None:
    values = torch.rand(7, 9, dtype=torch.float64, generator=seeded())
    for dim in (0, 1):
        expected = np.gradient(values.numpy(), axis=dim)
        assert np.allclose(geometry.difference(values.to(device), dim).cpu().numpy(), expected)


def test_point_map_spans_the_orthographic_frame(device: torch.device) -> None:
    points = geometry.point_map(torch.full((1, 1, 3, 5), 2.0, device=device))
    assert points[0, 0, 0, [0, -1]].tolist() == pytest.approx([-5 / 3, 5 / 3])
    assert points[0, 1, [0, -1], 0].tolist() == [1.0, -1.0]
    assert (points[0, 2] == 2.0).all()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_network_size_keeps_its_bounds(height: int, width: int) -> None:
    h, w = geometry.network_size(height, width, target=518, multiple=14)
    assert h % 14 == 0
    assert w % 14 == 0
    assert 14 <= max(h, w) <= 518
    low_h, low_w = geometry.network_size(height, width, target=518, multiple=14, rule="lower_bound")
    assert min(low_h, low_w) >= 518


def test_network_size_may_aim_at_a_height_and_a_width() -> None:
    for rule, expected in (("upper_bound", (384, 512)), ("lower_bound", (384, 512)), ("minimal", (384, 512))):
        assert geometry.network_size(480, 640, target=(384, 512), multiple=32, rule=rule) == expected
    # A wide photo reaches its width first, a narrow one its height.
    assert geometry.network_size(400, 1200, target=(384, 512), multiple=32) == (160, 512)
    assert geometry.network_size(1200, 400, target=(384, 512), multiple=32) == (384, 128)
    assert geometry.network_size(400, 1200, target=(384, 512), multiple=32, rule="lower_bound") == (384, 1152)


def test_resize_to_the_same_size_is_the_same_picture() -> None:
    picture = photo()
    assert geometry.resize(picture, 56, 70) is picture
    assert geometry.resize(picture, 28, 35).shape == (1, 3, 28, 35)


def tilted_plane(camera: Camera, height: int, width: int, normal: torch.Tensor) -> torch.Tensor:
    """The depth at which each ray meets the plane normal . (x, y, -z) = -3 (x right, y up)."""
    u, v = camera.axes(height, width, dtype=torch.float64)
    along = normal[0] * u[None, :] + normal[1] * v[:, None] - normal[2]
    return (-3 / along)[None, None]


@pytest.mark.parametrize(
    "camera",
    [
        Camera(field_of_view=50.0),
        Camera(field_of_view=100.0),
        Camera(intrinsics=(0.8, 1.3, 0.4, 0.6)),
    ],
)
def test_pinhole_normals_of_a_plane_point_the_same_way_everywhere(camera: Camera) -> None:
    expected = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    expected = expected / expected.norm()
    depth = tilted_plane(camera, 61, 90, expected)
    facing = geometry.normals_from_depth(depth, camera)
    inner = facing[:, :, 1:-1, 1:-1]
    assert torch.allclose(inner, expected.view(1, 3, 1, 1).expand_as(inner), atol=1e-3)
    assert torch.allclose(facing, expected.view(1, 3, 1, 1).expand_as(facing), atol=0.05)


def test_pinhole_normals_do_not_know_the_scale_of_depth() -> None:
    camera = Camera(field_of_view=60.0)
    depth = torch.rand(1, 1, 9, 12, generator=seeded(), dtype=torch.float64) + 2
    normals = geometry.normals_from_depth(depth, camera)
    assert torch.allclose(geometry.normals_from_depth(7 * depth, camera), normals, atol=1e-6)
    view = camera.view(9, 12, like=depth)
    assert ((normals * view).sum(dim=1) > 0).all(), "the surface faces the camera"


def test_pinhole_normals_are_those_of_the_point_map(device: torch.device) -> None:
    camera = Camera(field_of_view=60.0)
    column = torch.linspace(0, 1, 80, dtype=torch.float64, device=device)
    depth = (3 + 0.2 * torch.sin(4 * column)[None, :] * torch.cos(3 * column)[:60, None])[None, None]
    x, y, z = geometry.point_map(depth, camera)[0]
    points = torch.stack([x, y, -z])
    along_row = (points[:, 1:-1, 2:] - points[:, 1:-1, :-2]) / 2
    along_column = (points[:, 2:, 1:-1] - points[:, :-2, 1:-1]) / 2
    expected = torch.linalg.cross(along_column, along_row, dim=0)
    expected = expected / expected.norm(dim=0)
    facing = geometry.normals_from_depth(depth, camera)[0, :, 1:-1, 1:-1]
    assert torch.allclose(facing, expected, atol=2e-3)


def test_pinhole_gradcheck(device: torch.device) -> None:
    camera = Camera(field_of_view=70.0)
    depth = torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=seeded()).to(device) + 1
    assert torch.autograd.gradcheck(lambda z: geometry.normals_from_depth(z, camera), depth.requires_grad_())


def test_a_narrow_pinhole_sees_what_an_orthographic_camera_sees() -> None:
    far, angle = 200.0, 0.573  # degrees: the picture is about 2 W / H wide at this distance
    height, width = 40, 40
    relief = 0.1 * torch.rand(1, 1, 5, 5, generator=seeded(), dtype=torch.float64)
    relief = torch.nn.functional.interpolate(relief, (height, width), mode="bicubic")
    flat = geometry.normals_from_depth(1 + relief)
    pinhole = geometry.normals_from_depth(far + relief, Camera(field_of_view=angle))
    assert torch.allclose(flat, pinhole, atol=0.03)


@pytest.mark.parametrize("angle", [0.0, 180.0, -10.0])
def test_a_field_of_view_outside_its_range_is_refused(angle: float) -> None:
    with pytest.raises(ValueError, match=r"field_of_view must be in \(0, 180\)"):
        Camera(field_of_view=angle)


def test_a_camera_is_told_its_focal_length_once_and_positive() -> None:
    with pytest.raises(ValueError, match="give one"):
        Camera(field_of_view=50.0, intrinsics=(1, 1, 0.5, 0.5))
    with pytest.raises(ValueError, match="fx and fy > 0"):
        Camera(intrinsics=(1, 0, 0.5, 0.5))
