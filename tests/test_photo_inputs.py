"""One camera from the option to the normals: the slanted wall, the record, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import redepth
from redepth import io
from redepth.batch import Photo, Settings, check_photos, why_refine
from redepth.components import resolve
from redepth.config import load_preset
from redepth.errors import ConfigError, InputError
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.photo_inputs import PhotoInputs
from redepth.refinement import Refinement
from tests.support.command import Finished, call, one_line
from tests.support.small_photos import write_depth, write_photo
from tests.support.walls import off_by, wall_depth

FAST = ["optim.steps=1", "optim.members=1", "optim.learning_rates.correction=1e-7"]
SMOKE = ["--preset", "smoke", "--device", "cpu", *(part for item in FAST for part in ("--set", item))]

ODD = (303, 403)
"""Height and width of a photo of about 4:3, whose network size is rounded to another aspect ratio."""

SQUARE = Camera(field_of_view=50.0)
SHIFTED = Camera.from_pixels(420.0, 460.0, 150.5, 190.25, *ODD)
"""Pixels that are not square, and an axis off the centre."""


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
    result = refined(camera, wall_depth(camera.of_picture(*ODD), *size), size)
    for normals in (result.normals_before, result.normals_after):
        assert off_by(normals).max() < 0.5
    assert result.turn < 0.1


def test_at_photo_size_the_normals_of_the_depth_are_right_too() -> None:
    result = refined(SHIFTED, wall_depth(SHIFTED, *ODD))
    metres = result.depth_m
    assert metres is not None
    depth = torch.from_numpy(metres)[None, None]
    normals = redepth.refinement.geometry.normals_from_depth(depth, result.camera)
    # Bilinear resizing has kinks; the mean over the map is the plane's.
    mean = normals[0].mean(dim=(1, 2)).numpy()
    assert off_by(mean[None, None]).item() < 0.5


def test_without_a_camera_the_papers_is_used_and_the_wall_is_bent() -> None:
    result = refined(None, wall_depth(SQUARE, *ODD))
    assert result.camera == ORTHOGRAPHIC
    assert off_by(result.normals_before).mean() > 5


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wall")
    write_photo(folder / "wall.png", size=ODD)
    np.save(folder / "depth.npy", wall_depth(SQUARE, *ODD))
    np.save(folder / "shifted.npy", wall_depth(SHIFTED, *ODD))
    return folder


def refine(wall: Path, *more: Any, depth: str = "depth.npy", out: str = "out") -> Finished:
    given = ["--depth", wall / depth, "--predicts", "metric-depth"]
    return call("refine", wall / "wall.png", *SMOKE, *given, "--out", wall / out, *more)


def picture_normals(path: Path) -> Any:
    """The normals that the picture shows, 8 bits per component."""
    return np.asarray(Image.open(path)).astype(np.float64) / 127.5 - 1


def test_the_command_line_takes_a_field_of_view_to_the_picture_and_the_record(wall: Path) -> None:
    assert refine(wall, "--fov", "50").code == 0
    normals = picture_normals(wall / "out" / "wall" / "normals.png")
    assert normals.shape == (*ODD, 3)
    # A colour has 8 bits: half a step of each component is up to 0.4 degrees.
    assert off_by(normals).max() < 0.5
    camera = json.loads((wall / "out" / "wall" / "run.json").read_text())["camera"]
    assert (camera["kind"], camera["from"]) == ("pinhole", "--fov")
    assert camera["fov"]["horizontal"] == pytest.approx(50)
    focal = 403 / 2 / np.tan(np.radians(25))
    assert camera["intrinsics"] == pytest.approx({"fx": focal, "fy": focal, "cx": 201.5, "cy": 151.5})


@pytest.mark.parametrize("form", ["numbers", "file", "folder"])
def test_intrinsics_are_those_of_opencv_in_every_form(form: str, wall: Path) -> None:
    # OpenCV's principal point is half a pixel less.
    numbers = {"fx": 420.0, "fy": 460.0, "cx": 150.0, "cy": 189.75}
    folder = wall / "cameras"
    folder.mkdir(exist_ok=True)
    (folder / "wall.json").write_text(json.dumps(numbers))
    given = {"numbers": "420,460,150,189.75", "file": folder / "wall.json", "folder": folder}[form]
    assert refine(wall, "--intrinsics", given, depth="shifted.npy", out=form).code == 0
    assert off_by(picture_normals(wall / form / "wall" / "normals.png")).max() < 0.5
    camera = json.loads((wall / form / "wall" / "run.json").read_text())["camera"]
    assert camera["intrinsics"] == pytest.approx({"fx": 420, "fy": 460, "cx": 150.5, "cy": 190.25})
    assert camera["from"] == ("--intrinsics" if form == "numbers" else f"--intrinsics {folder / 'wall.json'}")


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


def test_exif_gives_the_camera_of_a_photo(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 60), (90, 120, 60))
    exif = image.getexif()
    exif[ExifTags.Base.Make] = "a camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 50
    image.save(tmp_path / "a.jpg", exif=exif.tobytes())
    done = call(
        "refine",
        tmp_path / "a.jpg",
        *SMOKE[:4],
        "--set",
        "optim.steps=1",
        "--camera",
        "exif",
        "--out",
        tmp_path,
    )
    assert done.code == 0, done
    camera = json.loads((tmp_path / "a" / "run.json").read_text())["camera"]
    assert camera["fov"]["horizontal"] == pytest.approx(39.6, abs=0.05)
    assert camera["from"] == "exif"


# --- what is refused, before any work -------------------------------------------------------------


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fov", "60", "--camera", "exif"), "each give the camera: give one of them"),
        (("--fov", "60", "--intrinsics", "1,1,1,1"), "each give the camera"),
        (("--fov", "0"), "range"),
        (("--fov", "180"), "range"),
        (("--intrinsics", "1,2"), "give fx,fy,cx,cy in pixels"),
        (("--intrinsics", "nothing.txt"), "no such file"),
        (("--intrinsics", "420,460,500,190"), "is outside the photo"),
        (("--camera", "exif"), "has no 35 mm equivalent"),
        (("--camera", "model"), "estimates no camera"),
        (("--camera", "fisheye"), "fisheye"),
    ],
)
def test_a_wrong_camera_is_one_line(options: tuple[str, ...], words: str, wall: Path) -> None:
    done = refine(wall, *options, out="refused")
    assert done.code == 2
    assert words in one_line(done.err)
    assert not list((wall / "refused").glob("*/run.json"))


@pytest.mark.usefixtures("never_loads")
def test_intrinsics_without_a_size_hold_for_photos_of_one_size(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "a.png"), write_photo(tmp_path / "b.png", size=(50, 40))]
    done = call("refine", *photos, *SMOKE, "--intrinsics", "40,40,25,20", "--out", tmp_path / "out")
    assert done.code == 2
    assert "--intrinsics holds for photos of one size" in one_line(done.err)
    # One that names its size is held against each photo.
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 50 40 40 40 25 20\n")
    photos[0].unlink()
    done = call(
        "refine", photos[1], *SMOKE, "--intrinsics", tmp_path / "cameras.txt", "--out", tmp_path / "out"
    )
    assert "is of a picture of 50 x 40, the photo has 40 x 50" in one_line(done.err)


@pytest.mark.usefixtures("never_loads")
def test_a_photo_without_its_intrinsics_is_named(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.png")
    (tmp_path / "cameras").mkdir()
    (tmp_path / "cameras" / "b.json").write_text("{}")
    done = call("refine", photo, *SMOKE, "--intrinsics", tmp_path / "cameras", "--out", tmp_path / "out")
    assert done.code == 2
    assert "a.png: --intrinsics: its folder must hold one file of this photo's name" in done.err


def test_python_refuses_what_is_no_camera() -> None:
    pixels = np.zeros((40, 50, 3), np.float32)
    for camera, words in (
        ("exif", "is an array and has no EXIF"),
        ("fisheye", "orthographic, exif or model"),
    ):
        with pytest.raises(InputError, match=words):
            redepth.refine(pixels, "smoke", camera=camera)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="estimates no camera"):
        redepth.refine(pixels, "smoke", camera="model")


# --- what is done already -------------------------------------------------------------------------


def test_another_camera_refines_again_and_says_which(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "a.png"), write_photo(tmp_path / "b.png", seed=1)]
    (tmp_path / "k.json").write_text(json.dumps({"fx": 50.0, "fy": 50.0, "cx": 25.0, "cy": 20.0}))

    def again(*options: Any) -> str:
        done = call("refine", *photos, *SMOKE, *options, "--out", tmp_path / "out")
        assert done.code == 0, done
        return done.out

    again("--fov", "60")
    assert "2 of 2 photos are done already" in again("--fov", "60")
    assert "a.png: refined again: the field of view changed" in again("--fov", "61")
    assert "the field of view is not used any more; the file of intrinsics is new" in again(
        "--intrinsics", tmp_path / "k.json"
    )
    (tmp_path / "k.json").write_text(json.dumps({"fx": 51.0, "fy": 50.0, "cx": 25.0, "cy": 20.0}))
    assert "the file of intrinsics changed" in again("--intrinsics", tmp_path / "k.json")
    assert "the camera is new" in again("--intrinsics", "51,50,25,20")
    assert "the camera is not used any more" in again()


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
        *SMOKE,
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
