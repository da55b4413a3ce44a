from __future__ import annotations

import math

import pytest
import torch

from redepth.ops import geometry
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera, ray_frames
from redepth.ops.mesh import grid_mesh
from redepth.ops.shadows import soft_shadows
from tests.support.helpers import seeded
from tests.support.panoramas import HALF_SIDES, box_distance, box_normals, box_parts


def test_a_camera_is_of_one_of_three_kinds() -> None:
    assert ORTHOGRAPHIC.kind == "orthographic"
    assert Camera(field_of_view=50.0).kind == Camera(intrinsics=(1, 1, 0.5, 0.5)).kind == "pinhole"
    assert SPHERICAL.kind == "spherical"
    assert not SPHERICAL.pinhole
    assert SPHERICAL.closed
    assert not ORTHOGRAPHIC.closed
    assert not Camera(spherical=True, margin=0.1).closed


def test_a_pixel_of_known_intrinsics_is_on_the_axis() -> None:
    """The pixel (row 2, column 7) of 10 x 20: its centre is (7.5, 2.5) here, (7, 2) in OpenCV."""
    half = Camera.from_pixels(15.0, 12.0, 7.5, 2.5, 10, 20)
    opencv = Camera.from_pixels(15.0, 12.0, 7.0, 2.0, 10, 20, centres="integer")
    assert half == opencv
    u, v = half.axes(10, 20, dtype=torch.float64)
    assert u[7].item() == pytest.approx(0, abs=1e-12)
    assert v[2].item() == pytest.approx(0, abs=1e-12)
    # One pixel further on, the ray has moved by 1 / f: to the right and, as rows run downwards, down.
    assert u[8].item() == pytest.approx(1 / 15)
    assert v[3].item() == pytest.approx(-1 / 12)


def test_intrinsics_in_pixels_come_back_and_follow_the_picture() -> None:
    camera = Camera.from_pixels(900.0, 850.0, 610.0, 355.0, 720, 1280)
    assert camera.intrinsics_in_pixels(720, 1280) == pytest.approx((900, 850, 610, 355))
    assert camera.intrinsics_in_pixels(720, 1280, centres="integer") == pytest.approx(
        (900, 850, 609.5, 354.5)
    )
    # Half the size: everything halves in the frame of half pixels.
    assert camera.intrinsics_in_pixels(360, 640) == pytest.approx((450, 425, 305, 177.5))


def test_the_field_of_view_is_between_the_outer_edges() -> None:
    horizontal, vertical = Camera(field_of_view=90.0).field_of_view_degrees(100, 200)
    assert horizontal == pytest.approx(90)
    assert vertical == pytest.approx(2 * math.degrees(math.atan(0.5)))
    shifted = Camera(intrinsics=(1.0, 1.0, 0.0, 0.5)).field_of_view_degrees(100, 100)
    assert shifted[0] == pytest.approx(45), "the axis goes through the left edge"
    assert ORTHOGRAPHIC.field_of_view_degrees(10, 20) is None
    assert SPHERICAL.field_of_view_degrees(10, 20) == (360, 180)


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, SPHERICAL])
def test_only_a_pinhole_has_intrinsics(camera: Camera) -> None:
    with pytest.raises(ValueError, match=f"the camera is {camera.kind}: only a pinhole"):
        camera.intrinsics_in_pixels(10, 20)


