"""Flicker: what changes from frame to frame of a clip and no motion explains."""

from __future__ import annotations

import torch
from torch import Tensor

from redepth.errors import InputError


def flicker(now: Tensor, last: Tensor, valid: Tensor) -> float:
    r"""Return the flicker of a frame against the one before.

    .. math:: \frac{1}{|V| S} \sum_V |D_t - W D_{t-1}|

    with the standard deviation S of both maps over V, the root of their mean variance. The maps are compared
    as they are: one scale and shift for the whole clip changes nothing, one for each frame would hide what
    flickers.

    Args:
        now: D_t, any shape.
        last: W D_{t-1}, the same shape: the last frame's map, carried to this frame along the motion.
        valid: V, bool, the same shape: where the last frame shows the same.

    Raises:
        InputError: no pixel is valid, a value there is not finite, or both maps are constant there.
        ValueError: shapes differ.
    """
    if not now.shape == last.shape == valid.shape:
        raise ValueError(f"maps and mask must have one shape, got {now.shape}, {last.shape}, {valid.shape}")
    a, b = now[valid].double(), last[valid].double()
    if not a.numel():
        raise InputError("no pixel of the frame was seen in the last one: there is no flicker to measure")
    if not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
        raise InputError("a map that flicker shall be measured of is not finite")
    variance = (a.var(correction=0) + b.var(correction=0)) / 2
    if not bool(variance > 0):
        raise InputError("the maps are constant: flicker has no scale")
    return float((a - b).abs().mean() / variance.sqrt())
