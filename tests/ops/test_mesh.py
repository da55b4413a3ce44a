from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redepth.ops import geometry, mesh
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from tests.support.helpers import photo, seeded

PINHOLE = Camera(field_of_view=60.0)
CAMERAS = {
    "orthographic": ORTHOGRAPHIC,
    "pinhole": PINHOLE,
    "shifted": Camera(intrinsics=(0.8, 1.1, 0.4, 0.55)),
}
EVERY_CAMERA = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
LENIENT = 10.0
"""A cut that cuts nothing."""


def rough(height: int = 6, width: int = 7, batch: int = 1) -> Tensor:
    return 1 + torch.rand(batch, 1, height, width, dtype=torch.float64, generator=seeded())


def inner(vertices: Tensor, height: int, width: int) -> Tensor:
    """Values (N, V, C) of the vertices as pictures (N, C, H, W) without the ring."""
    return vertices.mT.unflatten(-1, (height + 2, width + 2))[..., 1:-1, 1:-1]


def vertex(row: int, column: int, width: int) -> int:
    return (row + 1) * (width + 2) + column + 1


# --- building -------------------------------------------------------------------------------------


@EVERY_CAMERA
def test_every_pixel_is_a_vertex_and_every_cell_two_triangles(camera: Camera, device: torch.device) -> None:
    depth = rough(batch=2).to(device)
    surface = mesh.grid_mesh(depth, camera, cut=LENIENT)
    assert surface.points.shape == surface.normals.shape == (2, 8 * 9, 3)
    assert [len(f) for f in surface.faces] == [2 * 7 * 8] * 2
    assert torch.equal(inner(surface.points, 6, 7), geometry.point_map(depth, camera))
    a, b, c = surface.points[0][surface.faces[0]].unbind(1)
    view = a if camera.pinhole else torch.tensor([0.0, 0, 1]).double().to(device)
    facing = (torch.linalg.cross(b - a, c - a) * view).sum(dim=-1)
    assert (facing > 0).all(), "every face is seen from its front"


@EVERY_CAMERA
def test_the_normals_of_a_plane_are_its_own_up_to_the_border(camera: Camera, device: torch.device) -> None:
    normal = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64, device=device)
    u, v = camera.axes(9, 12, dtype=torch.float64, device=device)
    slope = normal[0] * u + normal[1] * v[:, None]
    # The plane z = 2 + n_x x + n_y y, z away from the camera.
    depth = (2 + slope if not camera.pinhole else 2 / (1 - slope))[None, None]
    normals = inner(mesh.grid_mesh(depth, camera, cut=LENIENT).normals, 9, 12)
    expected = (normal / normal.norm()).view(1, 3, 1, 1)
    assert torch.allclose(normals, expected.expand_as(normals), atol=1e-12)
    if not camera.pinhole:
        flat = geometry.normals_from_depth(depth, camera)
        assert torch.allclose(normals, flat, atol=1e-6)


