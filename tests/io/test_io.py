"""Photos, ground truth and masks: every format and every way in which a file can be wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageCms

from redepth import io
from redepth.errors import InputError, MissingDependencyError

RED, GREEN, BLUE, WHITE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


def quadrants(mode: str = "RGB") -> Image.Image:
    """48 x 32, red | green over blue | white: every flip and rotation is visible."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (255, 0, 0), (0, 255, 0)
    pixels[16:, :24], pixels[16:, 24:] = (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels).convert(mode)


def assert_quadrants(photo: np.ndarray, atol: float = 0.05) -> None:
    assert photo.shape == (32, 48, 3)
    assert photo.dtype == np.float32
    assert photo.min() >= 0
    assert photo.max() <= 1
    for (row, col), colour in {
        (8, 12): RED,
        (8, 36): GREEN,
        (24, 12): BLUE,
        (24, 36): WHITE,
    }.items():
        np.testing.assert_allclose(photo[row, col], colour, atol=atol)


def one_line(error: pytest.ExceptionInfo[Exception], path: Path, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


# --- load_photo: formats ------------------------------------------------------------------------


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
        one_line(error, path, "0..1", "8-bit")


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
    one_line(error, path, 'pip install "redepth[heic]"')


def test_heic_with_its_reader(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    quadrants().save(tmp_path / "a.heic", quality=95)
    assert_quadrants(io.load_photo(tmp_path / "a.heic"), atol=0.1)


# --- load_photo: bad input ------------------------------------------------------------------------


def png_bytes(width: int, height: int, depth: int = 8, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


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
        one_line(error, path, word)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError) as error:
        io.load_photo(tmp_path / "pipe.jpg")
    one_line(error, tmp_path / "pipe.jpg", "regular file")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="no bits hinder root")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)
    path.chmod(0)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, "permission denied")


def test_permission_denied_as_reported_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, "permission denied")


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("some words, and no picture")
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, "not a readable image", "JPEG, PNG")


@pytest.mark.parametrize(("suffix", "name"), [("gif", "GIF"), ("bmp", "BMP"), ("jp2", "JPEG 2000")])
def test_unsupported_format_is_named(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"a.{suffix}"
    quadrants().save(path)
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, name, "not supported")


def test_camera_raw_does_not_pass_as_its_preview(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    quadrants().save(path, format="TIFF")
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, "camera raw")


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
    one_line(error, path)


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
    one_line(error, path, f"{width} x {height}", word)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (256, 16), (16, 256)])
def test_the_limits_themselves_pass(tmp_path: Path, width: int, height: int) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    assert io.load_photo(tmp_path / "a.png").shape == (height, width, 3)


def test_pixel_limit_is_checked_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_bytes(100_000, 100_000))
    with pytest.raises(InputError) as error:
        io.load_photo(path)
    one_line(error, path, "100000 x 100000", "10000.0 megapixels", "100", "--max-pixels 10000000000")


def test_our_pixel_limit_stands_in_for_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    quadrants().save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_quadrants(io.load_photo(tmp_path / "a.png"))
        with pytest.raises(InputError, match="--max-pixels 1536"):
            io.load_photo(tmp_path / "a.png", max_pixels=1535)
    assert Image.MAX_IMAGE_PIXELS == 100


# --- find_photos, output_folders ------------------------------------------------------------------


def test_find_photos_expands_in_order_without_duplicates(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "sub.jpg").mkdir()
    (tmp_path / "sub.jpg" / "d.tif").touch()
    a, b, c, d = (tmp_path / n for n in ("a.png", "b.JPG", "c.webp", "sub.jpg/d.tif"))
    assert io.find_photos([tmp_path]) == [a, b, c]
    assert io.find_photos([c, str(tmp_path), tmp_path / "sub.jpg" / ".." / "a.png"]) == [c, a, b]
    assert io.find_photos([tmp_path / "*"]) == [a, b, c]
    assert io.find_photos([tmp_path / "**" / "*.*"]) == [a, b, c, d]
    assert io.find_photos([tmp_path / "?.[pw]*"]) == [a, c]


def test_find_photos_keeps_a_missing_file_and_a_literal_bracket(tmp_path: Path) -> None:
    bracket = tmp_path / "a[1].jpg"
    bracket.touch()
    missing = tmp_path / "missing.jpg"
    assert io.find_photos([missing, bracket]) == [missing, bracket]


