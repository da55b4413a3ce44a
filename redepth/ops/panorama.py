"""Panoramas, whose left and right edges meet: extending a picture beyond one turn, and closing its maps.

A network does not know that the edges are neighbours, and its answers there do not fit together. So the
picture goes on beyond one turn on both sides, and where the answer then exists twice, both are blended.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops import geometry

SHARE = 1 / 8
"""The share of a turn by which a photo is extended on either side."""

RATIO = 2
"""Width over height of a panorama of 360 x 180 degrees."""

_BLOCK = 256
"""Rows that are resized together: a map of 100 megapixels takes no second copy."""


def margin_columns(width: int) -> int:
    """Return the number of columns by which a photo of this width is extended on either side."""
    return max(1, round(SHARE * width))


def check_shape(height: int, width: int) -> None:
    """Raise ValueError if a picture has not the shape of a panorama of 360 x 180 degrees, within a pixel."""
    if not math.isclose(width, RATIO * height, abs_tol=1.0):
        raise ValueError(
            f"a panorama of 360 x 180 degrees is twice as wide as high, this photo is {width} x {height}; "
            "for a part of one give its camera another way"
        )


def extend(picture: Tensor, columns: int) -> Tensor:
    """Repeat columns (..., H, W) from the other side on both sides, (..., H, W + 2 columns)."""
    return torch.cat([picture[..., -columns:], picture, picture[..., :columns]], dim=-1)


def close(values: Tensor, margin: float) -> Tensor:
    r"""Return one turn of a map of an extended picture, whose edges fit together.

    A direction t, in turns from the left edge, that lies within m of the edge was seen twice, at t and at
    t + 1 or t - 1 of the extended map E:

    .. math:: C(t) = w(t) E(t) + (1 - w(t)) E(t \pm 1), \qquad
        w(t) = \min\Big(\frac{\min(t, 1 - t) + m}{2 m}, 1\Big)

    Both have weight 1/2 at the edge, so C is continuous there; each one has weight 0 where E ends. Between
    pixels E is linear.

    Args:
        values: (B, C, h, w) map of an extended picture.
        margin: m, the share of a turn that it repeats on either side, in [0, 1/2].

    Returns:
        (B, C, h, w'), w' = w / (1 + 2 m) rounded.
    """
    if not margin:
        return values
    width = max(1, round(values.shape[-1] / (1 + 2 * margin)))
    turn = _centres(width, like=values)
    again = torch.where(turn < 0.5, turn + 1, turn - 1)
    weight = ((torch.minimum(turn, 1 - turn) + margin) / (2 * margin)).clamp(max=1)
    once, twice = (_columns(values, (t + margin) / (1 + 2 * margin), closed=False) for t in (turn, again))
    return torch.lerp(twice, once, weight)


def fit(values: Tensor, height: int, width: int, margin: float) -> Tensor:
    """Resize a map of one turn, antialiased, to the size of a picture that goes on beyond it.

    Args:
        values: (B, C, h, w).
        height: of the picture.
        width: of the picture.
        margin: share of a turn that the picture repeats on either side; 0: it is resized as any map is.
    """
    turn = geometry.resize(values, height, round(width / (1 + 2 * margin)), antialias=True)
    return resize(turn, height, width, margin) if margin else turn


def resize(values: Tensor, height: int, width: int, margin: float = 0.0) -> Tensor:
    """Resize one turn (B, C, h, w) bilinearly across its edges; `resize_into` has the rule.

    Args:
        values: the map.
        height: of the result.
        width: of the result.
        margin: share of a turn by which the result goes on beyond one turn on either side.
    """
    target = values.new_empty(*values.shape[:2], height, width)
    resize_into(target, values, margin)
    return target


def resize_into(target: Tensor, values: Tensor, margin: float = 0.0) -> None:
    """Write one turn (B, C, h, w), resized bilinearly, to a tensor of the wanted size.

    A pixel's centre is half a pixel from its edge in both, and the columns beyond the left edge are those at
    the right edge. So the step across the edge is one of the steps between neighbours. Above the first and
    below the last row, near the poles, the border is repeated.
    """
    height, width = target.shape[-2:]
    tall = F.interpolate(values, size=(height, values.shape[-1]), mode="bilinear", align_corners=False)
    turn = _centres(width, like=values) * (1 + 2 * margin) - margin
    for part, rows in zip(target.split(_BLOCK, dim=-2), tall.split(_BLOCK, dim=-2), strict=True):
        part.copy_(_columns(rows, turn, closed=True))


def _centres(count: int, *, like: Tensor) -> Tensor:
    """Return the centres of pixels (count,) from 0 to 1."""
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count


def _columns(values: Tensor, position: Tensor, *, closed: bool) -> Tensor:
    """Return the columns at positions (n,) in widths of the map (..., h, w), linear between pixels."""
    width = values.shape[-1]
    exact = position * width - 0.5
    left = exact.floor()
    share = exact - left
    before = left.long()
    first, second = (
        index.remainder(width) if closed else index.clamp(0, width - 1) for index in (before, before + 1)
    )
    return torch.lerp(values.index_select(-1, first), values.index_select(-1, second), share)