@pytest.mark.parametrize("options", [{"field_of_view": 90.0}, {"intrinsics": (1, 1, 0.5, 0.5)}])
def test_a_spherical_camera_has_no_focal_length(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a spherical camera sees all directions"):
        Camera(spherical=True, **options)


def test_values_that_no_camera_has_are_refused() -> None:
    with pytest.raises(ValueError, match="four numbers"):
        Camera(intrinsics=(1.0, math.nan, 0.5, 0.5))
    with pytest.raises(ValueError, match="four numbers"):
        Camera.from_pixels(-900.0, 900.0, 10.0, 10.0, 20, 20)
    with pytest.raises(ValueError, match="margin must be"):
        Camera(spherical=True, margin=0.6)
    with pytest.raises(ValueError, match="margin must be"):
        Camera(field_of_view=60.0, margin=0.1)


def test_directions_of_a_panorama() -> None:
    """Centre: ahead. A quarter of the width right of it: right. Top: up. The left edge: behind."""
    height, width = 400, 800
    points = geometry.point_map(torch.ones(1, 1, height, width, dtype=torch.float64), SPHERICAL)[0]

    def close_to(row: int, column: int, expected: tuple[float, float, float]) -> bool:
        direction = points[:, row, column]
        return bool(torch.allclose(direction, torch.tensor(expected, dtype=torch.float64), atol=0.01))

    assert close_to(200, 400, (0, 0, 1))
    assert close_to(200, 600, (1, 0, 0))
    assert close_to(200, 200, (-1, 0, 0))
    assert close_to(200, 0, (0, 0, -1))
    assert close_to(200, 799, (0, 0, -1))
    assert close_to(0, 123, (0, 1, 0))
    assert close_to(399, 123, (0, -1, 0))
    assert torch.allclose(points.norm(dim=0), torch.ones(height, width, dtype=torch.float64))


def test_the_points_of_a_room_are_on_its_walls() -> None:
    points = geometry.point_map(box_distance(60, 120), SPHERICAL)[0]
    parts = points.abs() / HALF_SIDES[:, None, None]
    assert torch.allclose(parts.amax(dim=0), torch.ones(60, 120, dtype=torch.float64))


def test_the_normals_of_a_room_are_those_of_its_walls(device: torch.device) -> None:
    distance = box_distance(128, 256).to(device)
    found = geometry.facing_centre(geometry.normals_from_depth(distance, SPHERICAL), SPHERICAL).cpu()
    angle = torch.rad2deg(torch.acos((found[0] * box_normals(128, 256)).sum(dim=0).clamp(-1, 1)))
    inside = box_parts(128, 256)
    assert angle[inside].max() < 0.5
    assert angle[:, [0, -1]][inside[:, [0, -1]]].max() < 0.5, "across the edge too"


def test_a_sphere_is_seen_head_on_everywhere() -> None:
    normals = geometry.normals_from_depth(torch.full((1, 1, 6, 12), 3.0), SPHERICAL)
    assert torch.allclose(
        normals, torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(normals), atol=1e-6
    )


def test_spherical_normals_know_neither_scale_nor_where_the_panorama_begins() -> None:
    distance = 2 + torch.rand(1, 1, 9, 18, dtype=torch.float64, generator=seeded())
    normals = geometry.normals_from_depth(distance, SPHERICAL)
    assert torch.allclose(geometry.normals_from_depth(7 * distance, SPHERICAL), normals, atol=1e-6)
    assert torch.allclose(geometry.normals_from_depth(distance.roll(5, -1), SPHERICAL), normals.roll(5, -1))
    assert torch.equal(SPHERICAL.view(9, 18, like=distance)[0, :, 0, 0].float(), torch.tensor([0.0, 0, 1]))


def test_a_panorama_beyond_one_turn_has_the_same_normals() -> None:
    distance = box_distance(32, 64)
    longer = torch.cat([distance[..., -8:], distance, distance[..., :8]], dim=-1)
    camera = Camera(spherical=True, margin=8 / 64)
    assert camera.field_of_view_degrees(32, 80) == (450, 180)
    inner = geometry.normals_from_depth(longer, camera)[..., 8:-8]
    assert torch.allclose(inner, geometry.normals_from_depth(distance, SPHERICAL))
    points = geometry.point_map(longer, camera)[..., 8:-8]
    assert torch.allclose(points, geometry.point_map(distance, SPHERICAL))


def test_a_nan_beside_the_seam_does_not_spread() -> None:
    distance = 2 + torch.rand(1, 1, 8, 16, generator=seeded())
    clean = geometry.normals_from_depth(distance, SPHERICAL)
    broken = distance.clone()
    broken[0, 0, 4, 0] = torch.nan
    normals = geometry.normals_from_depth(broken, SPHERICAL)
    assert normals[0, :, 4, 0].tolist() == [0.0, 0.0, -1.0]
    assert torch.isfinite(normals).all()
    assert not torch.allclose(normals[0, :, 4, -1], clean[0, :, 4, -1]), "its neighbour across the seam"
    assert torch.equal(normals[..., 2:-2], clean[..., 2:-2])


def test_the_frames_of_rays_are_orthonormal() -> None:
    frames = ray_frames(SPHERICAL, 7, 14, like=torch.zeros((), dtype=torch.float64)).flatten(2)
    product = torch.einsum("kin,lin->nkl", frames, frames)
    assert torch.allclose(product, torch.eye(3, dtype=torch.float64).expand_as(product), atol=1e-12)


def test_the_frame_of_the_whole_picture_is_kept_where_it_is_already() -> None:
    normals = torch.rand(1, 3, 4, 8, generator=seeded())
    assert geometry.facing_centre(normals, Camera(field_of_view=60.0)) is normals


def test_spherical_gradcheck(device: torch.device) -> None:
    distance = torch.rand(2, 1, 4, 6, dtype=torch.float64, generator=seeded()).to(device) + 1
    normals = lambda r: geometry.normals_from_depth(r, SPHERICAL)  # noqa: E731
    assert torch.autograd.gradcheck(normals, distance.requires_grad_())


def test_what_cannot_see_all_directions_says_so() -> None:
    depth = torch.ones(1, 1, 4, 8)
    with pytest.raises(ValueError, match="shadows of a panorama"):
        soft_shadows(depth, torch.tensor([[[0.0, 0.0, 1.0]]]), camera=SPHERICAL)
    with pytest.raises(ValueError, match="cannot be rasterized"):
        grid_mesh(depth, SPHERICAL)