def test_a_vertex_normal_is_the_sum_of_its_faces_weighted_with_their_areas() -> None:
    depth = torch.tensor([[1.0, 1.2], [1.4, 1.1]], dtype=torch.float64).view(1, 1, 2, 2)
    normals = inner(mesh.grid_mesh(depth, cut=LENIENT).normals, 2, 2)[0]
    # Cells are 2 wide and 2 high; in the upper left triangle z grows by 0.2 to the right and 0.4 downward.
    upper = torch.tensor([0.2 * 2, -0.4 * 2, 4.0], dtype=torch.float64)
    lower = torch.tensor([-0.3 * 2, 0.1 * 2, 4.0], dtype=torch.float64)
    for (row, column), total in {(0, 0): upper, (1, 1): lower, (0, 1): upper + lower}.items():
        assert torch.allclose(normals[:, row, column], total / total.norm(), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_a_pinhole_scene_changes_neither_normals_nor_cuts(scale: float) -> None:
    depth = rough().float()
    here, there = (mesh.grid_mesh(z, PINHOLE, cut=0.4) for z in (depth, scale * depth))
    assert torch.allclose(here.normals, there.normals, atol=1e-5)
    assert torch.equal(here.faces[0], there.faces[0])


def test_the_photo_is_found_at_its_own_pixels() -> None:
    picture = photo(6, 7).double()
    uv = inner(mesh.grid_mesh(rough()).uv, 6, 7).movedim(1, -1)
    assert torch.allclose(torch.nn.functional.grid_sample(picture, uv, align_corners=False), picture)
    assert mesh.grid_mesh(rough()).uv.abs().amax(dim=(0, 1)).tolist() == pytest.approx([8 / 7, 7 / 6])


def test_a_mesh_has_gradients(device: torch.device) -> None:
    depth = rough(3, 4).to(device).requires_grad_()

    def built(z: Tensor) -> tuple[Tensor, ...]:
        surface = mesh.grid_mesh(z, PINHOLE, cut=LENIENT)
        turned = mesh.turn(
            surface, mesh.rotation_matrix(z.new_tensor([[0.1, 0.05, 0]])), z.new_ones(1), PINHOLE
        )
        clip = mesh.clip_space(turned.points, PINHOLE, 3, 4)
        return surface.points, surface.normals, turned.normals, clip[..., [0, 1, 3]]

    assert torch.autograd.gradcheck(built, depth)
    order = mesh.clip_space(mesh.grid_mesh(depth, PINHOLE).points, PINHOLE, 3, 4)[..., 2]
    assert not torch.autograd.grad(order.sum(), depth)[0].any()


# --- cutting --------------------------------------------------------------------------------------


def test_a_step_is_cut_where_it_is_large_for_its_depth() -> None:
    depth = torch.ones(1, 1, 5, 6, dtype=torch.float64)
    depth[..., 3:] = 1.2
    whole, cut = (mesh.grid_mesh(depth, cut=c).faces[0] for c in (0.21, 0.19))
    assert len(whole) - len(cut) == 2 * 6
    columns = cut % 8
    assert not ((columns <= 3).any(dim=1) & (columns >= 4).any(dim=1)).any()


def test_each_side_of_a_cut_has_its_own_normals() -> None:
    u, _ = ORTHOGRAPHIC.axes(5, 8, dtype=torch.float64)
    left, right = 2 + 0.1 * u, 3 - 0.2 * u
    depth = torch.where(torch.arange(8) < 4, left, right).expand(1, 1, 5, 8)
    normals = inner(mesh.grid_mesh(depth, cut=0.1).normals, 5, 8)
    for slope, columns in ((0.1, slice(0, 4)), (-0.2, slice(4, 8))):
        expected = torch.tensor([slope, 0, 1], dtype=torch.float64) / math.hypot(slope, 1)
        found = normals[..., columns]
        assert torch.allclose(found, expected.view(1, 3, 1, 1).expand_as(found), atol=1e-12)
    assert (geometry.normals_from_depth(depth)[0, 0, 2, 3] > 0.5).item(), "the flat renderer bends there"


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("place", [(2, 3), (0, 0), (5, 3)])
def test_an_unusable_pixel_has_no_face_and_no_gradient(
    value: float, place: tuple[int, int], device: torch.device
) -> None:
    depth = rough().to(device)
    depth[0, 0, place[0], place[1]] = value
    depth.requires_grad_()
    surface = mesh.grid_mesh(depth, PINHOLE, cut=LENIENT)
    assert not (surface.faces[0] == vertex(*place, 7)).any()
    used = surface.faces[0].unique()
    assert torch.isfinite(surface.points).all()
    assert torch.allclose(
        surface.normals[0, used].norm(dim=-1), torch.ones(len(used), dtype=torch.float64, device=device)
    )
    (surface.points.sum() + surface.normals.sum()).backward()
    assert torch.isfinite(depth.grad).all()
    assert depth.grad[0, 0, place[0], place[1]] == 0
    assert (depth.grad != 0).sum() >= 40


def test_a_pixel_cut_off_on_all_sides_has_neither_normal_nor_face() -> None:
    depth = torch.ones(1, 1, 6, 7)
    depth[0, 0, 0, 3] = 2.0
    surface = mesh.grid_mesh(depth)
    assert inner(surface.normals, 6, 7)[0, :, 0, 3].tolist() == [0, 0, 0]
    ring = vertex(-1, 3, 7)
    assert not ((surface.faces[0] == vertex(0, 3, 7)) | (surface.faces[0] == ring)).any()


@EVERY_CAMERA
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (4, 4)])
def test_nothing_usable_leaves_one_face_without_area(
    camera: Camera, size: tuple[int, int], device: torch.device
) -> None:
    depth = torch.full((1, 1, *size), float("nan") if size == (4, 4) else 2.0).to(device)
    surface = mesh.grid_mesh(depth, camera)
    assert [f.tolist() for f in surface.faces] == [[[0, 0, 0]]]
    assert torch.isfinite(mesh.clip_space(surface.points, camera, *size)).all()


def test_members_are_cut_apart_and_repeated_in_a_row() -> None:
    depth = torch.ones(2, 1, 4, 4)
    depth[1, 0, 1, 1] = float("nan")
    surface = mesh.grid_mesh(depth)
    assert [len(f) for f in surface.faces] == [50, 44]
    twice = surface.repeat(2)
    assert [len(f) for f in twice.faces] == [50, 50, 44, 44]
    assert torch.equal(twice.points[1], surface.points[0])
    assert torch.equal(twice.normals[2], surface.normals[1])


# --- turning --------------------------------------------------------------------------------------


