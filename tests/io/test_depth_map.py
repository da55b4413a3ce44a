"""Depth maps: every format, and every way in which a file can be wrong."""

from __future__ import annotations

import importlib.util
import io as io_bytes
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from redepth import io
from redepth.errors import InputError, MissingDependencyError
from tests.support.image_files import assert_one_line, depth_map, png_bytes, quadrants


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


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\r", b" "])
@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b" "])
def test_pfm_headers_of_all_line_ends_give_the_same_values(
    tmp_path: Path, end: bytes, separator: bytes
) -> None:
    # The first byte of the first value, 0x0a or 0x20, could be taken for a part of the header.
    for first in (b"\x0a\0\x80\x3f", b"\x20\x0a\0\x40"):
        values = np.random.default_rng(0).uniform(1, 9, (20, 12)).astype("<f4")
        content = bytearray(values[::-1].tobytes())
        content[:4] = first
        header = separator.join((b"Pf", b"12 20", b"-1.0")) + end
        (tmp_path / "a.pfm").write_bytes(header + content)
        expected = np.frombuffer(content, "<f4").reshape(20, 12)[::-1]
        np.testing.assert_array_equal(io.load_depth_map(tmp_path / "a.pfm"), expected)


@pytest.mark.parametrize("change", [-4, -1, 1, 2, 4])
@pytest.mark.parametrize("name", ["a.pfm", "a.npy", "a.npz"])
def test_a_length_that_does_not_fit_is_refused(tmp_path: Path, name: str, change: int) -> None:
    values = np.full((20, 12), 2.5, np.float32)
    if name == "a.pfm":
        write_pfm(tmp_path / name, values, "<")
        content = (tmp_path / name).read_bytes()
    else:
        np.save(tmp_path / "a.npy", values)
        content = (tmp_path / "a.npy").read_bytes()
    content = content[:change] if change < 0 else content + b"\n" * change
    if name == "a.npz":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("depth.npy", content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        io.load_depth_map(tmp_path / name)
    assert_one_line(error, tmp_path / name, "of 960 bytes" if name == "a.pfm" else "in place of 960")


@pytest.mark.parametrize("number", [b"9" * 5000, b"12345678901", b"1e5", b"-5"])
def test_pfm_headers_with_impossible_numbers_are_refused(tmp_path: Path, number: bytes) -> None:
    for header in (b"Pf\n%b 5\n-1\n", b"Pf\n5 %b\n-1\n", b"Pf\n5 5\n%bx\n"):
        (tmp_path / "a.pfm").write_bytes(header % number + bytes(100))
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / "a.pfm")
        assert_one_line(error, tmp_path / "a.pfm")
        assert len(str(error.value)) < 200 + len(str(tmp_path))


def test_the_declared_size_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """Each of these files is small and declares 10^10 pixels or more."""
    side = 100_000
    head = io_bytes.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (side, side)}
    )
    (tmp_path / "a.npy").write_bytes(head.getvalue() + bytes(64))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", head.getvalue() + bytes(2**20))
    (tmp_path / "a.pfm").write_bytes(f"Pf\n{side} {side}\n-1\n".encode())
    os.truncate(tmp_path / "a.pfm", 20 + 4 * side * side)
    (tmp_path / "a.png").write_bytes(png_bytes(side, side, 16, colour=0))
    window = (np.array([0, 0], np.int32), np.array([side - 1, side - 1], np.int32))
    paths = [tmp_path / name for name in ("a.npy", "a.npz", "a.pfm", "a.png")]
    if importlib.util.find_spec("OpenEXR"):
        paths.append(write_exr(tmp_path / "a.exr", {"Z": Z}, displayWindow=window))
    for path in paths:
        with pytest.raises(InputError) as error:
            io.load_depth_map(path)
        assert_one_line(error, path, "megapixels", "--max-pixels 10000000000")
    for path in paths[:1] + paths[3:4]:
        with pytest.raises(InputError, match="megapixels"):
            io.load_mask(path)


