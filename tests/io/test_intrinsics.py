"""Intrinsics in every form: what is read, in which convention, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth.errors import ConfigError, InputError
from redepth.io import Intrinsics, load_intrinsics, parse_intrinsics

MATRIX = [[800.0, 0.0, 319.5], [0.0, 810.0, 239.5], [0.0, 0.0, 1.0]]
NUMBERS = {"fx": 800.0, "fy": 810.0, "cx": 319.5, "cy": 239.5}
TEXT = "\n".join(" ".join(map(str, row)) for row in MATRIX)


def written(path: Path, content: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_numbers_are_in_the_convention_of_opencv() -> None:
    # The centre of 640 x 480 pixels is (319.5, 239.5) where the first pixel's centre is (0, 0).
    assert parse_intrinsics("800,810, 319.5,239.5") == Intrinsics(800, 810, 320, 240)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("k.txt", TEXT, Intrinsics(800, 810, 320, 240)),
        ("k.txt", TEXT.replace(" ", ", "), Intrinsics(800, 810, 320, 240)),
        ("k.txt", f"# K of the left camera\n\n{TEXT}\n", Intrinsics(800, 810, 320, 240)),
        ("k.npy", np.array(MATRIX), Intrinsics(800, 810, 320, 240)),
        ("k.json", NUMBERS, Intrinsics(800, 810, 320, 240)),
        ("k.json", NUMBERS | {"width": 640, "height": 480}, Intrinsics(800, 810, 320, 240, 640, 480)),
        ("k.json", NUMBERS | {"pixel_centres": "half"}, Intrinsics(800, 810, 319.5, 239.5)),
        ("k.json", NUMBERS | {"k1": 0, "distortion": [0.0, 0.0]}, Intrinsics(800, 810, 320, 240)),
        (
            "cameras.txt",
            "# CAMERA_ID\n1 PINHOLE 640 480 800 810 320 240\n",
            Intrinsics(800, 810, 320, 240, 640, 480),
        ),
        ("cameras.txt", "7 SIMPLE_PINHOLE 640 480 800 320 240", Intrinsics(800, 800, 320, 240, 640, 480)),
    ],
)
def test_a_file_of_each_kind_gives_the_same_camera(
    name: str, content: Any, expected: Intrinsics, tmp_path: Path
) -> None:
    assert load_intrinsics(written(tmp_path / name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cameras.txt", "1 SIMPLE_RADIAL 640 480 800 320 240 0.1", "undistort the photo first"),
        ("cameras.txt", "1 OPENCV 640 480 800 810 320 240 0 0 0 0", "undistort the photo first"),
        ("cameras.txt", "1 PINHOLE 640 480 800 810 320 240\n2 PINHOLE 640 480 8 8 3 2", "holds 2 cameras"),
        ("cameras.txt", "1 PINHOLE 640 480 800 810 320", "needs a width, a height and 4 numbers"),
        ("cameras.txt", "1 PINHOLE 640.5 480 800 810 320 240", "whole numbers of pixels"),
        ("k.json", NUMBERS | {"k1": -0.2}, "undistort the photo first"),
        ("k.json", NUMBERS | {"distortion": [0, 0.1]}, "undistort the photo first"),
        ("k.json", {"fx": 1.0}, "lacks fy, cx, cy"),
        ("k.json", NUMBERS | {"fx": "800"}, "four numbers"),
        ("k.json", NUMBERS | {"fx": True}, "four numbers"),
        ("k.json", NUMBERS | {"fx": -1}, "focal lengths greater than 0"),
        ("k.json", NUMBERS | {"width": 640}, "whole numbers of pixels"),
        ("k.json", NUMBERS | {"pixel_centres": "corner"}, "must be half or integer"),
        ("k.json", {"kind": "orthographic"}, "which has no focal length"),
        ("k.json", "[1]", "holds no intrinsics"),
        ("k.json", "{", "not valid JSON"),
        ("k.npy", np.eye(4), "no 3 x 3 matrix"),
        ("k.npy", np.full((3, 3), np.nan), "no 3 x 3 matrix"),
        ("k.txt", "1 2\n3 4", "no 3 x 3 matrix"),
        ("k.txt", TEXT.replace("800.0", "x"), "no 3 x 3 matrix"),
        ("k.txt", TEXT.replace("800.0 0.0", "800.0 2.0"), "skewed pixels"),
        ("k.txt", TEXT.replace("0.0 0.0 1.0", "0.0 0.0 2.0"), "its rows must be"),
        ("k.txt", "", "no 3 x 3 matrix"),
    ],
)
def test_what_is_no_pinhole_is_refused(name: str, content: Any, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        load_intrinsics(path)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "8,8,x,1", "1_0,8,1,1", "8,8,1,1,x", "nan,1,1,1", "0,1,1,1", "8;1;1;1"]
)
def test_numbers_that_are_no_intrinsics_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give fx,fy,cx,cy in pixels of the photo"):
        parse_intrinsics(text)


@pytest.mark.parametrize(
    ("intrinsics", "words"),
    [
        (Intrinsics(800, 810, 320, 240, 1280, 960), "is of a picture of 1280 x 960, the photo has 640 x 480"),
        (Intrinsics(1.2, 1.6, 320, 240), "in pixels of the photo"),
        (Intrinsics(800, 1.6, 320, 240), "in pixels of the photo"),
        (Intrinsics(1e6, 1e6, 320, 240), "in pixels of the photo"),
        (Intrinsics(800, 810, 640, 480), "is outside the photo"),
        (Intrinsics(800, 810, 0.5, -3), "is outside the photo"),
    ],
)
def test_intrinsics_of_another_picture_are_refused(intrinsics: Intrinsics, words: str) -> None:
    with pytest.raises(InputError, match=words):
        intrinsics.check("k.txt", 480, 640)


def test_an_off_centre_principal_point_fits() -> None:
    Intrinsics(800, 810, 100, 470, 640, 480).check("k.txt", 480, 640)
