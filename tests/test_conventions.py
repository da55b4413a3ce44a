"""What docs/conventions.md says, as code: a marked pixel, a known plane, files read by other libraries."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from redepth import viz
from redepth.contracts import Illumination
from redepth.ops import geometry
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from redepth.renderers.matte import Lambert
from tests.support.command import SMOKE, call

Array = np.ndarray[Any, Any]
HEIGHT, WIDTH = 60, 80
INTRINSICS = (70.0, 75.0, 44.0, 28.0)
"""fx, fy, cx, cy in pixels, the centre of the top left pixel at (0, 0) as in OpenCV."""
NORMAL = np.array([0.5, -0.2, 1.0]) / np.linalg.norm([0.5, -0.2, 1.0])
"""Of a plane that goes away to the left and upwards: it faces right and down."""
DISTANCE = 2.0


def plane_depth() -> Array:
    """The depth of the plane n . P = -DISTANCE by the pinhole equations of OpenCV, y down."""
    fx, fy, cx, cy = INTRINSICS
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    u, down = (columns - cx) / fx, (rows - cy) / fy
    # P = z (u, -down, -1) with x right, y up, z to the viewer.
    return (-DISTANCE / (NORMAL @ np.stack([u, -down, -np.ones_like(u)]).reshape(3, -1))).reshape(u.shape)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a photo of the plane, red at the top left; next to no step is taken."""
    folder = tmp_path_factory.mktemp("plane")
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[:20, :20] = (255, 0, 0)
    Image.fromarray(pixels).save(folder / "photo.png")
    np.save(folder / "depth.npy", plane_depth().astype(np.float32))
    written = "map,preview,normals,points,mesh,intrinsics,depth"
    if importlib.util.find_spec("OpenEXR") is not None:
        written += ",depth-exr,normals-exr"
    slow = ("learning_rates.correction=1e-9", "learning_rates.offset=1e-9", "steps=1", "members=1")
    finished = call(
        *("refine", folder / "photo.png", *SMOKE, "--depth", folder / "depth.npy"),
        *("--predicts", "metric-depth", "--intrinsics", ",".join(map(str, INTRINSICS))),
        *("--write", written, "--out", folder / "out", "--set", f"depth_model.longer_side={WIDTH}"),
        *(part for setting in slow for part in ("--set", f"optim.{setting}")),
    )
    assert finished.code == 0, finished.err
    return folder / "out" / "photo"


# --- arrays and pixels, frames, cameras ------------------------------------------------------------


def test_the_centre_of_pixel_i_j_is_at_j_and_i_plus_one_half() -> None:
    """The ray of map[1, 2] is that of x = 2.5, y = 1.5: on the axis of a camera with that principal point."""
    u, v = Camera.from_pixels(10.0, 10.0, 2.5, 1.5, 3, 4).axes(3, 4)
    assert (u[2].item(), v[1].item()) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert v[0] > 0 > v[2], "y is up, rows run down"
    assert u[3] > 0 > u[1]


def test_coordinates_scale_with_the_picture() -> None:
    camera = Camera.from_pixels(40.0, 30.0, 20.0, 10.0, 60, 80)
    assert camera.intrinsics_in_pixels(30, 40) == pytest.approx((20.0, 15.0, 10.0, 5.0))


def test_points_have_x_right_y_up_z_away() -> None:
    points = geometry.point_map(torch.full((1, 1, 3, 5), 2.0), Camera(field_of_view=60.0))[0]
    assert (points[2] == 2.0).all()
    assert points[0, 1, 4] > 0 > points[0, 1, 0]
    assert points[1, 0, 2] > 0 > points[1, 2, 2]


def test_the_orthographic_picture_reaches_from_1_to_minus_1() -> None:
    points = geometry.point_map(torch.full((1, 1, 5, 11), 3.0), ORTHOGRAPHIC)[0]
    assert points[:2, 0, 0].tolist() == pytest.approx([-11 / 5, 1.0])
    assert points[:2, -1, -1].tolist() == pytest.approx([11 / 5, -1.0])


