"""Grey ICC profiles at 16 bits, for which Pillow has no conversion to sRGB."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What Pillow raises for a profile that is broken, or of another kind than the image."""

_D50 = (0.9642, 1.0, 0.8249)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""Exponent, a, b, c and d of a parametric curve of type 3 (ICC.1:2010, section 10.15), for sRGB."""


def grey_curve(profile: bytes | None) -> NDArray[np.float32] | None:
    """Return sRGB in [0, 1] for each of the 65536 greys of 16 bits, or None to leave the greys unchanged.

    Args:
        profile: the embedded profile; one that is broken, or not of greys, is ignored as in 8 bits.
    """
    if not profile:
        return None
    ramp = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    target = io.BytesIO(_srgb_grey_profile())
    with suppress(*PROFILE_ERRORS):
        converted = ImageCms.profileToProfile(ramp, io.BytesIO(profile), target, outputMode="I;16")
        if converted is not None:
            return np.asarray(converted).astype(np.float32).ravel() / np.float32(65535)
    return None


def _srgb_grey_profile() -> bytes:
    """Return a grey ICC profile with the tone curve of sRGB."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    white = b"XYZ \0\0\0\0" + fixed(*_D50)
    curve = b"para\0\0\0\0\0\3\0\0" + fixed(*_SRGB_CURVE)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", start, len(white), b"kTRC", start + len(white), len(curve))
    head = struct.pack(">II", start + len(white) + len(curve), 0) + b"\x04\x20\0\0mntrGRAYXYZ "
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + fixed(*_D50)
    return head.ljust(128, b"\0") + tags + white + curve
