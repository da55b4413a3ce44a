"""Whether two frames show the same along the motion between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.clips.flow import Track
from redepth.ops.filters import gaussian_blur
from redepth.ops.warp import warp

REACH = (1, 2, 4)
"""Pixels by which the carried picture is shifted, in eight directions each."""

WINDOW = 3.0
"""Standard deviation in pixels of the window in which pictures are compared."""

BETTER = 0.85
"""A shifted picture matches better if its difference is this share of that of the carried one."""

FAR = 0.1
"""Pixels that differ by this much of the range of values do not match at all."""

ENOUGH = 0.85
"""Share of the pixels seen before that match, below which the motion may be wrong; the exact one has 0.98."""


def matching(track: Track, last: Tensor, image: Tensor) -> Tensor:
    """Return where the last picture, carried along a track, is the frame, (1, 1, H, W) bool.

    A pixel matches if the pictures do not differ much around it, and differ no less once the carried picture
    is shifted by 1, 2 or 4 pixels to any side: a motion that is wrong by a pixel would be mended by that.
    Where there is nothing to see, every motion matches.

    Args:
        track: between both.
        last: (1, 3, H, W) the frame before, sRGB.
        image: (1, 3, H, W) the frame.
    """
    carried = warp(last, track.back)
    here = _difference(carried, image)
    shifts = [(x * step, y * step) for step in REACH for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    best = torch.stack([_difference(_shifted(carried, *shift), image) for shift in shifts]).amin(dim=0)
    return track.valid & (here <= FAR) & (best >= BETTER * here)


def _difference(carried: Tensor, image: Tensor) -> Tensor:
    return gaussian_blur((carried - image).abs().mean(dim=1, keepdim=True), WINDOW)


def _shifted(values: Tensor, x: int, y: int) -> Tensor:
    """Return a picture shifted by whole pixels; its border is repeated."""
    height, width = values.shape[-2:]
    reach = max(abs(x), abs(y))
    padded = F.pad(values, (reach, reach, reach, reach), mode="replicate")
    return padded[..., reach + y : reach + y + height, reach + x : reach + x + width]