def test_depth_of_a_pinhole_is_along_the_axis_and_of_a_panorama_along_the_ray() -> None:
    depth = torch.full((1, 1, 6, 12), 2.0)
    assert torch.allclose(geometry.point_map(depth, Camera(field_of_view=60.0))[:, 2:], depth)
    assert torch.allclose(geometry.point_map(depth, SPHERICAL).norm(dim=1, keepdim=True), depth)


def test_the_field_of_view_is_horizontal_and_between_the_outer_edges() -> None:
    fx, fy, cx, cy = Camera(field_of_view=90.0).intrinsics_in_pixels(30, 80)
    assert (fx, fy, cx, cy) == pytest.approx((40.0, 40.0, 40.0, 15.0))


# --- depth, normals and light ----------------------------------------------------------------------


def test_relative_depth_falls_with_disparity_and_rises_with_depth() -> None:
    raw = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    disparity, depth = (geometry.relative_depth(raw, predicts=p).flatten() for p in ("disparity", "depth"))
    assert disparity.tolist() == pytest.approx([7 / 1.1, 7 / 2.1])
    assert depth.tolist() == pytest.approx([7.0, 14.0])


@pytest.mark.parametrize(
    ("slope", "normal", "colour"),
    [
        ((0.0, 0.0), (0, 0, 1), (128, 128, 255)),
        ((1.0, 0.0), (1, 0, 1), (218, 128, 218)),
        ((0.0, 1.0), (0, 1, 1), (128, 218, 218)),
    ],
)
def test_normals_point_to_the_viewer_and_have_the_usual_colours(
    slope: tuple[float, float], normal: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    """Depth that grows to the right faces right; depth that grows upwards, as a ground does, faces up."""
    u, v = ORTHOGRAPHIC.axes(8, 8)
    depth = (4 + slope[0] * u[None] + slope[1] * v[:, None])[None, None]
    found = geometry.normals_from_depth(depth)[0].permute(1, 2, 0)
    expected = torch.tensor(normal) / torch.tensor(normal).float().norm()
    assert torch.allclose(found, expected.expand_as(found), atol=1e-5)
    assert np.abs(viz.normals_to_rgb(found.numpy()).astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    ("direction", "brighter"),
    [((-1, 0, 1), (slice(None), slice(0, 10))), ((0, 1, 1), (slice(0, 10), slice(None)))],
)
def test_lights_are_where_their_directions_point(direction: tuple[int, ...], brighter: Any) -> None:
    """A ball under a light at the left, or above, is brighter there."""
    u, v = ORTHOGRAPHIC.axes(20, 20)
    depth = (3 - (2.2 - u[None] ** 2 - v[:, None] ** 2).sqrt())[None, None]
    renderer = Lambert(albedo="grey")
    light = renderer.draw(1, torch.Generator().manual_seed(0))
    unit = torch.tensor(direction).float()
    light = Illumination({**light.tensors, "direction": (unit / unit.norm())[None, None]})
    picture = renderer(depth, torch.ones(1, 3, 20, 20), light)[0, 0, 0]
    assert picture[brighter].mean() > picture.mean() + 0.05


# --- files -----------------------------------------------------------------------------------------


def test_npy_has_the_top_row_first_and_the_png_decodes_to_it(result: Path) -> None:
    depth = np.load(result / "depth.npy")
    assert (depth.shape, depth.dtype) == ((HEIGHT, WIDTH), np.float32)
    assert np.allclose(depth, plane_depth(), rtol=1e-4)
    with Image.open(result / "depth.png") as picture:
        text, pixels = picture.text, np.asarray(picture).astype(np.float64)
    scale, offset = (float(text[f"redepth:{name}"]) for name in ("scale", "offset"))
    assert np.allclose(pixels * scale + offset, depth, atol=scale)


def test_the_intrinsics_of_the_result_have_half_pixels(result: Path) -> None:
    content = json.loads((result / "intrinsics.json").read_text())
    fx, fy, cx, cy = INTRINSICS
    assert [content[k] for k in ("fx", "fy", "cx", "cy")] == pytest.approx([fx, fy, cx + 0.5, cy + 0.5])
    assert (content["width"], content["height"], content["pixel_centres"]) == (WIDTH, HEIGHT, "half")
    record = json.loads((result / "run.json").read_text())["camera"]
    assert record["kind"] == "pinhole"
    assert list(record["intrinsics"].values()) == pytest.approx([fx, fy, cx + 0.5, cy + 0.5])


def test_trimesh_reads_points_on_the_plane_with_the_colours_of_their_pixels(result: Path) -> None:
    cloud = trimesh.load(result / "points.ply")
    points, colours = np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3]
    assert np.allclose(points @ NORMAL, -DISTANCE, atol=1e-3), "in metres"
    assert (points[:, 2] < 0).all(), "the camera looks along -z"
    # Back to pixels by OpenCV's equations.
    fx, fy, cx, cy = INTRINSICS
    columns = fx * points[:, 0] / -points[:, 2] + cx
    rows = fy * -points[:, 1] / -points[:, 2] + cy
    assert np.allclose(columns, columns.round(), atol=1e-2)
    assert np.allclose(rows, rows.round(), atol=1e-2)
    red = (columns < 19.5) & (rows < 19.5)
    assert (colours[red] == (255, 0, 0)).all()
    assert (colours[~red] == 128).all()
    contents = json.loads((result / "run.json").read_text())["contents"]
    assert contents["points.ply"]["unit"] == contents["mesh.glb"]["unit"] == "metres"


