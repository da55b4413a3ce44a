"""Sky segmentation of a photo without a network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from redepth.ops import geometry
from redepth.ops.color import luma
from redepth.ops.filters import dilate, gaussian_blur, gradient, length
from redepth.ops.statistics import nearness

FAR = 0.1
"""Nearness below which a pixel may be sky."""

ROUGH = 0.02
"""Change of luma over 1 % of the shorter side above which a pixel is not sky."""

LEAST = 0.03
"""Least share of the photo: a smaller mask counts as no sky."""


def sky_mask(image: Tensor, raw: Tensor, predicts: Literal["disparity", "depth"] = "disparity") -> Tensor:
    """Find the sky by distance, colour and smoothness, from the upper border down.

    A pixel is a candidate if its `nearness` is below `FAR`, the photo is smooth there (`ROUGH`), and its
    colour is blue (B >= R + 0.05, B >= G) or pale (max - min < 0.12, min > 0.5). Blurring removes single
    pixels. Sky is every candidate with only candidates above it, apart from gaps of up to 6 % of the shorter
    side, such as wires. Less than `LEAST` of the photo counts as no sky. A dark or red sky, and sky below
    other things, is not found: give a mask for it.

    Args:
        image: (1, 3, h, w) sRGB in [0, 1], any size.
        raw: (1, 1, H, W) the depth model's prediction, finite.
        predicts: kind of ``raw``.

    Returns:
        (1, 1, H, W) bool; no sky for a constant prediction, which does not show what is far.
    """
    image = geometry.resize(image, *raw.shape[-2:], antialias=True)
    grain = 0.01 * min(raw.shape[-2:])
    change = length(gradient(gaussian_blur(luma(image), max(0.5, grain / 2)))) * grain
    near = nearness(raw, predicts)
    candidate = (near < FAR) & (gaussian_blur(change, max(0.5, grain)) < ROUGH) & _sky_coloured(image)
    steady = gaussian_blur(candidate.float(), max(0.5, grain)) > 0.5
    bridged = _closed(steady.float(), round(3 * grain))
    sky = steady & torch.cumprod(bridged, dim=-2).bool()
    informed = near.amax() > near.amin()
    return sky & informed & (sky.float().mean() >= LEAST)


def _closed(mask: Tensor, radius: int) -> Tensor:
    """Fill gaps narrower than twice the radius."""
    return 1 - dilate(1 - dilate(mask, radius), radius)


def _sky_coloured(image: Tensor) -> Tensor:
    red, green, blue = image.split(1, dim=1)
    high, low = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    pale = (high - low < 0.12) & (low > 0.5)
    return pale | ((blue >= red + 0.05) & (blue >= green))
