"""Fuzz target of the readers of maps and masks: damaged files give an array or an InputError."""

from __future__ import annotations

import importlib.util
import io as io_bytes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from redepth import io
from redepth.data.datasets.sintel import read_dpt
from tests.fuzz.test_photo_reader import LIMIT, reads
from tests.support.fuzz import fuzzing, mutate
from tests.support.image_files import png_of, tiff_of

MAP = np.linspace(0.5, 9, 20 * 24, dtype=np.float32).reshape(20, 24)
INTEGERS = (1000 * MAP).astype(np.uint16)


def arrays() -> dict[str, list[bytes]]:
    """Small maps by the suffix of their files."""

    def npy(values: np.ndarray) -> bytes:
        stream = io_bytes.BytesIO()
        np.save(stream, values)
        return stream.getvalue()

    def npz(**values: np.ndarray) -> bytes:
        stream = io_bytes.BytesIO()
        np.savez_compressed(stream, **values)
        return stream.getvalue()

    tiff = io_bytes.BytesIO()
    Image.fromarray(INTEGERS).save(tiff, format="TIFF", compression="tiff_lzw")
    return {
        ".npy": [npy(MAP), npy(np.asfortranarray(MAP.astype(np.float64))), npy(INTEGERS[..., None])],
        ".npz": [npz(depth=MAP), npz(a=MAP, disparity=INTEGERS)],
        ".pfm": [b"Pf\n24 20\n-1.0\n" + MAP.tobytes(), b"Pf\r\n24 20\r\n1\r\n" + MAP.astype(">f4").tobytes()],
        ".png": [png_of(INTEGERS, 16), png_of(np.stack([INTEGERS] * 3, -1), 16), png_of(INTEGERS % 256, 8)],
        ".tif": [
            tiff_of(INTEGERS, photometric=0),
            tiff_of(MAP),
            tiff_of(INTEGERS % 4096, bits=12),
            tiff.getvalue(),
        ],
        ".dpt": [np.float32(202021.25).tobytes() + np.array([24, 20], "<i4").tobytes() + MAP.tobytes()],
    }


def read_any(path: Path) -> np.ndarray:
    """Read a file as a map, and as a mask where a mask may be of its kind."""
    with io.pixel_limit(LIMIT):
        if path.suffix == ".dpt":
            return read_dpt(path)
        depth = io.load_depth_map(path)
        assert depth.dtype == np.float32
        assert depth.ndim == 2
        if path.suffix in (".npy", ".png", ".tif"):
            mask = io.load_mask(path, may_be_empty=True)
            assert mask.shape == depth.shape
            assert mask.dtype == bool
        return depth


@st.composite
def damaged(draw: st.DrawFn, kinds: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Draw a suffix and the content of a damaged file."""
    suffix = draw(st.sampled_from(sorted(kinds)))
    return suffix, draw(mutate(kinds[suffix]))


def attacked(
    tmp_path: Path, kinds: dict[str, list[bytes]], count: int, record_property: Callable[[str, object], None]
) -> None:
    """Try damaged files of some kinds, and record how many."""
    tried = {"inputs": 0, "read": 0}

    @fuzzing(count)
    @given(damaged(kinds))
    def attack(file: tuple[str, bytes]) -> None:
        path = tmp_path / f"a{file[0]}"
        path.write_bytes(file[1])
        tried["inputs"] += 1
        tried["read"] += reads(read_any, path)

    attack()
    for name, number in tried.items():
        record_property(name, number)
    print(f"depth readers: {tried['inputs']} damaged files, {tried['read']} read, the others refused")
    assert tried["read"] > 0


@pytest.mark.slow
def test_damaged_maps_are_read_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    attacked(tmp_path, arrays(), 8000, record_property)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="needs OpenEXR")
def test_damaged_openexr_maps_are_read_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    import OpenEXR

    contents = []
    for compression in (OpenEXR.ZIP_COMPRESSION, OpenEXR.NO_COMPRESSION, OpenEXR.PIZ_COMPRESSION):
        header = {"compression": compression, "type": OpenEXR.scanlineimage}
        for channels in ({"Z": MAP}, {"ViewLayer.Depth.Z": MAP, "ViewLayer.Combined.R": MAP}):
            OpenEXR.File(header, channels).write(str(tmp_path / "seed.exr"))
            contents.append((tmp_path / "seed.exr").read_bytes())
    attacked(tmp_path, {".exr": contents}, 1500, record_property)
