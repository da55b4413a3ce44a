"""The camera options of the command line: from the option to the picture and the record; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.support.command import Finished, call, one_line
from tests.support.small_photos import write_photo
from tests.support.walls import ODD, OPTIONS, SHIFTED, SQUARE, off_by, wall_depth


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wall")
    write_photo(folder / "wall.png", size=ODD)
    np.save(folder / "depth.npy", wall_depth(SQUARE, *ODD))
    np.save(folder / "shifted.npy", wall_depth(SHIFTED, *ODD))
    return folder


def refine(wall: Path, *more: Any, depth: str = "depth.npy", out: str = "out") -> Finished:
    given = ["--depth", wall / depth, "--predicts", "metric-depth"]
    written = ["--write", "normals,intrinsics", "--out", wall / out]
    return call("refine", wall / "wall.png", *OPTIONS, *given, *written, *more)


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
    numbers = {"fx": 420.0, "fy": 460.0, "cx": 250.0, "cy": 189.75}
    folder = wall / "cameras"
    folder.mkdir(exist_ok=True)
    (folder / "wall.json").write_text(json.dumps(numbers))
    given = {"numbers": "420,460,250,189.75", "file": folder / "wall.json", "folder": folder}[form]
    assert refine(wall, "--intrinsics", given, depth="shifted.npy", out=form).code == 0
    assert off_by(picture_normals(wall / form / "wall" / "normals.png")).max() < 0.5
    camera = json.loads((wall / form / "wall" / "run.json").read_text())["camera"]
    assert camera["intrinsics"] == pytest.approx({"fx": 420, "fy": 460, "cx": 250.5, "cy": 190.25})
    assert camera["from"] == ("--intrinsics" if form == "numbers" else f"--intrinsics {folder / 'wall.json'}")


def test_the_intrinsics_that_are_written_are_read_again(wall: Path) -> None:
    assert refine(wall, "--intrinsics", "420,460,250,189.75", depth="shifted.npy", out="one").code == 0
    stored = wall / "one" / "wall" / "intrinsics.json"
    assert refine(wall, "--intrinsics", stored, depth="shifted.npy", out="two").code == 0
    one, two = (json.loads((wall / out / "wall" / "run.json").read_text()) for out in ("one", "two"))
    assert one["camera"]["intrinsics"] == pytest.approx(two["camera"]["intrinsics"])
    pictures = [(wall / out / "wall" / "normals.png").read_bytes() for out in ("one", "two")]
    assert pictures[0] == pictures[1]


def test_exif_gives_the_camera_of_a_photo(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 60), (90, 120, 60))
    exif = image.getexif()
    exif[ExifTags.Base.Make] = "a camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 50
    image.save(tmp_path / "a.jpg", exif=exif.tobytes())
    done = call(
        "refine",
        tmp_path / "a.jpg",
        *OPTIONS[:4],
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
        (("--fov", "0"), "greater than or equal to 0.001"),
        (("--fov", "180"), "less than or equal to 179"),
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
    one_line(done, words)
    assert not list((wall / "refused").glob("*/run.json"))


@pytest.mark.usefixtures("never_loads")
def test_intrinsics_without_a_size_hold_for_photos_of_one_size(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "a.png"), write_photo(tmp_path / "b.png", size=(50, 40))]
    done = call("refine", *photos, *OPTIONS, "--intrinsics", "40,40,25,20", "--out", tmp_path / "out")
    assert done.code == 2
    one_line(done, "--intrinsics holds for photos of one size")
    # One that names its size is held against each photo.
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 50 40 40 40 25 20\n")
    photos[0].unlink()
    done = call(
        "refine", photos[1], *OPTIONS, "--intrinsics", tmp_path / "cameras.txt", "--out", tmp_path / "out"
    )
    one_line(done, "is of a picture of 50 x 40, the photo has 40 x 50")


@pytest.mark.usefixtures("never_loads")
def test_a_photo_without_its_intrinsics_is_named(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.png")
    (tmp_path / "cameras").mkdir()
    (tmp_path / "cameras" / "b.json").write_text("{}")
    done = call("refine", photo, *OPTIONS, "--intrinsics", tmp_path / "cameras", "--out", tmp_path / "out")
    assert done.code == 2
    assert "a.png: --intrinsics: its folder must hold one file of this photo's name" in done.err