def test_the_median_is_that_of_the_usable_depths(device: torch.device) -> None:
    depth = (
        torch.tensor([[1.0, 2.0, 9.0, -5.0], [0.0, 0.0, float("nan"), float("inf")]])
        .view(2, 1, 2, 2)
        .to(device)
    )
    assert mesh.median_depth(depth).tolist() == [2.0, 1.0]
    assert not mesh.median_depth(depth.requires_grad_()).requires_grad


def test_a_rotation_vector_is_an_axis_times_an_angle() -> None:
    quarter = mesh.rotation_matrix(torch.tensor([0, 0, math.pi / 2], dtype=torch.float64))
    assert torch.allclose(quarter @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0, 1.0, 0]).double())
    vector = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    matrix = mesh.rotation_matrix(vector)
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(4, dtype=torch.float64))
    assert torch.allclose((matrix @ vector[..., None])[..., 0], vector)
    angle = torch.acos((matrix.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2)
    assert torch.allclose(angle, vector.norm(dim=-1))


@EVERY_CAMERA
def test_turned_normals_are_those_of_the_turned_faces(camera: Camera) -> None:
    """The z axes of normals and points are opposite, and so are the matrices' signs there."""
    surface = mesh.grid_mesh(rough(), camera, cut=LENIENT)
    rotation = mesh.rotation_matrix(torch.tensor([[0.2, -0.1, 0]], dtype=torch.float64))
    turned = mesh.turn(surface, rotation, torch.tensor([1.5], dtype=torch.float64), camera)
    anew = mesh._vertex_normals(inner(turned.points, 6, 7), torch.ones(1, 2, 5, 6, dtype=torch.bool))[0]
    assert torch.allclose(inner(turned.normals, 6, 7), anew, atol=1e-12)
    assert not torch.allclose(turned.normals, surface.normals, atol=0.05)


def test_a_turn_keeps_the_centre_and_all_distances_from_it() -> None:
    surface = mesh.grid_mesh(rough(), cut=LENIENT)
    centre = torch.tensor([0, 0, 1.5], dtype=torch.float64)
    rotation = mesh.rotation_matrix(torch.tensor([[0.0, 0.3, 0]], dtype=torch.float64))
    turned = mesh.turn(surface, rotation, centre[2:])
    before, after = (s.points - centre for s in (surface, turned))
    assert torch.allclose(before.norm(dim=-1), after.norm(dim=-1))
    # About the y axis: heights stay, what lies right moves by -x sin in depth.
    assert torch.allclose(before[..., 1], after[..., 1])
    expected = before[..., 2] * math.cos(0.3) - before[..., 0] * math.sin(0.3)
    assert torch.allclose(after[..., 2], expected)


def test_faces_that_a_turn_brings_behind_a_pinhole_are_lost(device: torch.device) -> None:
    camera = Camera(field_of_view=160.0)
    surface = mesh.grid_mesh(torch.ones(1, 1, 4, 30, device=device), camera, cut=LENIENT)
    rotation = mesh.rotation_matrix(torch.tensor([[0.0, 0.26, 0]], device=device))
    turned = mesh.turn(surface, rotation, torch.ones(1, device=device), camera)
    assert 0 < len(turned.faces[0]) < len(surface.faces[0])
    assert turned.points[..., 2].min() == 0.5
    assert torch.isfinite(mesh.clip_space(turned.points, camera, 4, 30)).all()


# --- projecting -----------------------------------------------------------------------------------


@EVERY_CAMERA
@pytest.mark.parametrize("size", [(6, 9), (9, 6), (5, 1), (1, 1), (2, 2)])
def test_an_unturned_vertex_falls_on_the_centre_of_its_pixel(camera: Camera, size: tuple[int, int]) -> None:
    height, width = size
    clip = mesh.clip_space(mesh.grid_mesh(rough(*size), camera).points, camera, *size)
    place = inner(clip[..., :2] / clip[..., 3:], *size)[0]
    column = (torch.arange(width, dtype=torch.float64) + 0.5) / width * 2 - 1
    row = 1 - (torch.arange(height, dtype=torch.float64) + 0.5) / height * 2
    assert torch.allclose(place[0], column.expand(size), atol=1e-12)
    assert torch.allclose(place[1], row[:, None].expand(size), atol=1e-12)


@EVERY_CAMERA
def test_what_is_nearer_comes_first(camera: Camera) -> None:
    points = mesh.grid_mesh(100 ** rough(), camera).points
    clip = mesh.clip_space(points, camera, 6, 7)
    order = (clip[..., 2] / clip[..., 3])[0]
    assert order.abs().max() <= 1
    ascending = order[points[0, :, 2].argsort()]
    assert (ascending.diff() >= 0).all()
    assert order.max() - order.min() > 1.5
