"""Depth maps: every format, and every way in which a file can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError, MissingDependencyError
from tests.support.image_files import assert_one_line, depth_map, quadrants


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
        assert_one_line(error, tmp_path / name, word)


def test_disparity_png_without_its_scale(tmp_path: Path) -> None:
    Image.new("I;16", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError) as error:
        io.load_disparity_png(tmp_path / "a.png")
    assert_one_line(error, tmp_path / "a.png", "redepth:scale", "load_depth_map")


def test_a_size_is_named_when_it_does_not_fit() -> None:
    io.check_size("mask", (10, 20), 10, 20)
    with pytest.raises(InputError, match="the mask is 21 x 10 pixels and the photo 20 x 10"):
        io.check_size("mask", (10, 21), 10, 20)
