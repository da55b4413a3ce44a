"""One camera from the option to the normals: the slanted wall, the record, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import redepth
from redepth import io
from redepth.batch import Photo, Settings, check_photos, refine_photos, why_refine
from redepth.components import resolve
from redepth.config import load_preset
from redepth.errors import ConfigError, InputError
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.geometry import normals_from_depth
from redepth.photo_inputs import PhotoInputs
from redepth.refinement import Refinement
from redepth.runtime.executors import Resources
from tests.support import tiny_depth_models as tiny
from tests.support.command import call
from tests.support.small_photos import write_depth, write_photo
from tests.support.walls import FAST, ODD, OPTIONS, SHIFTED, SQUARE, off_by, wall_depth


def refined(camera: Camera | str | None, depth: Any, size: tuple[int, int] = ODD, **more: Any) -> Refinement:
    return redepth.refine(
        np.full((*size, 3), 0.5, np.float32),
        "smoke",
        overrides=FAST,
        device="cpu",
        camera=camera,  # type: ignore[arg-type]
        depth=depth,
        predicts="metric-depth",
        **more,
    )


# --- the wall -------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [SQUARE, SHIFTED], ids=["fov", "intrinsics"])
@pytest.mark.parametrize("size", [ODD, (96, 128), (64, 37)])
def test_a_wall_at_60_degrees_has_its_normals_before_and_after(camera: Camera, size: tuple[int, int]) -> None:
    result = refined(camera, wall_depth(camera, *size), size)
    for normals in (result.normals_before, result.normals_after):
        assert off_by(normals).max() < 0.5
    assert result.turn < 0.1


def test_at_photo_size_the_normals_of_the_depth_are_right_too() -> None:
    result = refined(SHIFTED, wall_depth(SHIFTED, *ODD))
    metres = result.depth_m
    assert metres is not None
    depth = torch.from_numpy(metres)[None, None]
    normals = normals_from_depth(depth, result.camera)
    # Bilinear resizing has kinks; the mean over the map is the plane's.
    mean = normals[0].mean(dim=(1, 2)).numpy()
    assert off_by(mean[None, None]).item() < 0.5


def test_without_a_camera_the_papers_is_used_and_the_wall_is_bent() -> None:
    result = refined(None, wall_depth(SQUARE, *ODD))
    assert result.camera == ORTHOGRAPHIC
    assert off_by(result.normals_before).mean() > 5


def test_the_presets_camera_has_square_pixels_of_the_photo() -> None:
    overrides = [*FAST, "renderer.camera=pinhole", "renderer.field_of_view=50"]
    result = redepth.refine(
        np.full((*ODD, 3), 0.5, np.float32),
        "smoke",
        overrides=overrides,
        device="cpu",
        depth=wall_depth(SQUARE, *ODD),
        predicts="metric-depth",
    )
    assert off_by(result.normals_before).max() < 0.5
    assert result.record()["camera"]["from"] == "preset"
    orthographic = refined("orthographic", wall_depth(SQUARE, *ODD))
    assert orthographic.record()["camera"] == {
        "kind": "orthographic",
        "fov": None,
        "intrinsics": None,
        "from": "python",
    }


# --- what is refused, and what is done already ----------------------------------------------------


def test_python_refuses_what_is_no_camera() -> None:
    pixels = np.zeros((40, 50, 3), np.float32)
    for camera, words in (
        ("exif", "is an array and has no EXIF"),
        ("fisheye", "orthographic, exif or model"),
    ):
        with pytest.raises(InputError, match=words):
            redepth.refine(pixels, "smoke", camera=camera)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="estimates no camera") as error:
        redepth.refine(pixels, "smoke", camera="model")
    for name in ("depth-pro", "moge-2", "moge-3-giant", "depth-anything-3-small"):
        assert f"{name}," in str(error.value) or f"{name} do)" in str(error.value)
    assert "marigold" not in str(error.value)


def test_a_camera_is_that_of_one_photo_alone() -> None:
    pipeline = redepth.Pipeline("smoke", overrides=["optim.steps=1", "optim.members=1"], device="cpu")
    pixels = np.full((40, 50, 3), 0.5, np.float32)
    assert pipeline.refine(pixels, camera=SQUARE).camera == SQUARE.of_picture(40, 50)
    assert pipeline.refine(pixels).camera == ORTHOGRAPHIC


def test_another_camera_refines_again_and_says_which(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.png")
    file = tmp_path / "k.json"
    file.write_text(json.dumps({"fx": 50.0, "fy": 50.0, "cx": 25.0, "cy": 20.0}))
    settings = Settings(resolve(load_preset("smoke", FAST)), device="cpu", prompt="x")

    def photo(camera: Any) -> Photo:
        return Photo(path, tmp_path / "out", PhotoInputs(camera, "--camera"))

    def refine(camera: Any) -> None:
        (done,) = refine_photos([photo(camera)], settings, Resources())
        assert done.error == ""

    def why(camera: Any) -> str | None:
        return why_refine(photo(camera), settings)

    refine(Camera(field_of_view=60.0))
    assert why(Camera(field_of_view=60.0)) is None
    assert why(Camera(field_of_view=61.0)) == "the field of view changed"
    assert why(file) == "the field of view is not used any more; the file of intrinsics is new"
    assert why(None) == "the field of view is not used any more"
    assert why("orthographic") == "the camera is new; the field of view is not used any more"
    refine(file)
    assert why(file) is None
    file.write_text(json.dumps({"fx": 51.0, "fy": 50.0, "cx": 25.0, "cy": 20.0}))
    assert why(file) == "the file of intrinsics changed"
    numbers = io.parse_intrinsics("51,50,25,20")
    assert why(numbers) == "the camera is new; the file of intrinsics is not used any more"


def test_a_batch_reads_inputs_once_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_photo(tmp_path / "a.png")
    inputs = PhotoInputs(Camera(field_of_view=60.0), "--fov", write_mask(tmp_path / "sky.png"))
    (done,) = check_photos([Photo(path, tmp_path / "out", inputs)], io.MAX_PIXELS)
    assert done.result is not None
    assert done.result.decoded is not None
    loaded = done.result.decoded.inputs
    assert loaded.camera.origin == "--fov"
    assert len(loaded.data) == 1
    assert loaded.nbytes == 40 * 50
    assert set(done.result.hashes) == {"the photo", "the sky mask", "the field of view"}
    settings = Settings(resolve(load_preset("smoke", FAST)), device="cpu", prompt="x")
    assert why_refine(done.result, settings) == ""


def write_mask(path: Path) -> Path:
    Image.fromarray(np.full((40, 50), 255, np.uint8)).save(path)
    return path


# --- maps as arrays -------------------------------------------------------------------------------


def test_a_map_as_an_array_is_refined_as_its_file_is(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.png")
    depth = np.load(write_depth(tmp_path / "map.npy"))
    overrides = [*FAST, "optim.learning_rates.correction=0.01"]
    one = redepth.refine(photo, "smoke", overrides=overrides, device="cpu", depth=depth, predicts="depth")
    done = call(
        "refine",
        photo,
        *OPTIONS,
        "--set",
        overrides[-1],
        "--depth",
        tmp_path / "map.npy",
        "--predicts",
        "depth",
        "--out",
        tmp_path / "out",
    )
    assert done.code == 0, done
    assert np.array_equal(one.refined, np.load(tmp_path / "out" / "a" / "depth.npy"))
    assert one.record()["depth_model"]["path"] == "<array>"


def test_a_pipeline_takes_a_map_for_each_photo() -> None:
    overrides = [*FAST, *redepth.pipeline.map_overrides("<array>", "metric-depth")]
    pipeline = redepth.Pipeline("smoke", overrides=overrides, device="cpu")
    pixels = np.full((*ODD, 3), 0.5, np.float32)
    for factor in (1.0, 3.0):
        depth = factor * wall_depth(SQUARE, *ODD)
        depth[0, 0] = np.nan
        result = pipeline.refine(pixels, depth=depth, camera=SQUARE)
        assert result.depth_m is not None
        assert np.nanmedian(result.depth_m) == pytest.approx(np.nanmedian(depth), rel=0.01)
    with pytest.raises(InputError, match="Python passes the map"):
        pipeline.refine(pixels)


@pytest.mark.parametrize(
    ("depth", "predicts", "words"),
    [
        (np.ones((40, 50)), None, "go together"),
        (None, "depth", "go together"),
        (np.ones((40, 50)), "depth", "is constant"),
        (-np.ones((40, 50)), "depth", "must be greater than 0"),
        (np.ones((40, 50, 3)), "depth", r"give numbers \(H, W\)"),
        (np.arange(1.0, 1601).reshape(40, 40), "depth", "the photo has the shape of"),
        (np.full((40, 50), "x"), "depth", r"give numbers \(H, W\)"),
    ],
)
def test_a_wrong_map_is_refused(depth: Any, predicts: Any, words: str) -> None:
    with pytest.raises((ConfigError, InputError), match=words):
        redepth.refine(
            np.zeros((40, 50, 3), np.float32), "smoke", device="cpu", depth=depth, predicts=predicts
        )


def test_a_model_that_predicts_takes_no_map() -> None:
    pipeline = redepth.Pipeline("smoke", overrides=FAST, device="cpu")
    with pytest.raises(ConfigError, match="takes no map"):
        pipeline.refine(np.zeros((40, 50, 3), np.float32), depth=np.ones((40, 50)))


# --- the depth model's camera ---------------------------------------------------------------------


def test_the_depth_models_camera_is_used_and_recorded(tmp_path: Path) -> None:
    checkpoint = tiny.save(tiny.depth_pro(), tmp_path / "focal")
    overrides = ["depth_model.name=depth-pro", f"depth_model.checkpoint={checkpoint}", *FAST]
    pixels = np.random.default_rng(0).random((60, 80, 3)).astype(np.float32)
    result = redepth.refine(pixels, "smoke", overrides=overrides, device="cpu", camera="model")
    record = result.record()["camera"]
    assert (record["kind"], record["from"]) == ("pinhole", "depth model")
    assert 1 < record["fov"]["horizontal"] < 179
    assert record["intrinsics"]["fx"] == pytest.approx(record["intrinsics"]["fy"])
