"""The stored rooms of the path tracer, and the tool that renders them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.cli.checks import sha256
from redepth.data.datasets.synthetic import Synthetic
from redepth.data.scenes.path_traced_rooms import ASSET, as_rooms, path_traced_rooms, room_names
from redepth.data.scenes.rooms.scene import RoomScenes
from redepth.errors import InputError
from redepth.io.assets import VARIABLE, find_asset
from redepth.ops.camera import Camera
from redepth.ops.color import srgb_to_linear
from redepth.ops.geometry import normals_from_depth
from training import path_trace_rooms as tool
from training.traced_rooms import textures
from training.traced_rooms.stage import Stage

SHA256 = "eda0d17d4fbd8e3b76789088072e3352f080569682330a9a3a28e6fd64fed75c"


@pytest.fixture(scope="module")
def stored() -> RoomScenes:
    return path_traced_rooms()


@pytest.fixture(scope="module")
def shot() -> tool.Shot:
    """A slope with a step, in order."""
    rng = np.random.default_rng(0)
    photo = rng.integers(40, 200, (tool.SIZE, tool.SIZE, 3)).astype(np.uint8)
    depth = np.linspace(2, 4, tool.SIZE, dtype=np.float32)[:, None].repeat(tool.SIZE, axis=1)
    maps = np.full((tool.SIZE, tool.SIZE, 3), 0.5, np.float32)
    return tool.Shot("slope-00", photo, depth, maps, maps, 60.0, 0.0, 1.0)


def test_the_file_is_the_one_that_was_checked() -> None:
    """After rendering anew look at the picture, and take the hash from path-traced-rooms.json."""
    assert sha256(find_asset(ASSET)) == SHA256
    record = json.loads((tool.DOCS / "results" / "path-traced-rooms.json").read_text())
    assert record["sha256"] == SHA256
    assert [row["name"] for row in record["scenes"]] == room_names()
    assert max(row["depth_error"] for row in record["scenes"]) < tool.MAX_DEPTH_ERROR


def test_there_are_24_scenes_of_more_than_a_dozen_layouts() -> None:
    names = room_names()
    assert names == [tool.name_of(index) for index in range(tool.COUNT)]
    assert len(set(names)) == 24
    assert len({name.split("-")[0] for name in names}) == len(tool.LAYOUTS) >= 12


def test_scenes_are_valid(stored: RoomScenes) -> None:
    assert stored.image.shape == stored.normals.shape == stored.albedo.shape == (24, 3, 160, 160)
    assert stored.depth.shape == (24, 1, 160, 160)
    assert stored.image.dtype == stored.depth.dtype == torch.float32
    assert stored.image.min() >= 0
    assert stored.image.max() <= 1
    known = torch.where(stored.sky, torch.nan, 1 / stored.depth)
    assert torch.allclose(known.flatten(1).nanmean(dim=1), torch.ones(24), atol=1e-4)
    assert stored.depth.min() > 0.1


def test_photos_are_neither_black_nor_blown_out(stored: RoomScenes) -> None:
    grey = stored.image.mean(dim=1).flatten(1)
    assert grey.mean(dim=1).min() > 0.25
    assert grey.mean(dim=1).max() < 0.65
    assert grey.std(dim=1).min() > 0.08
    assert (grey > 0.99).float().mean(dim=1).max() < 0.15


def angles(stored: RoomScenes, widening: float) -> Tensor:
    """Median angle in degrees between stored normals and those of the depth by the field of view, (24,)."""
    found = []
    for index in range(24):
        camera = Camera(field_of_view=float(stored.field_of_view[index]) * widening)
        known = torch.where(stored.sky[index], torch.nan, stored.depth[index])
        expected = normals_from_depth(known[None], camera)[0]
        cosine = (expected * stored.normals[index]).sum(dim=0)[~stored.sky[index, 0]]
        found.append(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).nanmedian())
    return torch.stack(found)


def test_depth_and_normals_are_those_of_one_surface_seen_with_the_field_of_view(stored: RoomScenes) -> None:
    assert stored.field_of_view.min() >= 45
    assert stored.field_of_view.max() <= 75
    assert stored.field_of_view.unique().numel() > 20
    right = angles(stored, 1.0)
    assert right.max() < 0.5
    for wrong in (angles(stored, 0.85), angles(stored, 1.15)):
        assert (wrong > 1.3 * right).all()
        assert wrong.mean() > 1


def steps(values: Tensor) -> Tensor:
    """Largest difference to the neighbours on the right and below, (B, H-1, W-1)."""
    across, down = values.diff(dim=-1)[..., :-1, :], values.diff(dim=-2)[..., :-1]
    return torch.maximum(across.abs(), down.abs()).amax(dim=1)


def test_edges_of_the_depth_are_edges_of_the_picture(stored: RoomScenes) -> None:
    smooth = F.avg_pool2d(stored.image, 3, stride=1, padding=1)
    change = steps(smooth)
    disparity = torch.where(stored.sky, 0.0, 1 / stored.depth)
    edges = steps(disparity) > 0.1

    def contrast(shift: int) -> Tensor:
        moved = edges.roll((shift, shift), (-2, -1))
        return (change * moved).sum(dim=(1, 2)) / moved.sum(dim=(1, 2)).clamp(min=1)

    assert edges.float().mean() > 0.01
    away = contrast(8), contrast(-8)
    assert (contrast(0) > 1.15 * torch.maximum(*away)).float().mean() > 0.8


def test_the_sky_has_no_depth(stored: RoomScenes) -> None:
    outdoors = stored.sky.flatten(1).any(dim=1)
    assert 4 <= int(outdoors.sum()) <= 8
    assert stored.sky[outdoors].float().mean() > 0.05
    sky = stored.sky.expand_as(stored.image)
    assert (stored.normals[sky] == 0).all()
    assert (stored.disparity[stored.sky] == 0).all()
    assert torch.allclose(stored.albedo[sky], srgb_to_linear(stored.image[sky]))
    lengths = torch.linalg.vector_norm(stored.normals, dim=1)[~stored.sky[:, 0]]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    # Seen surfaces face the camera, up to the rounding of smooth meshes' normals.
    assert (stored.normals[:, 2][~stored.sky[:, 0]] < -0.3).float().mean() < 0.01


def test_the_albedo_has_no_shadows(stored: RoomScenes) -> None:
    """It explains a part of the picture, and not its light."""
    assert stored.albedo.min() >= 0
    assert stored.albedo.max() <= 1
    linear = srgb_to_linear(stored.image)
    shading = linear.mean(dim=1) / stored.albedo.mean(dim=1).clamp(min=0.02)
    assert shading.flatten(1).std(dim=1).min() > 0.05


def test_arrays_become_scenes() -> None:
    depth = np.full((1, 4, 4), 2.0, np.float32)
    depth[0, 0] = 0
    depth[0, 1] = 4
    normals = np.zeros((1, 4, 4, 3), np.int8)
    normals[0, 1:, :, 2] = 127
    rooms = as_rooms(
        {
            "image": np.full((1, 4, 4, 3), 51, np.uint8),
            "depth": depth,
            "normals": normals,
            "albedo": np.full((1, 4, 4, 3), 255, np.uint8),
            "field_of_view": np.array([50.0]),
        }
    )
    assert torch.isinf(rooms.depth[0, 0, 0]).all()
    harmonic = 3 / (1 / 4 + 1 / 2 + 1 / 2)
    assert torch.allclose(rooms.depth[0, 0, 1:, 0], torch.tensor([4.0, 2, 2]) / harmonic)
    assert rooms.image.unique().item() == pytest.approx(0.2)
    assert torch.equal(rooms.normals[0, :, 3, 3], torch.tensor([0.0, 0, 1]))
    assert torch.equal(rooms.albedo[0, :, 1:], torch.ones(3, 3, 4))
    assert torch.allclose(rooms.albedo[0, :, 0], torch.tensor(0.2**2.2))


def test_the_data_set_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Synthetic(split="path-traced-rooms", count=3)
    assert reader.names() == room_names()[:3]
    assert not reader.check()
    sample = reader.load("library-01")
    assert sample.pixels().shape == (160, 160, 3)
    assert sample.camera == Camera(field_of_view=float(path_traced_rooms().field_of_view[1]))
    assert sample.albedo is not None
    assert np.array_equal(sample.truth, path_traced_rooms().depth[1, 0])
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (missing,) = reader.check()
    assert str(missing).startswith(ASSET)
    with pytest.raises(InputError, match=f"not of the wheel: .* set {VARIABLE}"):
        reader.load("library-01")


# --- the tool -------------------------------------------------------------------------------------


def test_the_check_refuses_what_no_camera_would_take(shot: tool.Shot) -> None:
    assert tool.check(shot)["nearest"] == 2
    with pytest.raises(ValueError, match="not that of the camera"):
        tool.check(replace(shot, depth_error=0.01))
    with pytest.raises(ValueError, match="inside a thing"):
        tool.check(replace(shot, depth=shot.depth / 10))
    for photo in (shot.photo // 8, 255 - shot.photo // 8, np.full_like(shot.photo, 110)):
        with pytest.raises(ValueError, match="too dark, too bright or flat"):
            tool.check(replace(shot, photo=photo))
    with pytest.raises(ValueError, match="most of the photo is sky"):
        tool.check(replace(shot, depth=np.where(shot.depth > 2.5, np.inf, shot.depth)))


def test_what_is_stored_is_read_again(shot: tool.Shot) -> None:
    depth = shot.depth.copy()
    depth[:5] = np.inf
    read = as_rooms(tool.arrays_of([replace(shot, depth=depth)]))
    assert read.sky[0, 0, :5].all()
    assert not read.sky[0, 0, 5:].any()
    assert torch.equal((read.image[0] * 255).round().byte(), torch.from_numpy(shot.photo).permute(2, 0, 1))
    ratio = read.depth[0, 0, 5:] / torch.from_numpy(depth[5:])
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))
    assert torch.allclose(read.albedo[0, :, 5:], torch.tensor(0.5), atol=0.005)


def test_exposure_does_not_depend_on_the_unit_of_light() -> None:
    light = np.random.default_rng(1).lognormal(size=(32, 32, 3)).astype(np.float32)
    first, second = tool.developed(light), tool.developed(1000 * light)
    assert np.abs(first.astype(int) - second).max() <= 1
    assert 90 < first.mean() < 140
    assert (np.diff(first.reshape(-1)[np.argsort(np.repeat(light.mean(axis=-1), 3))].astype(int)) != 0).any()
    assert (tool.developed(np.ones((4, 4, 3), np.float32)) == tool.developed(np.ones((4, 4, 3)))).all()


def test_one_bright_pass_of_a_pixel_is_left_out() -> None:
    passes = np.random.default_rng(2).uniform(0.4, 0.6, (tool.PASSES, 6, 6, 3)).astype(np.float32)
    plain = tool.without_fireflies(passes)
    assert plain.shape == (6, 6, 3)
    assert np.abs(plain - passes.mean(axis=0)).max() < 0.06
    passes[5, 2, 3] = 400.0
    assert 0.4 < tool.without_fireflies(passes)[2, 3].min() < tool.without_fireflies(passes)[2, 3].max() < 0.6
    passes[5, 2, 3] = passes[4, 2, 3]
    ramp = np.arange(tool.PASSES, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 3), np.float32)
    assert (tool.without_fireflies(ramp) == (tool.PASSES - tool.BRIGHTEST - 1) / 2).all()


def test_the_axes_of_the_camera() -> None:
    stage = Stage(None, 0)
    stage.look((0, 1, 0), (0, 1, 5))
    assert np.allclose(tool.camera_axes(stage), [[-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert 45 <= stage.field_of_view <= 75


def test_textures_are_colours_and_follow_their_seed() -> None:
    colour = np.array([0.6, 0.4, 0.2])
    for draw in (textures.plaster, textures.wood, textures.bricks, textures.stone):
        first, again, other = (draw(np.random.default_rng(seed), colour) for seed in (1, 1, 2))
        assert first.shape == (textures.SIDE, textures.SIDE, 3)
        assert first.min() >= 0
        assert first.max() <= 0.95
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_a_ball_before_a_wall_has_the_depth_of_a_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mitsuba", reason='needs the extra: pip install "redepth[mitsuba]"')

    def ball(stage: Stage) -> None:
        stage.ball((0.2, 0.1, 3.0), 0.8, stage.paint())
        stage.box((0, 0, 6.0), (9, 9, 0.5), stage.paint())
        stage.bulb((0, 3, -2), 0.5, (9, 9, 9))
        stage.look((0, 0, 0), (0, 0, 1))

    monkeypatch.setattr(tool, "LAYOUTS", (ball,))
    size = 32
    seen = tool.photograph(0, samples=4, variant="scalar_rgb", size=size)
    u, v = (a.numpy() for a in Camera(field_of_view=seen.field_of_view).axes(size, size, dtype=torch.float64))
    d = np.stack(np.broadcast_arrays(u, v[:, None], 1.0), axis=-1)
    # The picture's right is the world's -x.
    centre = np.array([-0.2, 0.1, 3.0])
    along, square = d @ centre, (d * d).sum(axis=-1)
    root = along**2 - square * (centre @ centre - 0.8**2)
    expected = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / square, 5.5)
    assert np.allclose(seen.depth, expected, rtol=1e-4)
    assert np.allclose(seen.normals[0, 0], [0, 0, 1], atol=1e-4)
    hit = (root > 0)[..., None]
    out = (expected[..., None] * d - centre) / 0.8 * [1, 1, -1]
    assert np.allclose(np.where(hit, seen.normals, 0), np.where(hit, out, 0), atol=1e-3)
    assert seen.depth_error < tool.MAX_DEPTH_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 13], ids=["indoors", "outdoors"])
def test_a_scene_rendered_again_is_the_stored_one_within_noise(stored: RoomScenes, index: int) -> None:
    pytest.importorskip("mitsuba", reason='needs the extra: pip install "redepth[mitsuba]"')
    seen = tool.photograph(index, samples=8, variant="scalar_rgb")
    again = as_rooms(tool.arrays_of([seen]))
    assert (again.sky[0] == stored.sky[index]).float().mean() > 0.999
    both = ~again.sky[0] & ~stored.sky[index]
    close = torch.isclose(again.depth[0][both], stored.depth[index][both], rtol=1e-3)
    assert close.float().mean() > 0.995
    assert torch.isfinite(again.normals).all()
    blurred = torch.stack([F.avg_pool2d(p, 8).flatten() for p in (again.image[0], stored.image[index])])
    assert torch.corrcoef(blurred)[0, 1] > 0.9
