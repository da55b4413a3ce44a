"""Bring decoded frames of a video to sRGB.

Videos hold luma and two colour differences (YCbCr). swscale converts them to R'G'B' by the matrix and the
range that the stream names. Where it names none, the usual rule holds: BT.709 from 720 rows on, else BT.601.
R'G'B' of BT.709 and BT.601 is taken as sRGB, as screens and players do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Codes of ITU-T H.273, as FFmpeg has them.
_PQ, _HLG = 16, 18
_BT2020_PRIMARIES = 9
_UNSPECIFIED = 2
_FULL_RANGE, _LIMITED_RANGE = 2, 1
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""H.273's code of a matrix -> swscale's."""
_HD_ROWS = 720

_REFERENCE_WHITE = 203.0
"""Luminance of white in HDR pictures, cd/m² (ITU-R BT.2408)."""

_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear RGB of BT.2020's primaries to BT.709's (ITU-R BT.2087)."""


def to_srgb(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return a decoded frame as sRGB.

    HDR pictures (HLG and PQ of ITU-R BT.2100) are brought to linear light relative to reference white, to
    BT.709's primaries and to sRGB's curve. What is brighter than reference white becomes white.

    Args:
        frame: as decoded.
        width: of the result.
        height: of the result.

    Returns:
        (height, width, 3): uint8, or float32 in [0, 1] of a frame with more than 8 bits, or in colours that
        are not sRGB's.
    """
    hdr = int(frame.color_trc) in (_PQ, _HLG)
    wide = int(frame.color_primaries) == _BT2020_PRIMARIES
    deep = hdr or wide or max((part.bits for part in frame.format.components), default=8) > 8
    rgb = _converted(frame, width, height, "rgb48le" if deep else "rgb24")
    if not deep:
        return rgb
    values = rgb.astype(np.float32)
    values /= 65535.0
    if hdr:
        return _encoded(_in_bt709(_linear_hdr(values, int(frame.color_trc))))
    if wide:
        return _encoded(_in_bt709(_decoded(values)))
    return values


def _converted(frame: VideoFrame, width: int, height: int, layout: str) -> NDArray[Any]:
    """Return R'G'B' by the frame's matrix and range."""
    kwargs: dict[str, Any] = {}
    if not frame.format.is_rgb:
        code = int(frame.colorspace)
        default = 1 if frame.height >= _HD_ROWS else 5
        kwargs["src_colorspace"] = default if code == _UNSPECIFIED else _MATRICES.get(code, default)
        full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
        kwargs |= {"src_color_range": _FULL_RANGE if full else _LIMITED_RANGE, "dst_color_range": _FULL_RANGE}
    return frame.reformat(width=width, height=height, format=layout, **kwargs).to_ndarray()


def _linear_hdr(signal: NDArray[np.float32], curve: int) -> NDArray[np.float32]:
    """Return linear light, 1 at reference white, of a signal in [0, 1] (ITU-R BT.2100, tables 4 and 5)."""
    if curve == _PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = signal ** np.float32(1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (light * (10_000 / _REFERENCE_WHITE)).astype(np.float32)
    # White of HLG is 75 % of the signal (BT.2408).
    white = float(_hlg(np.full(1, 0.75, np.float32))[0])
    return _hlg(signal) / np.float32(white)


def _hlg(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


def _in_bt709(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(linear @ _TO_BT709.T, 0, 1)


def _decoded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return linear light of sRGB."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoded(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sRGB of linear light in [0, 1]."""
    powered = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, powered).astype(np.float32)
