"""Meshes: planes stay planes, the right way up, with the photo on them; read back by trimesh."""

from __future__ import annotations

import io

import numpy as np
import pytest
import trimesh

from redepth.errors import InputError
from redepth.exports import mesh
from redepth.exports.mesh import mesh_of
from redepth.exports.surface import Surface
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera

SLANT = np.radians(60.0)
NORMAL = np.array([np.sin(SLANT), 0.0, np.cos(SLANT)])
"""Of a wall that goes away to the right, y up, towards the viewer."""
PINHOLE = Camera(field_of_view=40.0)
SIZE = (60, 80)


def wall(camera: Camera = PINHOLE, size: tuple[int, int] = SIZE, distance: float = 2.0) -> Surface:
    """The wall through (0, 0, -distance), seen by a pinhole."""
    height, width = size
    u = camera.axes(height, width)[0].double().numpy()
    depth = distance / (1 - u * np.tan(SLANT))
    return Surface(np.tile(depth, (height, 1)).astype(np.float32), camera, "metres")


def reloaded(made: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh after a way through a file."""
    glb = made.export(file_type="glb", include_normals=True)
    return trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh")


def corners() -> np.ndarray:
    """A grey photo with a red upper left and a blue lower right corner."""
    photo = np.full((*SIZE, 3), 0.5, np.float32)
    photo[:20, :20] = (1, 0, 0)
    photo[-20:, -20:] = (0, 0, 1)
    return photo


@pytest.fixture(params=["simplified", "regular grid"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "simplified":
        pytest.importorskip("fast_simplification")
    else:
        monkeypatch.setattr(mesh, "_can_simplify", lambda: False)
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("faces", [300, 100_000])
def test_a_wall_at_60_degrees_is_a_plane_in_metres(faces: int) -> None:
    found = reloaded(mesh_of(wall(), corners(), faces=faces))
    assert 0 < len(found.faces) <= faces
    # The plane through (0, 0, -2).
    distances = (found.vertices - [0, 0, -2]) @ NORMAL
    assert np.abs(distances).max() < 1e-5 * np.abs(found.vertices).max()
    angles = np.degrees(np.arccos(np.clip(found.vertex_normals @ NORMAL, -1, 1)))
    assert angles.max() < 0.1
    # Anticlockwise for the camera.
    assert (found.face_normals @ NORMAL > 0.999).all()
    assert found.vertices[:, 2].max() < 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE, Camera.from_pixels(70, 90, 30, 35, 60, 80)])
def test_it_is_the_right_way_up_with_the_photo_on_it(camera: Camera) -> None:
    depth = np.full(SIZE, 2.0, np.float32)
    found = reloaded(mesh_of(Surface(depth, camera), corners(), faces=200))
    texture = np.asarray(found.visual.material.baseColorTexture.convert("RGB")).astype(int)
    assert texture.shape == (*SIZE, 3)
    x, y, _ = found.vertices.T
    # The left upper corner in space has the colour of the photo's.
    for corner, channel in ((np.argmin(x - y), 0), (np.argmax(x - y), 2)):
        u, v = found.visual.uv[corner]
        row, column = int((1 - v) * SIZE[0]), int(u * SIZE[1])
        assert texture[row, column].argmax() == channel
        assert texture[row, column].max() > 200
    assert found.visual.material.metallicFactor == 0
    # Points of the mesh lie on the rays of their pixels: u and v are linear in them.
    width = np.ptp(x)
    slope = np.polyfit(x / width, found.visual.uv[:, 0], 1)[0]
    assert slope == pytest.approx((SIZE[1] - 1) / SIZE[1], rel=1e-3)


@pytest.mark.usefixtures("way")
def test_it_is_cut_where_points_are() -> None:
    depth = np.full(SIZE, 2.0, np.float32)
    depth[20:40, 30:50] = 1.0
    found = mesh_of(Surface(depth, PINHOLE), np.zeros((*SIZE, 3)), faces=100_000)
    spans = np.ptp(found.vertices[found.faces][..., 2], axis=1)
    assert spans.max() < 1e-5
    assert {1.0, 2.0} == set(np.round(-found.vertices[:, 2], 4))
    depth[:] = np.nan
    with pytest.raises(InputError, match="finite"):
        mesh_of(Surface(depth, PINHOLE), np.zeros((*SIZE, 3)))
    with pytest.raises(ValueError, match=r"\(60, 80\)"):
        mesh_of(Surface(depth, PINHOLE), np.zeros((3, 4, 3)))


def test_a_panorama_is_closed() -> None:
    found = mesh_of(Surface(np.full((40, 80), 3.0, np.float32), SPHERICAL), np.zeros((40, 80, 3)), faces=2000)
    assert len(found.faces) <= 2000
    np.testing.assert_allclose(np.linalg.norm(found.vertices, axis=-1), 3.0, rtol=1e-5)
    # The last column is the first one, at the other end of the texture.
    u = found.visual.uv[:, 0]
    left, right = (found.vertices[u == end] for end in (u.min(), u.max()))
    np.testing.assert_array_equal(left, right)
    assert u.max() - u.min() == pytest.approx(1.0)
    # Seen from inside, the surface faces the camera.
    assert ((found.face_normals * found.triangles_center).sum(axis=-1) < 0).all()


def test_the_texture_has_at_most_its_side() -> None:
    made = mesh_of(wall(), corners(), texture_side=32)
    assert reloaded(made).visual.material.baseColorTexture.size == (32, 24)
    assert b"image/jpeg" in made.export(file_type="glb")
