"""Small image files for tests: a picture whose flips show, PNG files of any header, a depth map."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RED, GREEN, BLUE, WHITE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


def quadrants(mode: str = "RGB") -> Image.Image:
    """48 x 32, red | green over blue | white: every flip and rotation is visible."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (255, 0, 0), (0, 255, 0)
    pixels[16:, :24], pixels[16:, 24:] = (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels).convert(mode)


def assert_quadrants(photo: np.ndarray, atol: float = 0.05) -> None:
    """Assert that a photo is `quadrants`, the right way up."""
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


def assert_one_line(error: pytest.ExceptionInfo[Exception], path: Path, *words: str) -> None:
    """Assert that an error is one line that names the file and has these words."""
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def png_bytes(
    width: int,
    height: int,
    depth: int = 8,
    pixels: bytes = b"",
    colour: int = 2,
    chunks: dict[bytes, bytes] | None = None,
) -> bytes:
    """A PNG, whatever its header says of its size: by default RGB.

    Args:
        width: in the header, like the next.
        height: and so on.
        depth: bits a sample.
        pixels: its rows, each behind a byte for the filter.
        colour: the PNG's number of a kind of colour.
        chunks: name -> content, in front of the pixels.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    more = b"".join(chunk(kind, data) for kind, data in (chunks or {}).items())
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + body + chunk(b"IEND", b"")


def png_of(values: np.ndarray, bits: int, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A PNG of integers (H, W), grey, or (H, W, 2 to 4), grey with alpha, RGB, RGBA."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    height, width = values.shape[:2]
    if bits < 8:
        spread = values.reshape(height, -1).astype(np.uint8)[..., None] >> np.arange(bits)[::-1] & 1
        rows = np.packbits(spread.reshape(height, -1), axis=1)
    else:
        rows = values.reshape(height, -1).astype(">u2" if bits == 16 else np.uint8)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_bytes(width, height, bits, pixels, {1: 0, 2: 4, 3: 2, 4: 6}[channels], chunks)


def tiff_of(values: np.ndarray, *, photometric: int = 1, **tags: int) -> bytes:
    """An uncompressed TIFF of one strip: (H, W) grey or (H, W, C), integers or floats, little-endian.

    Args:
        values: of any type of 8 to 32 bits.
        photometric: 0 for white as 0, 1 for black as 0, 2 for RGB.
        tags: ``orientation``, ``extra`` (samples beyond RGB), ``bits`` where it is not the type's.
    """
    channels = 1 if values.ndim == 2 else values.shape[2]
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    bits = tags.get("bits", values.dtype.itemsize * 8)
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = np.stack(
            [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1
        )
        content = packed.astype(np.uint8).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    # All values fit into an entry, except the bits of several channels, which stand behind the pixels.
    entries = {
        256: (4, 1, values.shape[1]),
        257: (4, 1, values.shape[0]),
        258: (3, channels, bits if channels == 1 else 8 + len(content)),
        259: (3, 1, 1),
        262: (3, 1, photometric),
        273: (4, 1, 8),
        274: (3, 1, tags.get("orientation", 1)),
        277: (3, 1, channels),
        278: (4, 1, values.shape[0]),
        279: (4, 1, len(content)),
        339: (3, 1, kind),
    }
    if "extra" in tags:
        entries[338] = (3, 1, tags["extra"])
    listing = b"".join(
        struct.pack("<HHII", tag, kind, count, value) for tag, (kind, count, value) in sorted(entries.items())
    )
    end = struct.pack(f"<{channels}H", *[bits] * channels)
    start = 8 + len(content) + len(end)
    directory = struct.pack("<H", len(entries)) + listing + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", start) + content + end + directory


def grey_profile(gamma: float) -> bytes:
    """A grey ICC profile with a pure power as its tone curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 14)
    head = struct.pack(">II", 176 + len(curve), 0) + b"\x02\x10\0\0mntrGRAYXYZ "
    head = head.ljust(36, b"\0") + b"acsp".ljust(32, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + white + curve


def depth_map() -> np.ndarray:
    """A ramp of 3 x 4 pixels, all > 0."""
    return np.arange(12, dtype=np.float32).reshape(3, 4) + 0.5