def test_the_limit_reaches_all_readers(tmp_path: Path) -> None:
    values = np.ones((20, 30), np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    write_pfm(tmp_path / "a.pfm", values, "<")
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    reads = [(io.load_depth_map, path) for path in sorted(tmp_path.iterdir())]
    reads += [(io.load_mask, tmp_path / name) for name in ("a.npy", "a.png")]
    reads += [
        (io.load_photo, tmp_path / "a.tif"),
        (io.image_size, tmp_path / "a.png"),
        (io.load_grey16, tmp_path / "a.png"),
    ]
    for read, path in reads:
        read(path, max_pixels=600)
        with pytest.raises(InputError, match="--max-pixels 600"):
            read(path, max_pixels=599)
        with io.pixel_limit(599), pytest.raises(InputError, match="--max-pixels 600"):
            read(path)
        read(path)


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


Z = np.linspace(0, 9, 12, dtype=np.float32).reshape(3, 4)
OTHER = np.ones_like(Z)


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    exr = pytest.importorskip("OpenEXR")
    exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage, **header}, channels).write(
        str(path)
    )
    return path


@pytest.mark.parametrize(
    "channels",
    [
        {"Z": Z},
        {"anything": Z},
        {"Z": Z, "A": OTHER},
        {"Y": OTHER, "depth.V": OTHER, "Z": Z},
        {"R": OTHER, "G": OTHER, "B": OTHER, "Z": Z},
        {"R": Z, "G": Z, "B": Z, "A": OTHER},
        {"ViewLayer.Depth.Z": Z, "ViewLayer.Combined.R": OTHER, "ViewLayer.Normal.Z": OTHER},
        {"ViewLayer.Depth.V": Z, "ViewLayer.Mist.Z": OTHER, "V": OTHER, "U": OTHER},
        {"View Layer.Depth.R": Z, "View Layer.Depth.G": Z, "View Layer.Depth.B": Z, "x.R": OTHER},
        {"RenderLayer.Z": Z, "RenderLayer.R": OTHER, "N.X": OTHER, "N.Y": OTHER, "N.Z": OTHER},
        {"render.depth": Z, "render.R": OTHER},
    ],
)
def test_openexr_maps_give_the_channel_that_holds_depth(
    tmp_path: Path, channels: dict[str, np.ndarray]
) -> None:
    path = write_exr(tmp_path / "a.exr", channels)
    np.testing.assert_array_equal(io.load_depth_map(path), Z)


@pytest.mark.parametrize(
    ("channels", "problem"),
    [
        ({"R": Z, "G": Z, "B": OTHER}, "different channels"),
        ({"X": OTHER, "Y": OTHER, "Z": OTHER}, "none is named as a map"),
        ({"ViewLayer.Normal.X": Z, "ViewLayer.Normal.Y": Z, "ViewLayer.Normal.Z": Z}, "none is named"),
        ({"a.Depth.Z": Z, "b.Depth.Z": OTHER}, "several could be the map"),
        ({"ViewLayer.Mist.Z": Z, "ViewLayer.Combined.R": Z}, "none is named as a map"),
    ],
)
def test_openexr_without_one_map_is_refused(
    tmp_path: Path, channels: dict[str, np.ndarray], problem: str
) -> None:
    path = write_exr(tmp_path / "a.exr", channels)
    with pytest.raises(InputError) as error:
        io.load_depth_map(path)
    assert_one_line(error, path, problem)


def test_openexr_parts_windows_and_alpha(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    parts = [
        exr.Part({"name": "ViewLayer.Combined"}, {"R": OTHER}),
        exr.Part({"name": "ViewLayer.Depth"}, {"Z": Z}),
    ]
    exr.File(parts).write(str(tmp_path / "parts.exr"))
    np.testing.assert_array_equal(io.load_depth_map(tmp_path / "parts.exr"), Z)
    # Where the pixels of a part are lost, those of the other are not taken for them.
    both = {"left": {"Z": Z}, "Depth": {"Z": OTHER}}
    exr.File([exr.Part({"name": name}, channels) for name, channels in both.items()]).write(
        str(tmp_path / "damaged.exr")
    )
    content = (tmp_path / "damaged.exr").read_bytes()
    for end in range(len(content) - 120, len(content), 7):
        (tmp_path / "damaged.exr").write_bytes(content[:end])
        with pytest.raises(InputError):
            io.load_depth_map(tmp_path / "damaged.exr")
    alpha = (Z > 4).astype(np.float32)
    path = write_exr(tmp_path / "alpha.exr", {"Z": Z, "A": alpha})
    np.testing.assert_array_equal(io.load_depth_map(path), np.where(Z > 4, Z, np.nan))
    window = (np.array([0, 0], np.int32), np.array([5, 3], np.int32))
    path = write_exr(tmp_path / "crop.exr", {"Z": Z}, displayWindow=window)
    np.testing.assert_array_equal(
        io.load_depth_map(path), np.pad(Z, ((0, 1), (0, 2)), constant_values=np.nan)
    )


def test_openexr_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    (tmp_path / "words.exr").write_text("words")
    for name, word in (("words.exr", "damaged"), ("gone.exr", "no such file")):
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / name)
        assert_one_line(error, tmp_path / name, word)


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
    (tmp_path / "colour.pfm").write_bytes(b"PF\n1 1\n-1\n" + bytes(11) + b"\1")
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
        "colour.pfm": "different channels",
        "short.pfm": "12 of 64 bytes",
        "a.hdr": ".exr",
        "cut.npz": "numpy",
        "missing.npy": "no such file",
    }.items():
        with pytest.raises(InputError) as error:
            io.load_depth_map(tmp_path / name)
        assert_one_line(error, tmp_path / name, word)


