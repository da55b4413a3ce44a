"""Photos: every format that can be read."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from redepth import io
from redepth.errors import InputError, MissingDependencyError
from tests.support.image_files import RED, assert_one_line, assert_quadrants, png_bytes, quadrants


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 95, "subsampling": 0}),
        ("a.JPEG", "CMYK", {"quality": 95}),
        ("a.png", "RGB", {}),
        ("palette.png", "P", {}),
        ("alpha.png", "RGBA", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("cmyk.tiff", "CMYK", {}),
        ("a.bmp", "RGB", {}),
        ("a.gif", "P", {}),
        ("a.ppm", "RGB", {}),
        ("a.tga", "RGBA", {}),
        ("a.jp2", "RGB", {}),
        ("a.avif", "RGB", {"quality": 95}),
        ("named_png_but_jpeg.png", "RGB", {"format": "JPEG", "quality": 95, "subsampling": 0}),
    ],
)
def test_photo_formats(tmp_path: Path, name: str, mode: str, options: dict[str, object]) -> None:
    quadrants(mode).save(tmp_path / name, **options)
    assert_quadrants(io.load_photo(tmp_path / name))


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, mode: str) -> None:
    Image.new("L", (40, 20), 255).convert(mode).save(tmp_path / "a.png")
    photo = io.load_photo(tmp_path / "a.png")
    assert photo.shape == (20, 40, 3)
    assert (photo == 1).all()


def test_sixteen_bit_grey_keeps_its_precision(tmp_path: Path) -> None:
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) + 40_000
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        photo = io.load_photo(tmp_path / name)
        np.testing.assert_allclose(photo[..., 1] * 65535, values, atol=0.01)


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">3H", 65535, 32768, 0) * 20
    (tmp_path / "a.png").write_bytes(png_bytes(20, 20, depth=16, pixels=row * 20))
    np.testing.assert_allclose(io.load_photo(tmp_path / "a.png")[3, 4], [1, 0.5, 0], atol=0.005)


def test_float_tiff_in_unit_range_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    Image.fromarray(values).save(path)
    np.testing.assert_allclose(io.load_photo(path)[..., 0], values)
    for bad in (255 * values, np.where(values > 0.5, np.nan, values)):
        Image.fromarray(bad.astype(np.float32)).save(path)
        with pytest.raises(InputError) as error:
            io.load_photo(path)
        assert_one_line(error, path, "0..1", "8-bit")


@pytest.mark.parametrize("palette", [False, True])
def test_alpha_is_composited_over_white(tmp_path: Path, palette: bool) -> None:
    path = tmp_path / "a.png"
    if palette:
        image = Image.new("P", (20, 20), 0)
        image.putpalette([255, 0, 0])
        image.save(path, transparency=0)
        expected = [1, 1, 1]
    else:
        Image.new("RGBA", (20, 20), (255, 0, 0, 128)).save(path)
        expected = [1, 127 / 255, 127 / 255]
    np.testing.assert_allclose(io.load_photo(path)[5, 5], expected, atol=0.005)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants()
    if orientation != 1:
        stored = stored.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif, **({"quality": 95} if name == "a.jpg" else {}))
    assert_quadrants(io.load_photo(tmp_path / name), atol=0.1)


def test_exif_orientation_of_sixteen_bit_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((20, 30), np.uint16)
    values[0, 0] = 65535
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    photo = io.load_photo(tmp_path / "a.png")
    assert photo.shape == (30, 20, 3)
    assert photo[0, -1, 0] == 1


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    quadrants().save(tmp_path / "a.jpg", exif=b"Exif\0\0not a TIFF header", quality=95)
    assert_quadrants(io.load_photo(tmp_path / "a.jpg"), atol=0.1)


def test_icc_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    swapped = swapped_primaries_profile()
    for profile, expected in [(swapped, [0, 1, 0]), (b"broken", [1, 0, 0]), (lab, [1, 0, 0])]:
        Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=profile)
        np.testing.assert_allclose(io.load_photo(tmp_path / "a.png")[0, 0], expected, atol=0.01)


def swapped_primaries_profile() -> bytes:
    """The sRGB profile with the red and green primaries exchanged, so that red means green."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_animation_gives_its_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(io.load_photo(tmp_path / name)[0, 0], RED, atol=0.05)


def test_heic_without_its_reader_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(MissingDependencyError) as error:
        io.load_photo(path)
    assert_one_line(error, path, 'pip install "redepth[heic]"')


def test_heic_with_its_reader(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    quadrants().save(tmp_path / "a.heic", quality=95)
    assert_quadrants(io.load_photo(tmp_path / "a.heic"), atol=0.1)
