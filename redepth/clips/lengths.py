"""From raw outputs to depth in the units of known camera poses, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from redepth.literals import Predicts
from redepth.ops.camera import Camera
from redepth.ops.geometry import relative_depth
from redepth.ops.warp import Seen, reproject, warp

MIDDLE, REACH = 32.0, 64.0
"""The median depth in translations that is tried first, and the factor to either side: 0.5 to 2048."""

TRIED, ROUNDS = 49, 3
"""Lengths that are tried at a time, and times that they are tried, each around the best one so far."""

PARALLAX = 2.0
"""A length is found only where it moves the pixels by so much, mean over the picture."""

CLEAR = 1.05
"""Half and twice a length that is found make the difference of the pictures so much larger."""


@dataclass(frozen=True)
class Lengths:
    """How raw outputs become depth along the axis.

    Attributes:
        predicts: what raw outputs are.
        metric: whether they are in metres or 1 / metres.
        scale: s of relative depth (`ops.geometry.relative_depth`).
        margin: m of it.
        unit: of the clip's raw outputs.
        length: of one unit of relative depth.
    """

    predicts: Predicts
    metric: bool
    scale: float
    margin: float
    unit: float = 1.0
    length: float = 1.0

    def of(self, length: float) -> Lengths:
        """Return the same with another length. Raises ValueError unless it is above 0."""
        if not length > 0:
            raise ValueError(f"a length must be above 0, got {length}")
        return replace(self, length=length)

    def depth(self, raw: Tensor) -> Tensor:
        """Return the depth of raw outputs."""
        if self.metric:
            return raw if self.predicts == "depth" else 1 / raw.clamp(min=1e-6)
        relative = relative_depth(
            raw / self.unit, predicts=self.predicts, scale=self.scale, margin=self.margin
        )
        return self.length * relative

    def raw(self, depth: Tensor) -> Tensor:
        """Return the raw outputs of a depth, the inverse of `depth`; nothing is nearer than 0."""
        depth = depth.clamp(min=1e-6)
        if self.metric:
            return depth if self.predicts == "depth" else 1 / depth
        relative = depth / self.length
        if self.predicts == "depth":
            return relative / self.scale * self.unit
        return (self.scale / relative - self.margin).clamp(min=0) * self.unit


class Fit(NamedTuple):
    """What two pictures say about the length of a unit of relative depth.

    Attributes:
        lengths: under which the pictures are most alike.
        found: whether that determines the length.
        ended: whether the best length is the shortest that was tried: the poses do not fit the pictures.
        seen: share of the later picture that the earlier one shows under it.
    """

    lengths: Lengths
    found: bool
    ended: bool
    seen: float


def fit_length(
    lengths: Lengths, last: Tensor, image: Tensor, answer: Tensor, camera: Camera, motion: Tensor
) -> Fit:
    """Return the lengths under which the earlier picture, carried along the motion, is most like this one.

    A grid around the length at which the median depth is 32 times the translation, made finer twice. The
    length is found if it lies inside the grid, moves the pixels by `PARALLAX`, and if half and twice the
    length make the pictures clearly less alike. Without translation the lengths are returned unchanged.

    Args:
        lengths: of any length.
        last: (1, 3, H, W) the earlier picture.
        image: (1, 3, H, W) this picture.
        answer: (1, 1, H, W) raw output of the earlier one.
        camera: of both.
        motion: (4, 4), as for `ops.warp.reproject`.
    """
    way = float(motion[:3, 3].norm())
    if not way > 0:
        return Fit(lengths, found=False, ended=False, seen=1.0)
    depth = lengths.of(1.0).depth(answer)

    def seen_at(length: float) -> Seen:
        return reproject(depth * length, camera, motion)

    def difference(length: float) -> float:
        return _difference(seen_at(length), last, image)

    best, reach = MIDDLE * way / float(depth.median()), REACH
    shortest = 1.01 * best / reach
    for _ in range(ROUNDS):
        factors = torch.logspace(-1, 1, TRIED, base=reach, dtype=torch.float64)
        best = min((best * float(factor) for factor in factors), key=difference)
        reach = reach ** (4 / TRIED)
        seen = seen_at(best)
        ended, small = best <= shortest, _parallax(seen, seen_at(2 * best)) < PARALLAX
        if ended or small:
            return Fit(lengths.of(best), found=False, ended=ended, seen=_share(seen))
    clear = min(difference(best / 2), difference(2 * best)) > CLEAR * difference(best)
    return Fit(lengths.of(best), found=clear, ended=False, seen=_share(seen))


def _share(seen: Seen) -> float:
    return float(seen.valid.float().mean())


def _parallax(seen: Seen, farther: Seen) -> float:
    """Return the mean way of the pixels that depth explains; at twice the depth it is half as long."""
    both = seen.valid & farther.valid
    moved = torch.linalg.vector_norm(seen.back - farther.back, dim=1, keepdim=True)[both]
    return 2 * float(moved.mean()) if moved.numel() else 0.0


def _difference(seen: Seen, last: Tensor, image: Tensor) -> float:
    """Return the mean absolute difference of the pictures; what was not seen before counts as all wrong."""
    missed = (warp(last, seen.back) - image).abs().mean(dim=1, keepdim=True)
    return float(torch.where(seen.valid, missed, 0.5).mean())
