"""One rule for photos, masks and maps: orientation, transparency, white as 0, palettes, bits, profiles."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line, grey_profile, png_of, tiff_of

RAMP = (np.arange(20 * 32).reshape(20, 32) * 101 + 1).astype(np.uint16)
"""Different numbers of 16 bits, none of them 0."""


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_map_and_a_mask_are_turned_as_a_photo_is(tmp_path: Path, orientation: int, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(RAMP).save(path, exif=oriented(orientation))
    image = Image.fromarray(RAMP)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(io.load_depth_map(path), upright)
    np.testing.assert_allclose(io.load_photo(path)[..., 0] * 65535, upright, atol=0.01)
    assert io.image_size(path) == upright.shape
    half = Image.fromarray(np.where(RAMP > 30_000, RAMP, 0).astype(np.uint16))
    half.save(path, exif=oriented(orientation))
    np.testing.assert_array_equal(io.load_mask(path), upright > 30_000)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_jpeg_mask_and_a_map_of_redepth_are_turned(tmp_path: Path, orientation: int) -> None:
    mask = np.zeros((20, 32), bool)
    mask[:8, :16] = True
    turned = {3: mask[::-1, ::-1], 6: mask[::-1].T}[orientation]
    Image.fromarray(mask).convert("L").save(tmp_path / "a.jpg", exif=oriented(orientation), quality=95)
    np.testing.assert_array_equal(io.load_mask(tmp_path / "a.jpg"), turned)
    io.save_disparity_png(tmp_path / "a.png", mask.astype(float))
    with Image.open(tmp_path / "a.png") as image:
        text = PngImagePlugin.PngInfo()
        for key, value in image.info.items():
            text.add_text(key, value)
        image.save(tmp_path / "b.png", exif=oriented(orientation), pnginfo=text)
    np.testing.assert_array_equal(io.load_disparity_png(tmp_path / "b.png"), turned)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16", "RGB"])
def test_what_is_transparent_is_white_unselected_and_unknown(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    grey = np.full((20, 32), 100, np.uint8)
    grey[:, :16] = 200
    alpha = np.full((20, 32), 255, np.uint8)
    alpha[:, :16] = 0
    if mode == "LA":
        Image.fromarray(np.stack([grey, alpha], -1)).save(path)
    elif mode == "RGBA":
        Image.fromarray(np.stack([grey, grey, grey, alpha], -1)).save(path)
    elif mode == "P":
        image = Image.fromarray((grey == 100).astype(np.uint8) + 1)
        image.putpalette([0, 0, 0, 200, 200, 200, 100, 100, 100])
        image.save(path, transparency=1)
    elif mode == "RGB":
        Image.fromarray(np.stack([grey] * 3, -1)).save(path, transparency=(200, 200, 200))
    else:
        Image.fromarray(grey.astype(np.uint16) if mode == "I;16" else grey).save(path, transparency=200)
    known = alpha > 0
    np.testing.assert_array_equal(io.load_mask(path), known)
    np.testing.assert_array_equal(io.load_depth_map(path), np.where(known, 100, np.nan))
    opaque = np.float32(100 / 65535 if mode == "I;16" else 100 / 255)
    np.testing.assert_array_equal(io.load_photo(path)[..., 1], np.where(known, opaque, 1))


def test_the_transparent_colour_has_the_bits_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    colour = np.stack([RAMP] * 3, -1)
    key = np.array([RAMP[3, 4]] * 3, ">u2").tobytes()
    path.write_bytes(png_of(colour, 16, {b"tRNS": key}))
    photo, depth = io.load_photo(path), io.load_depth_map(path)
    assert np.argwhere(np.isnan(depth)).tolist() == [[3, 4]]
    np.testing.assert_array_equal(depth[~np.isnan(depth)], RAMP[~np.isnan(depth)])
    assert (photo[3, 4] == 1).all()
    assert not io.load_mask(path)[3, 4]
    grey = (np.arange(20 * 32).reshape(20, 32) % 16).astype(np.uint8)
    path.write_bytes(png_of(grey, 4, {b"tRNS": b"\0\5"}))
    np.testing.assert_array_equal(io.load_mask(path), (grey > 0) & (grey != 5))
    np.testing.assert_allclose(io.load_photo(path)[..., 0], np.where(grey == 5, 1, grey / 15), atol=1e-6)


def test_white_as_zero_is_inverted_at_16_bits_as_at_8(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(65535 - RAMP, photometric=0))
    np.testing.assert_array_equal(io.load_depth_map(path), RAMP)
    np.testing.assert_allclose(io.load_photo(path)[..., 2] * 65535, RAMP, atol=0.01)
    path.write_bytes(
        tiff_of(np.where(RAMP > 30_000, 0, 65535).astype(np.uint16), photometric=0, orientation=3)
    )
    np.testing.assert_array_equal(io.load_mask(path), (RAMP > 30_000)[::-1, ::-1])
    eight = (RAMP >> 8).astype(np.uint8)
    path.write_bytes(tiff_of(255 - eight, photometric=0))
    np.testing.assert_array_equal(io.load_depth_map(path), eight)
    path.write_bytes(tiff_of(RAMP.astype(np.float32), photometric=0))
    for read in (io.load_depth_map, io.load_mask, io.load_photo):
        with pytest.raises(InputError) as error:
            read(path)
        assert_one_line(error, path, "0 is white")


@pytest.mark.parametrize("depth", [8, 16])
def test_a_linear_profile_gives_the_same_photo_at_8_and_at_16_bits(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.png"
    profile = b"x\0\0" + zlib.compress(grey_profile(1.0))
    grey = np.full((20, 32), 55 if depth == 8 else 55 * 257)
    path.write_bytes(png_of(grey, depth, {b"iCCP": profile}))
    np.testing.assert_allclose(io.load_photo(path), 0.502, atol=0.002)
    # A profile says how a number looks; it does not change what the number of a map means.
    np.testing.assert_array_equal(io.load_depth_map(path), grey)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_grey_map_saved_as_colour_keeps_all_its_bits(tmp_path: Path, channels: int) -> None:
    values = np.stack([RAMP] * channels, -1)
    if channels != 3:
        values[..., -1] = 65535
        values[0, 0, -1] = 0
    expected = RAMP.astype(np.float32)
    if channels != 3:
        expected[0, 0] = np.nan
    (tmp_path / "a.png").write_bytes(png_of(values, 16))
    np.testing.assert_array_equal(io.load_depth_map(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(io.load_mask(tmp_path / "a.png"), np.isfinite(expected))
    if channels > 2:
        extra = {"extra": 2} if channels == 4 else {}
        (tmp_path / "a.tif").write_bytes(tiff_of(values, photometric=2, **extra))
        np.testing.assert_array_equal(io.load_depth_map(tmp_path / "a.tif"), expected)
    values[5, 5, 1 % (channels - 1)] ^= 1
    if channels > 2:
        (tmp_path / "a.png").write_bytes(png_of(values, 16))
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / "a.png")
        assert_one_line(error, tmp_path / "a.png", "different channels", "one grey channel")


def test_a_mask_of_16_bits_selects_1(tmp_path: Path) -> None:
    labels = (np.arange(20 * 32).reshape(20, 32) % 3).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_of(np.stack([labels, 0 * labels, 0 * labels], -1), 16))
    np.testing.assert_array_equal(io.load_mask(tmp_path / "a.png"), labels > 0)


def test_numbers_of_unusual_bits_are_right_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    twelve = RAMP % 4096
    path.write_bytes(tiff_of(twelve, bits=12))
    np.testing.assert_array_equal(io.load_depth_map(path), twelve)
    np.testing.assert_allclose(io.load_photo(path)[..., 0] * 4095, twelve, atol=0.01)
    large = RAMP.astype(np.uint32) + np.uint32(2**31)
    path.write_bytes(tiff_of(large))
    np.testing.assert_array_equal(io.load_depth_map(path), large.astype(np.float32))
    for values in (RAMP.astype(np.int16), RAMP.astype(np.int32) - 40_000):
        path.write_bytes(tiff_of(values))
        np.testing.assert_array_equal(io.load_depth_map(path), values)
    path.write_bytes(tiff_of(RAMP.astype(np.int8)))
    with pytest.raises(InputError, match="signed numbers of 8 bits"):
        io.load_depth_map(path)
    for bits in (1, 2, 4):
        (tmp_path / "a.png").write_bytes(png_of(RAMP % 2, bits))
        with pytest.raises(InputError, match=f"has {bits} bits a pixel, too few"):
            io.load_depth_map(tmp_path / "a.png")
        np.testing.assert_array_equal(io.load_mask(tmp_path / "a.png"), RAMP % 2 == 1)


def test_a_palette_that_contradicts_its_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray((RAMP > 30_000).astype(np.uint8))
    image.putpalette([0, 0, 0, 0, 0, 7])
    image.save(path)
    np.testing.assert_array_equal(io.load_mask(path), RAMP > 30_000)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(path)
    with pytest.raises(InputError) as error:
        io.load_mask(path)
    assert_one_line(error, path, "palette", "save the mask as grey")
    # As a map, a grey palette is its greys.
    np.testing.assert_array_equal(io.load_depth_map(path), np.where(RAMP > 30_000, 0, 255))
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.save(path)
    with pytest.raises(InputError, match="different channels"):
        io.load_depth_map(path)


@pytest.mark.parametrize(
    ("name", "threshold"), [("a.webp", 0), ("a.bmp", 0), ("a.gif", 0), ("lossy.webp", 127)]
)
def test_black_is_exact_where_the_compression_is(tmp_path: Path, name: str, threshold: int) -> None:
    grey = np.repeat(np.repeat(np.array([[0, 60, 200, 255]], np.uint8), 16, 0), 16, 1)
    lossless = {} if threshold or not name.endswith("webp") else {"lossless": True}
    Image.fromarray(grey).convert("RGB").convert("L").save(tmp_path / name, **lossless)
    np.testing.assert_array_equal(io.load_mask(tmp_path / name), grey > threshold)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiffs_of_another_writer_keep_their_numbers(
    tmp_path: Path, order: str, kind: str, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = (RAMP % 251 + 1).astype(kind)
    tifffile.imwrite(
        tmp_path / "a.tif", values, byteorder=order, compression=compression, photometric="minisblack"
    )
    np.testing.assert_array_equal(io.load_depth_map(tmp_path / "a.tif"), values)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_in_separate_planes_are_right_or_refused(
    tmp_path: Path, kind: str, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    values = (RAMP >> 8).astype(np.uint8) if kind == "u1" else RAMP
    most = np.iinfo(kind).max
    planes = np.stack([values, values, values])
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    if kind == "u2":
        with pytest.raises(InputError, match="separate planes"):
            io.load_depth_map(path)
    else:
        np.testing.assert_array_equal(io.load_depth_map(path), values)
    if kind == "u2" and compression is None:
        with pytest.raises(InputError, match="separate planes"):
            io.load_photo(path)
    else:
        np.testing.assert_allclose(io.load_photo(path)[..., 0], values / most, atol=0.004)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\t\r\n"])
@pytest.mark.parametrize("kind", ["P4", "P5", "P5 16", "P6", "P6 16", "Pf"])
def test_netpbm_headers_of_all_line_ends_give_the_same_picture(tmp_path: Path, end: bytes, kind: str) -> None:
    path = tmp_path / "a.ppm"
    mask = np.random.default_rng(0).random((20, 32)) < 0.5
    most = 1.0 if kind == "Pf" else 65535 if "16" in kind else 255
    values = np.where(mask, 1, 0)
    colours = np.repeat(values[..., None], 3, -1) if "P6" in kind else values
    content = {
        "P4": np.packbits(~mask, axis=1),
        "P5": colours.astype("u1"),
        "P5 16": colours.astype(">u2"),
        "P6": colours.astype("u1"),
        "P6 16": colours.astype(">u2"),
        "Pf": colours[::-1].astype("<f4"),
    }[kind].tobytes()
    number = {"P4": b"", "Pf": b"\n-1.0"}.get(kind, b"\n%d" % most)
    head = kind[:2].encode() + b"\n32 20" + number
    path.write_bytes(head + end + content)
    np.testing.assert_array_equal(io.load_mask(path), mask)
    one = {"P4": 1, "Pf": 1, "P6 16": 0}.get(kind, 1 / most)
    np.testing.assert_allclose(io.load_photo(path)[..., 1], values * one, atol=1e-7)
    # Without its last byte, a file may as well be whole, its header with a shorter end of its header.
    for wrong in (content + b"\n", content[:-1])[: 1 + (end == b"\n")]:
        path.write_bytes(head + end + wrong)
        for read in (io.load_mask, io.load_photo):
            with pytest.raises(InputError) as error:
                read(path)
            assert_one_line(error, path, "bytes of pixels in place of")


def test_deep_colours_of_an_odd_maximum_and_modes_without_black_are_no_mask(tmp_path: Path) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6\n32 20\n1023\n" + bytes(3840))
    assert io.load_photo(path).max() == 0
    Image.new("LAB", (32, 20), (0, 128, 128)).save(tmp_path / "a.tif")
    for refused in (path, tmp_path / "a.tif"):
        with pytest.raises(InputError) as error:
            io.load_mask(refused)
        assert_one_line(error, refused, "not supported")


def test_a_lossy_mask_of_16_bits_has_its_threshold_at_the_middle(tmp_path: Path) -> None:
    grey = np.where(RAMP > 30_000, 65535, 300).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.jp2", irreversible=True)
    np.testing.assert_array_equal(io.load_mask(tmp_path / "a.jp2"), RAMP > 30_000)
