"""The focal length in a photo's EXIF, by the diagonal of the whole picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from redepth.errors import InputError
from redepth.io import exif_focal_length

TAG = ExifTags.Base


def taken(
    path: Path, size: tuple[int, int] = (64, 48), *, orientation: int | None = None, **tags: object
) -> Path:
    """Write a photo of (width, height) with EXIF tags."""
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[TAG.Make] = "a camera"
    if orientation is not None:
        exif[TAG.Orientation] = orientation
    for name, value in tags.items():
        exif.get_ifd(ExifTags.IFD.Exif)[TAG[name]] = value
    image.save(path, exif=exif.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_35_mm_equivalent_is_by_the_diagonal(suffix: str, tmp_path: Path) -> None:
    path = taken(tmp_path / f"a{suffix}", FocalLengthIn35mmFilm=28)
    # 64 x 48 pixels have a diagonal of 80.
    assert exif_focal_length(path, 48, 64) == pytest.approx(28 * 80 / math.hypot(36, 24))
    assert exif_focal_length(path, 48, 64) == pytest.approx(28 * 80 / 43.2666, rel=1e-5)


def test_a_full_frame_photo_has_its_textbook_angle(tmp_path: Path) -> None:
    focal = exif_focal_length(taken(tmp_path / "a.jpg", (90, 60), FocalLengthIn35mmFilm=50), 60, 90)
    assert math.degrees(2 * math.atan(45 / focal)) == pytest.approx(39.6, abs=0.05)


def test_a_turned_or_scaled_photo_keeps_its_field_of_view(tmp_path: Path) -> None:
    size = {"ExifImageWidth": 4000, "ExifImageHeight": 3000}
    path = taken(tmp_path / "a.jpg", orientation=6, FocalLengthIn35mmFilm=28, **size)
    # Upright it is 48 wide; it was scaled from 4000 x 3000.
    assert exif_focal_length(path, 64, 48) == pytest.approx(28 * 80 / 43.2666, rel=1e-5)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({}, "has no 35 mm equivalent"),
        ({"FocalLength": IFDRational(42, 10)}, "has no 35 mm equivalent"),
        ({"FocalLengthIn35mmFilm": 0}, "which is unknown"),
        ({"FocalLengthIn35mmFilm": 65535}, "which is unknown"),
        ({"FocalLengthIn35mmFilm": 28, "ExifImageWidth": 4000, "ExifImageHeight": 2250}, "it was cropped"),
    ],
)
def test_an_unknown_field_of_view_is_an_error_that_says_what_to_do(
    tags: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = taken(tmp_path / "a.jpg", **tags)
    with pytest.raises(InputError) as error:
        exif_focal_length(path, 48, 64)
    assert words in str(error.value)
    assert "--fov DEG or --intrinsics" in str(error.value)


def test_a_damaged_block_is_an_error(tmp_path: Path) -> None:
    path = taken(tmp_path / "a.jpg", FocalLengthIn35mmFilm=28)
    content = path.read_bytes()
    start = content.index(b"Exif\0\0") + 6
    path.write_bytes(content[:start] + b"\xff" * 24 + content[start + 24 :])
    with pytest.raises(InputError, match="EXIF"):
        exif_focal_length(path, 48, 64)
