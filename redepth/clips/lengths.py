"""From raw outputs to depth in the units of known camera poses, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redepth.literals import Predicts
from redepth.ops.camera import Camera
from redepth.ops.geometry import relative_depth
from redepth.ops.warp import reproject, warp

TRIED, REACH = 33, 16.0
"""Lengths that are tried at a time, and the factor to either side of the middle one."""

ROUNDS = 3
"""Times that they are tried, each around the best one so far."""


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


def fit_length(
    lengths: Lengths, last: Tensor, image: Tensor, answer: Tensor, camera: Camera, motion: Tensor
) -> Lengths:
    """Return the lengths under which the last picture, carried along the motion, is most like this one.

    A grid around the length at which the median depth is 10 times the translation, made finer twice. A
    camera that only turns, or does not move, gives no length: they are returned unchanged.

    Args:
        lengths: of any length.
        last: (1, 3, H, W) the picture before.
        image: (1, 3, H, W) this picture.
        answer: (1, 1, H, W) raw output of the one before.
        camera: of both.
        motion: (4, 4), as for `ops.warp.reproject`.
    """
    way = float(motion[:3, 3].norm())
    if not way > 0:
        return lengths
    depth = lengths.of(1.0).depth(answer)
    best, reach = 10 * way / float(depth.median()), REACH
    for _ in range(ROUNDS):
        factors = torch.logspace(-1, 1, TRIED, base=reach, dtype=torch.float64)
        tried = [best * float(factor) for factor in factors]
        best = min(tried, key=lambda length: _difference(depth * length, last, image, camera, motion))
        reach = reach ** (4 / TRIED)
    return lengths.of(best)


def _difference(depth: Tensor, last: Tensor, image: Tensor, camera: Camera, motion: Tensor) -> float:
    """Return the mean absolute difference of the pictures; what was not seen before counts as all wrong."""
    seen = reproject(depth, camera, motion)
    missed = (warp(last, seen.back) - image).abs().mean(dim=1, keepdim=True)
    return float(torch.where(seen.valid, missed, 0.5).mean())
