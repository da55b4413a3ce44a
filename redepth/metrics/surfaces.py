"""Surfaces at several scales: the pixels that stand for a picture, and the points of depth maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.metrics.batch import ImagePair
from redepth.ops.camera import Camera
from redepth.ops.geometry import point_map

SCALES = (1, 2, 4, 8)
"""Side of the patches of pixels that one pixel stands for, scale after scale."""


@dataclass(frozen=True)
class Grid:
    """The pixels that stand for a picture at one scale.

    Attributes:
        scale: side of a patch.
        index: (h, w) of the chosen pixels, row * W + column.
        known: (h, w) bool, whether the patch holds a measured pixel.
    """

    scale: int
    index: Tensor
    known: Tensor

    def of(self, points: Tensor) -> Tensor:
        """Return points (3, H, W) at the chosen pixels, (3, h, w)."""
        return points.flatten(1)[:, self.index]


def thinned(mask: Tensor) -> Iterator[Grid]:
    """Yield the pixels that stand for a mask (H, W), scale after scale, while they are at least 3 x 3."""
    height, width = mask.shape
    for scale in SCALES:
        rows, columns = -(-height // scale), -(-width // scale)
        if min(rows, columns) < 3:
            return
        whole = F.pad(mask, (0, columns * scale - width, 0, rows * scale - height))
        patches = whole.view(rows, scale, columns, scale).transpose(1, 2).flatten(2)
        step = torch.arange(scale, dtype=torch.float64) - (scale - 1) / 2
        distance = (step[:, None] ** 2 + step**2).flatten()
        chosen = torch.where(patches, distance, torch.inf).argmin(-1)
        row = torch.arange(rows)[:, None] * scale + chosen // scale
        column = torch.arange(columns) * scale + chosen % scale
        # A patch beyond the edge without a measured pixel may choose one outside the picture.
        index = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
        yield Grid(scale, index, patches.any(-1))


def surfaces(image: ImagePair, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return the points of prediction and truth, (3, H, W) float64; those outside the mask mean nothing.

    Raises:
        InputError: a depth inside the mask is not positive and finite.
    """
    inside = image.prediction[image.mask]
    if not bool((torch.isfinite(inside) & (inside > 0)).all()):
        raise image.error("some depths are not positive and finite; align them first")
    depths = [torch.where(image.mask, depth, 1.0).double() for depth in (image.prediction, image.truth)]
    predicted, true = (point_map(depth[None, None], camera)[0] for depth in depths)
    return predicted, true


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (C, ...) at length 1; a vector of 0 stays. Their length may be of any magnitude."""
    return F.normalize(vectors, dim=0, eps=torch.finfo(vectors.dtype).tiny)