@pytest.mark.parametrize("offset", ["inf", "nan", "words"])
def test_disparity_png_with_an_impossible_scale(tmp_path: Path, offset: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("redepth:scale", "1.0")
    text.add_text("redepth:offset", offset)
    Image.new("I;16", (20, 20)).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(InputError, match="redepth:scale"):
        io.load_disparity_png(tmp_path / "a.png")


def test_disparity_png_without_its_scale(tmp_path: Path) -> None:
    Image.new("I;16", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError) as error:
        io.load_disparity_png(tmp_path / "a.png")
    assert_one_line(error, tmp_path / "a.png", "redepth:scale", "load_depth_map")


def test_a_size_is_named_when_it_does_not_fit() -> None:
    io.check_size("mask", (10, 20), 10, 20)
    with pytest.raises(InputError, match="the mask is 21 x 10 pixels and the photo 20 x 10"):
        io.check_size("mask", (10, 21), 10, 20)


def test_a_grey_pfm_in_colour_is_read_and_a_scale_of_0_is_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(1, 9, (20, 12)).astype("<f4")
    path = tmp_path / "a.pfm"
    path.write_bytes(b"PF\n12 20\n-1.0\r\n" + np.repeat(values[::-1, :, None], 3, 2).tobytes())
    np.testing.assert_array_equal(io.load_depth_map(path, max_pixels=240), values)
    path.write_bytes(b"Pf\n12 20\n0.0\n" + values.tobytes())
    with pytest.raises(InputError) as error:
        io.load_depth_map(path)
    assert_one_line(error, path, "scale is 0")


def test_a_map_is_the_one_of_its_kind(tmp_path: Path) -> None:
    depth = depth_map()
    np.savez(tmp_path / "both.npz", depth=depth, disparity=1 / depth)
    np.savez(tmp_path / "any.npz", anything=depth)
    np.savez(tmp_path / "one.npz", disparity=1 / depth)
    np.savez(tmp_path / "more.npz", disparity=1 / depth, mask=depth > 1)
    paths = [tmp_path / "one.npz", tmp_path / "more.npz"]
    both = [tmp_path / "both.npz"]
    if importlib.util.find_spec("OpenEXR"):
        both.append(write_exr(tmp_path / "both.exr", {"depth": depth, "disparity": 1 / depth}))
        paths.append(write_exr(tmp_path / "one.exr", {"disparity": 1 / depth}))
        paths.append(write_exr(tmp_path / "layer.exr", {"a.Disparity.Z": 1 / depth, "a.R": depth}))
    for path in both:
        np.testing.assert_array_equal(io.load_map(path, "depth"), depth)
        np.testing.assert_array_equal(io.load_map(path, "disparity"), 1 / depth)
    np.testing.assert_array_equal(io.load_map(tmp_path / "any.npz", "disparity"), depth)
    np.savez(tmp_path / "any.npz", depth=depth, mask=depth > 1)
    np.testing.assert_array_equal(io.load_map(tmp_path / "any.npz", "disparity"), depth)
    for path in paths:
        np.testing.assert_array_equal(io.load_map(path, "disparity"), 1 / depth)
        with pytest.raises(InputError) as error:
            io.load_map(path, "depth")
        assert_one_line(error, path, "named disparity", "depth was asked for")


def test_a_map_in_a_png_of_redepth_is_decoded(tmp_path: Path) -> None:
    values = depth_map()
    values[1, 1] = np.nan
    io.save_disparity_png(tmp_path / "a.png", values)
    np.testing.assert_allclose(io.load_map(tmp_path / "a.png", "disparity"), values, atol=1e-3)
    Image.fromarray(np.full((3, 4), 7, np.uint16)).save(tmp_path / "b.png")
    assert (io.load_map(tmp_path / "b.png", "depth") == 7).all()
