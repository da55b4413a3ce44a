"""Photos: every way in which a file can be wrong is one line of an error."""

from __future__ import annotations

import os
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line, assert_quadrants, png_bytes, quadrants


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for path, word in [
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "empty.jpg", "empty"),
        (tmp_path / "empty.jpg" / "a.jpg", "Not a directory"),
        (tmp_path / ("x" * 300), "too long"),
    ]:
        with pytest.raises(InputError) as error:
            io.load_photo(path)
        assert_one_line(error, path, word)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError) as error:
        io.load_photo(tmp_path / "pipe.jpg")
    assert_one_line(error, tmp_path / "pipe.jpg", "regular file")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="no bits hinder root")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)
    path.chmod(0)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, "permission denied")


def test_permission_denied_as_reported_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, "permission denied")


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("some words, and no picture")
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, "not a readable image", "JPEG, PNG")


@pytest.mark.parametrize(
    ("suffix", "content", "name"),
    [
        ("hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
        ("exr", b"\x76\x2f\x31\x01", "OpenEXR"),
        ("psd", b"8BPS", "Photoshop"),
        ("jxl", b"\xff\x0a", "JPEG XL"),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n", "PostScript"),
        ("jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n", "PostScript"),
        ("pdf", b"%PDF-1.7", "PDF"),
        ("svg", b"<svg xmlns=", "SVG"),
    ],
)
def test_unsupported_format_is_named(tmp_path: Path, suffix: str, content: bytes, name: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, name, "not supported")


def test_camera_raw_does_not_pass_as_its_preview(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    quadrants().save(path, format="TIFF")
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, "camera raw")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_truncated(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.filterwarnings("ignore:.*(Tag|tag) ")  # Pillow's own, about damaged TIFF tags
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    quadrants().save(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(12, len(damaged), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        with suppress(InputError):
            io.load_photo(path)


@pytest.mark.parametrize(
    ("width", "height", "word"),
    [
        (1, 1, "too small"),
        (15, 400, "too small"),
        (10_000, 2, "too small"),
        (16 * 20 + 1, 20, "16:1"),
        (20, 16 * 20 + 1, "16:1"),
    ],
)
def test_too_small_or_elongated(tmp_path: Path, width: int, height: int, word: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (width, height)).save(path)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, f"{width} x {height}", word)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (256, 16), (16, 256)])
def test_the_limits_themselves_pass(tmp_path: Path, width: int, height: int) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    assert io.load_photo(tmp_path / "a.png").shape == (height, width, 3)


def test_pixel_limit_is_checked_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_bytes(100_000, 100_000))
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    assert_one_line(error, path, "100000 x 100000", "10000.0 megapixels", "100", "--max-pixels 10000000000")


def test_our_pixel_limit_stands_in_for_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    quadrants().save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_quadrants(io.load_photo(tmp_path / "a.png"))
        with pytest.raises(InputError, match="--max-pixels 1536"):
            io.load_photo(tmp_path / "a.png", max_pixels=1535)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_length_that_a_damaged_file_announces_takes_no_memory(tmp_path: Path) -> None:
    Image.new("L", (24, 20)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    place = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:place] + b"\x7f\0\0\0" + content[place + 4 :])
    tracemalloc.start()
    try:
        with suppress(InputError):
            io.load_photo(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
