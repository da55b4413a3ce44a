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


def png_bytes(width: int, height: int, depth: int = 8, pixels: bytes = b"") -> bytes:
    """An 8-bit or 16-bit RGB PNG, whatever its header says of its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def depth_map() -> np.ndarray:
    """A ramp of 3 x 4 pixels, all > 0."""
    return np.arange(12, dtype=np.float32).reshape(3, 4) + 0.5
