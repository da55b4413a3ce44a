"""Arrays as short text inside a page, and unit vectors as two whole numbers.

``assets/codec.js`` is the other side: it must change together with this module.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from redepth.exports.source import Array

Codes = NDArray[np.uint16]

OCTAHEDRON_BITS = 14
"""Bits of each of the two numbers of a unit vector: it is off by less than 0.0003 radians."""

DEPTH_LEVELS = 65534
UNKNOWN = 65535
"""The code of a pixel where nothing is known."""


def packed(codes: Codes) -> str:
    r"""Return an array (h, w) as text: what neighbours do not predict, deflated, in base64.

    .. math:: d_{ij} = c_{ij} - (c_{i-1,j} + c_{i,j-1} - c_{i-1,j-1}) \mod 2^{16}

    with zeros outside the array. Small differences of either sign become small numbers (2d, or -2d - 1), and
    their high bytes come before their low ones, so that both compress well.
    """
    steps = np.diff(codes, axis=0, prepend=np.uint16(0))
    steps = np.diff(steps, axis=1, prepend=np.uint16(0)).view(np.int16)
    folded = ((steps << 1) ^ (steps >> 15)).view(np.uint16)
    planes = np.concatenate([(folded >> 8).ravel(), (folded & 255).ravel()]).astype(np.uint8)
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")


def octahedral(normals: Array) -> tuple[Codes, Codes]:
    """Return unit vectors (h, w, 3) as two whole numbers each, (h, w); `UNKNOWN` where they are not finite.

    The sphere is projected to an octahedron, whose lower half is folded outwards to fill a square.

    Source: Cigolle et al., "A survey of efficient representations for independent unit vectors", Journal of
    Computer Graphics Techniques, 2014.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(normals).all(axis=-1))
    vectors = np.where(known[..., None], normals, np.float32(0)).astype(np.float64)
    length = np.abs(vectors).sum(axis=-1)
    x, y = (vectors[..., k] / np.where(length > 0, length, 1.0) for k in range(2))
    lower = vectors[..., 2] < 0
    sign_x, sign_y = np.where(x < 0, -1.0, 1.0), np.where(y < 0, -1.0, 1.0)
    x, y = (
        np.where(lower, (1 - np.abs(y)) * sign_x, x),
        np.where(lower, (1 - np.abs(x)) * sign_y, y),
    )
    first, second = (_quantized(value, known) for value in (x, y))
    return first, second


def logarithmic(depth: Array, known: NDArray[np.bool_]) -> tuple[Codes, float, float]:
    r"""Return depths as whole numbers, and offset and step of their logarithms.

    .. math:: z = \exp(\text{offset} + \text{step} \cdot \text{code})

    The relative error is the same near and far: half a step. A pixel that is not ``known`` is `UNKNOWN`.
    """
    if not known.any():
        return np.full(depth.shape, UNKNOWN, np.uint16), 0.0, 0.0
    logarithms = np.log(np.where(known, depth, 1.0), dtype=np.float64)
    low, high = float(logarithms[known].min()), float(logarithms[known].max())
    step = (high - low) / DEPTH_LEVELS
    codes = np.rint((logarithms - low) / step) if step > 0 else np.zeros(depth.shape)
    return np.where(known, codes, UNKNOWN).astype(np.uint16), low, step


def _quantized(values: NDArray[np.float64], known: NDArray[np.bool_]) -> Codes:
    levels = 2**OCTAHEDRON_BITS - 1
    codes = np.rint((values + 1) / 2 * levels)
    return np.where(known, codes, UNKNOWN).astype(np.uint16)
