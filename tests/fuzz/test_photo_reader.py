"""Fuzz target of the photo reader: damaged pictures give a photo or an InputError, and take little memory."""

from __future__ import annotations

import io as io_bytes
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from redepth import io
from redepth.errors import RedepthError
from tests.support.fuzz import fuzzing, mutate
from tests.support.image_files import grey_profile, png_of, quadrants, tiff_of

LIMIT = 200_000
"""Pixels that a reader may decode."""

MEMORY = 64 * 2**20
"""Bytes that Python and numpy may take for it: 16 times as many as its largest array has."""


def seeds() -> list[bytes]:
    """A small picture in every format, and those with a profile, a palette, transparency, 16 bits."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (20, 24)).astype(np.uint16)
    formats = [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("WEBP", "RGBA", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "CMYK", {}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("PPM", "RGB", {}),
        ("PPM", "L", {}),
        ("TGA", "RGBA", {}),
        ("JPEG2000", "RGB", {}),
        ("AVIF", "RGB", {}),
    ]
    found = []
    for name, mode, options in formats:
        stream = io_bytes.BytesIO()
        exif = {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"}
        about = exif if name in ("JPEG", "PNG", "WEBP") else {}
        quadrants(mode).save(stream, format=name, **options, **about)
        found.append(stream.getvalue())
    profile = b"x\0\0" + zlib.compress(grey_profile(1.0))
    found += [
        png_of(noise, 16, {b"iCCP": profile, b"tRNS": noise[3, 4].astype(">u2").tobytes()}),
        png_of(np.stack([noise] * 3, -1), 16),
        png_of(noise % 16, 4, {b"tRNS": b"\0\3"}),
        tiff_of(noise, photometric=0, orientation=6),
        tiff_of((noise / 65535).astype(np.float32)),
        tiff_of(noise % 4096, bits=12),
    ]
    return found


def reads(read: Callable[[Path], np.ndarray], path: Path) -> bool:
    """Return whether a reader reads a file; it has to refuse others in one line, and take little memory."""
    refusal = ""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = read(path)
    except RedepthError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY, peak
    assert "\n" not in refusal
    assert len(refusal) < 600 + len(str(path)), refusal
    assert refusal or array.shape[0] * array.shape[1] <= LIMIT
    return not refusal


@pytest.mark.slow
def test_damaged_photos_are_read_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tried = {"inputs": 0, "read": 0}

    def load(path: Path) -> np.ndarray:
        photo = io.load_photo(path, max_pixels=LIMIT)
        assert photo.dtype == np.float32
        assert photo.shape[2:] == (3,)
        # NaN fails both comparisons.
        assert photo.min() >= 0
        assert photo.max() <= 1
        return photo

    @fuzzing(6000)
    @given(mutate(seeds()))
    def attack(content: bytes) -> None:
        path = tmp_path / ("a.tga" if content[:3] == b"\0\0\2" else "a.jpg")
        path.write_bytes(content)
        tried["inputs"] += 1
        tried["read"] += reads(load, path)

    attack()
    for name, count in tried.items():
        record_property(name, count)
    print(f"photo reader: {tried['inputs']} damaged files, {tried['read']} read, the others refused")
    assert tried["read"] > 0