def test_find_photos_names_what_is_empty(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for given in (tmp_path, tmp_path / "*.jpg", tmp_path / "*.txt"):
        with pytest.raises(InputError) as error:
            io.find_photos([given])
        one_line(error, given, ".jpg")
    with pytest.raises(InputError, match="no photo given"):
        io.find_photos([])


def test_output_folders_are_distinct_and_stable() -> None:
    photos = [
        "x/a.jpg",
        "y/a.png",
        "A.webp",
        "a-2.jpg",
        "b.c.jpg",
        "caf\u00e9.jpg",
        "cafe\u0301.jpg",
    ]
    names = [folder.name for folder in io.output_folders(photos, "out")]
    assert names == ["a", "a-2", "A-3", "a-2-2", "b.c", "caf\u00e9", "cafe\u0301-2"]
    assert len({name.casefold() for name in names}) == len(names)
    for count in range(len(photos)):
        shorter = io.output_folders(photos[:count], "out")
        assert shorter == io.output_folders(photos, "out")[:count]
    assert io.output_folders(["a.jpg"], Path("out")) == [Path("out/a")]


# --- ground truth and masks -----------------------------------------------------------------------


def depth_map() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(3, 4) + 0.5


def write_pfm(path: Path, values: np.ndarray, order: str) -> None:
    scale = -1.0 if order == "<" else 1.0
    header = f"Pf\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode()
    path.write_bytes(header + values[::-1].astype(f"{order}f4").tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_round_trip(tmp_path: Path, order: str) -> None:
    values = depth_map()
    values[0, 1] = np.inf
    write_pfm(tmp_path / "a.pfm", values, order)
    loaded = io.load_depth_map(tmp_path / "a.pfm")
    np.testing.assert_array_equal(loaded, values)
    assert loaded.dtype == np.float32


def test_depth_map_formats(tmp_path: Path) -> None:
    values = depth_map()
    np.save(tmp_path / "a.npy", values[None].astype(np.float64))
    np.savez(tmp_path / "one.npz", anything=values)
    np.savez(tmp_path / "named.npz", mask=values > 3, disparity=values)
    Image.fromarray(values).save(tmp_path / "a.tif")
    for name in ("a.npy", "one.npz", "named.npz", "a.tif"):
        np.testing.assert_array_equal(io.load_depth_map(tmp_path / name), values)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_depth_keeps_its_numbers(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    np.testing.assert_array_equal(io.load_depth_map(tmp_path / name), values.astype(np.float32))


def test_openexr_maps_give_the_channel_that_holds_depth(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    values = np.linspace(0, 9, 12, dtype=np.float32).reshape(3, 4)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    other = np.ones_like(values)
    for number, channels in enumerate(
        (
            {"Z": values},
            {"anything": values},
            {"Z": values, "A": other},
            {"Y": other, "depth.V": other, "Z": values},
        )
    ):
        path = tmp_path / f"{number}.exr"
        exr.File(header, channels).write(str(path))
        assert np.array_equal(io.load_depth_map(path), values), channels
    exr.File(header, {"RGB": np.stack([values] * 3, axis=-1)}).write(str(tmp_path / "rgb.exr"))
    with pytest.raises(InputError, match=r"holds the channels \['B', 'G', 'R'\]"):
        io.load_depth_map(tmp_path / "rgb.exr")
    (tmp_path / "words.exr").write_text("words")
    for name, word in (("words.exr", "damaged"), ("gone.exr", "no such file")):
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / name)
        one_line(error, tmp_path / name, word)


def test_openexr_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01")
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[exr\]"'):
        io.load_depth_map(tmp_path / "a.exr")


def test_bad_depth_maps(tmp_path: Path) -> None:
    quadrants().save(tmp_path / "colour.png")
    np.save(tmp_path / "colour.npy", np.zeros((3, 4, 3)))
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan))
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.savez(tmp_path / "two.npz", a=depth_map(), b=depth_map())
    np.savez(tmp_path / "none.npz")
    (tmp_path / "words.npy").write_text("words")
    (tmp_path / "words.pfm").write_text("words")
    (tmp_path / "a.hdr").write_text("words")
    (tmp_path / "colour.pfm").write_bytes(b"PF\n1 1\n-1\n" + bytes(12))
    (tmp_path / "short.pfm").write_bytes(b"Pf\n4 4\n-1\n" + bytes(12))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    for name, word in {
        "colour.png": "RGB",
        "colour.npy": "(3, 4, 3)",
        "nan.npy": "no finite value",
        "objects.npy": "allow_pickle",
        "text.npy": "(H, W)",
        "two.npz": "'depth' or 'disparity'",
        "none.npz": "'depth' or 'disparity'",
        "words.npy": "numpy",
        "words.pfm": "Pf",
        "colour.pfm": "colour",
        "short.pfm": "12 of 64 bytes",
        "a.hdr": ".exr",
        "cut.npz": "numpy",
        "missing.npy": "no such file",
    }.items():
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / name)
        one_line(error, tmp_path / name, word)