def test_trimesh_reads_a_mesh_that_faces_the_camera_with_the_photo_upright(result: Path) -> None:
    mesh = trimesh.load(result / "mesh.glb", force="mesh")
    assert np.allclose(mesh.vertices @ NORMAL, -DISTANCE, atol=1e-3)
    assert np.allclose(mesh.face_normals[mesh.area_faces > 1e-9] @ NORMAL, 1.0, atol=1e-3)
    # trimesh has v up: the top left of the photo is at u = 0, v = 1.
    corner = np.argmax(mesh.vertices[:, 1] - mesh.vertices[:, 0])
    u, v = mesh.visual.uv[corner]
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    row, column = int((1 - v) * len(texture)), int(u * texture.shape[1])
    assert row < 5
    assert column < 5
    assert texture[row, column, 0] > 200 > 60 > texture[row, column, 1]


def test_the_mesh_is_gltf_2_and_its_texture_begins_at_the_top_left(result: Path) -> None:
    """By the file's own bytes: in glTF, (u, v) = (0, 0) is the first pixel of the texture."""
    data = (result / "mesh.glb").read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    tree, buffer = json.loads(data[20 : 20 + size]), data[28 + size :]

    def accessor(index: int) -> Array:
        entry = tree["accessors"][index]
        view = tree["bufferViews"][entry["bufferView"]]
        width = {"VEC2": 2, "VEC3": 3}[entry["type"]]
        start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        return np.frombuffer(buffer, "<f4", entry["count"] * width, start).reshape(-1, width)

    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    positions, uv = accessor(attributes["POSITION"]), accessor(attributes["TEXCOORD_0"])
    corner = np.argmax(positions[:, 1] - positions[:, 0])
    assert uv[corner].max() < 0.05


@pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="needs OpenEXR")
def test_openexr_reads_depth_and_normals(result: Path) -> None:
    import OpenEXR

    depth = OpenEXR.File(str(result / "depth.exr")).channels()["Z"].pixels
    assert depth.dtype == np.float32
    assert np.allclose(depth, plane_depth(), rtol=1e-4)
    with OpenEXR.File(str(result / "normals.exr"), separate_channels=True) as file:
        normals = np.stack([file.channels()[name].pixels for name in "XYZ"], axis=-1)
    assert normals.shape == (HEIGHT, WIDTH, 3)
    assert np.degrees(np.arccos(np.clip(normals @ NORMAL, -1, 1))).max() < 0.5


def test_the_normals_picture_is_of_the_plane(result: Path) -> None:
    colours = np.asarray(Image.open(result / "normals.png")).astype(np.float64)
    assert np.abs(colours - 255 * (NORMAL + 1) / 2).max() < 2


def test_the_pictures_of_the_page_are_those_of_the_script_and_small() -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "09_conventions.py"))
    page = Path(__file__).parents[1] / "docs" / "conventions.md"
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert {Path(picture).stem for picture in shown} == set(script["PICTURES"])
    assert all(0 < (page.parent / picture).stat().st_size < 60_000 for picture in shown)
