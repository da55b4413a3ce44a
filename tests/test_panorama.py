"""Panoramas from the command line and from Python: no seam, and files that close around the viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import redepth
from redepth.errors import ConfigError, InputError
from redepth.ops.camera import SPHERICAL
from tests.support.command import SMOKE, call
from tests.support.panoramas import HALF_SIDES, box_distance, room_photo

HEIGHT, WIDTH = 96, 192
HALF = HALF_SIDES.numpy()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of a room and the distances to its walls in metres."""
    folder = tmp_path_factory.mktemp("room")
    pixels = (255 * room_photo(HEIGHT, WIDTH)[0].permute(1, 2, 0).numpy()).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / "room.png")
    np.save(folder / "room.npy", box_distance(HEIGHT, WIDTH)[0, 0].float().numpy())
    return folder


@pytest.fixture(scope="module")
def result(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files; a learning rate of nearly 0 keeps the surface a room."""
    out = tmp_path_factory.mktemp("out")
    options = ["--depth", room / "room.npy", "--predicts", "metric-depth", "--panorama"]
    chosen = "output.write=[map,normals,points,mesh,intrinsics]"
    finished = call(
        *("refine", room / "room.png", *SMOKE, *options, "--out", out, "--set", chosen),
        *("--set", "optim.learning_rates.correction=1e-7", "--set", "optim.learning_rates.offset=1e-7"),
        *("--set", "depth_model.longer_side=240", "--set", "output.mesh_faces=8000"),
    )
    assert finished.code == 0, finished.err
    return out / "room"


def seam(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Mean step across the edge, and the largest mean step between neighbouring columns beside it."""
    steps = np.abs(np.diff(np.roll(values.astype(np.float64), 8, axis=1), axis=1))[:, :16]
    while steps.ndim > 2:
        steps = steps.max(axis=-1)
    means = steps.mean(axis=0)
    return means[7], np.delete(means, 7).max()


def test_the_record_names_the_camera(result: Path) -> None:
    record = json.loads((result / "run.json").read_text())
    assert record["camera"] == {
        "kind": "spherical",
        "fov": {"horizontal": 360.0, "vertical": 180.0},
        "intrinsics": None,
        "from": "--panorama",
    }
    assert record["network_size"] == [96, 192]


def test_maps_and_normals_have_no_seam(result: Path) -> None:
    across, beside = seam(np.load(result / "depth.npy"))
    assert across <= beside
    across, beside = seam(np.asarray(Image.open(result / "normals.png")))
    assert across <= beside + 0.5, "within the rounding of a colour"


def test_the_points_are_on_the_walls(result: Path) -> None:
    points = np.asarray(trimesh.load(result / "points.ply").vertices)
    assert len(points) > 0.9 * HEIGHT * WIDTH
    parts = np.abs(points) / HALF
    assert np.quantile(np.abs(parts.max(axis=1) - 1), 0.99) < 1e-3
    for axis in range(3):
        assert points[:, axis].min() == pytest.approx(-HALF[axis], rel=1e-2)
        assert points[:, axis].max() == pytest.approx(HALF[axis], rel=1e-2)


def test_what_is_ahead_is_at_the_centre_and_right_is_right(result: Path) -> None:
    """The frame of glTF: x right, y up, ahead along -z. The pixel's colour says which one it is."""
    cloud = trimesh.load(result / "points.ply")
    points, colours = np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3].astype(int)
    photo = (255 * room_photo(HEIGHT, WIDTH)[0].permute(1, 2, 0).numpy()).round()

    def seen_near(direction: tuple[float, float, float]) -> np.ndarray[Any, Any]:
        towards = points @ np.array(direction) / np.linalg.norm(points, axis=1)
        return colours[towards.argmax()]

    rows, columns = HEIGHT // 2, WIDTH // 2
    for direction, pixel in (
        ((0, 0, -1), (rows, columns)),
        ((1, 0, 0), (rows, 3 * WIDTH // 4)),
        ((-1, 0, 0), (rows, WIDTH // 4)),
        ((0, 0, 1), (rows, 0)),
    ):
        assert np.abs(seen_near(direction) - photo[pixel]).max() < 35, "a pixel further on at most"


def test_the_mesh_closes_behind_the_viewer(result: Path) -> None:
    scene = trimesh.load(result / "mesh.glb")
    mesh = next(iter(scene.geometry.values()))
    # Rays to behind, where the edges of the photo meet, hit the wall there.
    for direction in ([0.0, 0.0, 1.0], [0.003, 0.0, 1.0], [-0.003, 0.02, 1.0]):
        distances = hits(np.asarray(mesh.triangles), np.array(direction))
        assert distances.min() == pytest.approx(HALF[2], rel=1e-2)


def hits(triangles: np.ndarray[Any, Any], direction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How far a ray from the origin goes, in lengths of the direction, to each triangle that it hits."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    volume = np.linalg.det(np.stack([b - a, c - a, np.broadcast_to(-direction, a.shape)], axis=-1))
    solid = np.abs(volume) > 1e-12
    a, b, c = a[solid], b[solid], c[solid]
    edges = np.stack([b - a, c - a, np.broadcast_to(-direction, a.shape)], axis=-1)
    s, t, distance = np.linalg.solve(edges, -a[..., None])[..., 0].T
    slack = 1e-9
    return distance[(s >= -slack) & (t >= -slack) & (s + t <= 1 + slack) & (distance > 0)]


def test_the_files_say_what_they_hold(result: Path) -> None:
    contents = json.loads((result / "run.json").read_text())["contents"]
    assert contents["points.ply"]["unit"] == contents["mesh.glb"]["unit"] == "metres"
    assert "in the frame of each ray" in contents["normals.png"]["holds"]


def test_python_takes_a_panorama_at_any_size(room: Path) -> None:
    """The embedded network at 96 pixels, the photo at 384 x 768: no seam at the photo's size."""
    photo = room_photo(384, 768)[0].permute(1, 2, 0).numpy()
    found = redepth.refine(photo, preset="smoke", device="cpu", panorama=True)
    assert found.camera == SPHERICAL
    assert found.camera_origin == "python"
    for values in (found.initial, found.refined, found.depth):
        assert values.shape == (384, 768)
        across, beside = seam(values)
        assert across <= beside
    plain = redepth.refine(photo, preset="smoke", device="cpu")
    across, beside = seam(plain.refined)
    assert across > 3 * beside, "without panorama=True there is a seam: this test can fail"


def test_guided_maps_have_no_seam_either(room: Path) -> None:
    pytest.importorskip("kornia")
    photo = room_photo(192, 384)[0].permute(1, 2, 0).numpy()
    overrides = ["output.upsample=guided"]
    found = redepth.refine(photo, preset="smoke", device="cpu", panorama=True, overrides=overrides)
    across, beside = seam(found.refined)
    assert across <= beside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fov", "90"), "--panorama each give the camera: give one of them"),
        (("--camera", "orthographic"), "--panorama each give the camera: give one of them"),
        (("--set", "renderer.shadows=soft"), "set renderer.shadows=none"),
        (("--set", "renderer.name=mesh"), "renderer mesh cannot see a panorama"),
    ],
)
def test_what_does_not_go_with_a_panorama_is_refused(
    room: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    finished = call("refine", room / "room.png", *SMOKE, "--panorama", *options, "--out", tmp_path / "out")
    assert finished.code == 2
    assert message in " ".join(finished.complaints)
    assert not (tmp_path / "out" / "room").exists()


def test_a_photo_of_another_shape_is_refused_before_any_work(tmp_path: Path) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "photo.png")
    finished = call("refine", tmp_path / "photo.png", *SMOKE, "--panorama", "--out", tmp_path / "out")
    assert finished.code == 2
    assert "twice as wide as high, this photo is 90 x 60" in " ".join(finished.complaints)
    with pytest.raises(InputError, match="twice as wide as high"):
        redepth.refine(torch.rand(6, 9, 3).numpy(), preset="smoke", panorama=True)
    with pytest.raises(ConfigError, match="panorama=True gives the camera"):
        redepth.refine(torch.rand(6, 12, 3).numpy(), preset="smoke", panorama=True, camera="orthographic")
    with pytest.raises(ConfigError, match=r"renderer\.shadows=none"):
        redepth.refine(
            torch.rand(6, 12, 3).numpy(), "smoke", panorama=True, overrides=["renderer.shadows=soft"]
        )