def test_masks(tmp_path: Path) -> None:
    mask = np.zeros((16, 24), bool)
    mask[4:12, 8:16] = True
    np.save(tmp_path / "a.npy", np.where(mask, 2.0, np.where(np.eye(16, 24) > 0, np.nan, 0)))
    Image.fromarray(mask).save(tmp_path / "bits.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray((mask * 255).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([mask * 255] * 3, -1).astype(np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "lossy.jpg")
    palette = Image.fromarray(mask.astype(np.uint8))
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(tmp_path / "palette.png")
    for path in sorted(tmp_path.iterdir()):
        loaded = io.load_mask(path)
        assert loaded.dtype == bool
        np.testing.assert_array_equal(loaded, mask, err_msg=path.name)


def test_bad_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((4, 4)))
    np.save(tmp_path / "line.npy", np.ones(4))
    (tmp_path / "words.png").write_text("words")
    for name, word in {"empty.npy": "no pixel", "line.npy": "(4,)", "words.png": "image"}.items():
        with pytest.raises(InputError) as error:
            io.load_mask(tmp_path / name)
        one_line(error, tmp_path / name, word)


# --- writing --------------------------------------------------------------------------------------


def test_atomic_path_replaces_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with io.atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == target.suffix
            temporary.write_text(text)
        assert target.read_text() == text
        assert list(target.parent.iterdir()) == [target]


def test_atomic_path_leaves_the_old_file_on_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_half_way() -> None:
        with io.atomic_path(target) as temporary:
            temporary.write_text("half")
            assert target.read_text() == "old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_failing_writers_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        io.save_npy(tmp_path / "a.npy", np.array([{}]))
    with pytest.raises(TypeError):
        io.save_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_save_npy_and_png(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "a.npy", depth_map())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), depth_map())
    image = np.array([[[0, 0.5, 1], [-1, 2, np.nan]]])
    io.save_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), [[[0, 128, 255], [0, 255, 0]]])
    io.save_png(tmp_path / "b.png", quadrants())
    assert_quadrants(io.load_photo(tmp_path / "b.png"))


def test_save_json_writes_only_json(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"),
        "list": [1, np.float32(0.5), np.inf, (True, None)],
        "array": np.array([[1.0, np.nan]]),
        "count": np.int64(3),
        "path": Path("a") / "b",
        1: "\u00e9",
    }
    io.save_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "nan": null')
    assert "\u00e9" in text

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "list": [1, 0.5, None, [True, None]],
        "array": [[1.0, None]],
        "count": 3,
        "path": str(Path("a/b")),
        "1": "\u00e9",
    }


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 250), (1e-6, 2e-6), (1000, 1001)])
def test_disparity_png_round_trip(tmp_path: Path, low: float, high: float) -> None:
    path = tmp_path / "a.png"
    disparity = np.random.default_rng(0).uniform(low, high, (30, 40)).astype(np.float32)
    encoding = io.save_disparity_png(path, disparity, kind="depth")
    loaded = io.load_disparity_png(path)
    assert loaded.dtype == np.float32
    rounding = np.spacing(np.float32(max(abs(low), high)))
    assert np.abs(loaded - disparity).max() <= encoding["scale"] / 2 + rounding
    with Image.open(path) as saved:
        assert saved.mode.startswith("I;16")
        assert np.asarray(saved).min() == 0
        assert np.asarray(saved).max() == 65535
        assert {k: saved.info[f"redepth:{k}"] for k in encoding} == {k: str(v) for k, v in encoding.items()}


