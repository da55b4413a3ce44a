"""No-hit values: the numbers that renderers and sensors store where nothing was hit, such as in the sky."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError

NO_HITS = (1e10, 65504.0, 32767.0, 2147483647.0, 4294967295.0, 655.35, 65.535, 65535 / 256)
"""Numbers that often mean "no hit": Blender's, the largest half-precision number, the largest integers, and
that of 16 bits in metres where it was in centimetres, millimetres or 256ths."""

UINT16_MAX = 65535.0
"""The largest number of a 16-bit picture: a depth there is cut off, or is none."""

ISOLATION = 1.05
"""A number of `NO_HITS` is real depth if another depth lies within this factor below it."""

GAP = 1000.0
"""No scene has an empty range of depth this wide: what lies beyond one is no depth of it."""

_FEW = 0.1


def stored_no_hits(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where depth, as it is stored, holds a number that means "no hit".

    That is one of `NO_HITS`, unless other depth comes near to it from below (`ISOLATION`), as in a map in
    millimetres that passes 65504 smoothly; and `UINT16_MAX` as the greatest value of a map of integers.

    Args:
        values: (H, W) depth in the units of the file, before any factor.
    """
    found = np.zeros(values.shape, dtype=np.bool_)
    for number in (*NO_HITS, UINT16_MAX):
        same = values == np.float32(number)
        if same.any() and (_isolated(values, number) or _largest_integer(values, number)):
            found |= same
    return found


def _isolated(values: NDArray[np.float32], number: float) -> bool:
    return not bool(((values > number / ISOLATION) & (values < np.float32(number))).any())


def _largest_integer(values: NDArray[np.float32], number: float) -> bool:
    finite = values[np.isfinite(values)]
    return number == UINT16_MAX and bool(finite.max() == number and (finite == np.rint(finite)).all())


def beyond_gap(depth: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where known depth is no depth of the scene: it is `GAP` times farther or nearer than the rest.

    The rule has no unit. Depth falls into groups wherever the next greater depth is at least `GAP` times as
    far. The group that varies is the scene, such as 1 to 80 beside a sky of 1e10. Of several that vary, the
    largest is the scene, and the others must be small (less than a tenth of the pixels).

    Args:
        depth: (H, W).
        known: (H, W), where it is finite and > 0.

    Raises:
        InputError: several groups may be the scene.
    """
    found = np.zeros(known.shape, dtype=np.bool_)
    inside = depth[known]
    if inside.size == 0 or inside.max() < GAP * inside.min():
        return found
    groups = _groups(inside)
    if len(groups) > 1:
        low, high = _scene(groups)
        found[known] = (inside < low) | (inside > high)
    return found


def _groups(inside: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the values in groups, the nearest first."""
    # Octaves find where a gap may be; its ends decide, so that a factor on all values changes nothing.
    octaves = np.frexp(inside)[1]
    occupied = np.unique(octaves)
    groups, start = [], occupied[0]
    for last, following in pairwise(occupied):
        if following - last < int(np.log2(GAP)):
            continue
        below, above = inside[octaves <= last].max(), inside[octaves >= following].min()
        if above >= GAP * below:
            groups.append(inside[(octaves >= start) & (octaves <= last)])
            start = following
    groups.append(inside[octaves >= start])
    return groups


def _scene(groups: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the least and the greatest depth of the group that is the scene."""
    varied = sorted((g for g in groups if g.min() < g.max()), key=lambda group: -group.size)
    if len(varied) > 1 and varied[1].size >= _FEW * sum(group.size for group in groups):
        parts = " and ".join(f"{group.min():.4g} to {group.max():.4g}" for group in varied[:2])
        raise InputError(
            f"the ground truth has depths of {parts} and none between: mask those that are no depth, or "
            "store 0 there"
        )
    scene = varied[0] if varied else groups[0]
    return float(scene.min()), float(scene.max())