def test_disparity_png_of_a_constant(tmp_path: Path) -> None:
    encoding = io.save_disparity_png(tmp_path / "a.png", np.full((4, 5), 2.5))
    assert encoding == {"scale": 1.0, "offset": 2.5, "kind": "disparity"}
    np.testing.assert_array_equal(io.load_disparity_png(tmp_path / "a.png"), np.full((4, 5), 2.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_disparity_png_refuses_what_is_not_finite(tmp_path: Path, bad: float) -> None:
    values = depth_map()
    values[1, 1] = bad
    with pytest.raises(InputError) as error:
        io.save_disparity_png(tmp_path / "a.png", values)
    one_line(error, tmp_path / "a.png", "1 of 12 pixels", ".npy")
    assert list(tmp_path.iterdir()) == []


def test_disparity_png_without_its_scale(tmp_path: Path) -> None:
    Image.new("I;16", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError) as error:
        io.load_disparity_png(tmp_path / "a.png")
    one_line(error, tmp_path / "a.png", "redepth:scale", "load_depth_map")


def test_points_lie_where_the_camera_puts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    depth = np.full((21, 41), 2.0)
    assert io.save_points(path, depth, np.zeros((21, 41, 3))) == 21 * 41
    assert path.read_bytes().startswith(b"ply\nformat binary_little_endian")
    cloud = trimesh.load(path)
    aspect = 41 / 21
    np.testing.assert_allclose(cloud.vertices[0], [-aspect, 1, -2], rtol=1e-6)
    np.testing.assert_allclose(cloud.vertices[-1], [aspect, -1, -2], rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_points_are_cut_at_edges_and_keep_slopes_and_colours(tmp_path: Path) -> None:
    depth = np.tile(np.linspace(1, 2, 40), (20, 1))
    depth[:, 20:] += 1
    depth[0, 0], depth[5, 5] = np.nan, -1
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    count = io.save_points(tmp_path / "a.ply", depth, image)
    cloud = trimesh.load(tmp_path / "a.ply")
    assert count == len(cloud.vertices) == 20 * 38 - 2
    columns = set(np.asarray(cloud.colors)[:, 0].tolist())
    assert columns == set(range(40)) - {19, 20}
    # The threshold is a ratio, so an unknown scale changes nothing.
    assert io.save_points(tmp_path / "a.ply", depth * 1e3, image) == count
    assert io.save_points(tmp_path / "a.ply", depth, image, max_relative_jump=np.inf) == 798


def test_points_are_thinned_to_the_limit(tmp_path: Path) -> None:
    # At full resolution the slope is smooth; at the stride it would exceed the jump.
    depth = np.tile(1.03 ** np.arange(100), (80, 1))
    count = io.save_points(tmp_path / "a.ply", depth, np.zeros((80, 100, 3)), max_points=900)
    assert count == 20 * 25


def test_points_refuse_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        io.save_points(tmp_path / "a.ply", np.ones((4, 5)), np.ones((5, 4, 3)))
    with pytest.raises(InputError, match="positive"):
        io.save_points(tmp_path / "a.ply", -np.ones((4, 5)), np.ones((4, 5, 3)))
    assert list(tmp_path.iterdir()) == []


def test_importing_io_stays_light() -> None:
    code = "import sys, redepth.io; print({'torch', 'matplotlib', 'trimesh'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- files that belong to photos ------------------------------------------------------------------


def test_a_mask_may_say_that_there_is_nothing(tmp_path: Path) -> None:
    Image.new("L", (20, 10)).save(tmp_path / "black.png")
    assert not io.load_mask(tmp_path / "black.png", may_be_empty=True).any()


def test_a_companion_is_the_file_given_or_that_of_the_photos_name(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("a.png", "b.npy", "twice.png", "twice.npy", ".hidden.png"):
        (folder / name).touch()
    (folder / "e").mkdir()
    photos = [Path(name) for name in ("x/a.jpg", "b.jpg", "twice.jpg", "none.jpg", "e.jpg")]
    assert io.companions(photos, folder, "mask") == {photos[0]: folder / "a.png", photos[1]: folder / "b.npy"}
    assert io.companions(photos[:1], tmp_path / "any.png", "mask") == {photos[0]: tmp_path / "any.png"}
    with pytest.raises(
        InputError, match=r"any\.png: a mask belongs to one photo, 5 were given; give a folder"
    ):
        io.companions(photos, tmp_path / "any.png", "mask")


def test_a_size_is_named_when_it_does_not_fit() -> None:
    io.check_size("mask", (10, 20), 10, 20)
    with pytest.raises(InputError, match="the mask is 21 x 10 pixels and the photo 20 x 10"):
        io.check_size("mask", (10, 21), 10, 20)
