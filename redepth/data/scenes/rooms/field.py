"""Terrain and cloth: a height y = h(x, z) that is a sum of waves, and where rays meet it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Field:
    r"""The heights of N scenes.

    .. math:: h(x, z) = b + \sum_j a_j \sin(k_j \cdot (x, z) + \varphi_j)

    Attributes:
        base: (N,) b.
        height: (N, J) amplitudes a.
        wave: (N, J, 2) wave vectors k.
        phase: (N, J).
    """

    base: Tensor
    height: Tensor
    wave: Tensor
    phase: Tensor

    def angles(self, x: Tensor, z: Tensor) -> Tensor:
        """Return k . (x, z) + phase of points (N, P), (N, J, P)."""
        return torch.baddbmm(self.phase[..., None], self.wave, torch.stack([x, z], dim=1))

    def above(self, p: Tensor) -> Tensor:
        """Return y - h of points (N, 3, P)."""
        waves = self.height[:, None] @ torch.sin(self.angles(p[:, 0], p[:, 2]))
        return p[:, 1] - self.base[:, None] - waves[:, 0]

    def normals(self, p: Tensor) -> Tensor:
        """Return (-dh/dx, 1, -dh/dz) at points (N, 3, P), not normalised."""
        slope = torch.einsum(
            "nj,njk,njp->nkp", self.height, self.wave, torch.cos(self.angles(p[:, 0], p[:, 2]))
        )
        return torch.stack([-slope[:, 0], torch.ones_like(slope[:, 0]), -slope[:, 1]], dim=1)

    @property
    def reach(self) -> Tensor:
        """The largest |h - b|, (N,)."""
        return self.height.abs().sum(dim=-1)


def flat_field(count: int, dtype: torch.dtype) -> Field:
    """Return a field without waves."""
    zeros = torch.zeros(count, 1, dtype=dtype)
    return Field(zeros[:, 0], zeros, torch.zeros(count, 1, 2, dtype=dtype), zeros)


def meet(field: Field, o: Tensor, d: Tensor, limit: Tensor, low: float, steps: int) -> Tensor:
    """Return t (N, P) where rays o + t d, (N, 3, P), first get below the field; infinity if they do not.

    The part of a ray between the highest and the lowest point of the field is searched in ``steps`` steps
    that grow with t, then by halving as often as that: h is exact to a millionth if ``steps`` is 20.
    """
    top, bottom = field.base + field.reach, field.base - field.reach
    oy, dy = o[:, 1], d[:, 1]
    inverse = 1 / torch.where(dy.abs() < 1e-9, 1e-9, dy)
    first, second = (top[:, None] - oy) * inverse, (bottom[:, None] - oy) * inverse
    start = torch.minimum(first, second).clamp(min=low)
    end = torch.maximum(torch.minimum(torch.maximum(first, second), limit), start)
    before, found = start, torch.full_like(start, torch.inf)
    after = found.clone()
    for k in range(1, steps + 1):
        t = start + (end - start) * (k / steps) ** 1.5
        new = (field.above(o + t[:, None] * d) < 0) & torch.isinf(found)
        after, found = torch.where(new, t, after), torch.where(new, before, found)
        before = t
    low_side, high_side = found, after
    for _ in range(min(steps, 20)):
        middle = torch.where(torch.isinf(found), 0.0, (low_side + high_side) / 2)
        below = field.above(o + middle[:, None] * d) < 0
        low_side, high_side = torch.where(below, low_side, middle), torch.where(below, middle, high_side)
    return torch.where(torch.isinf(found), torch.inf, (low_side + high_side) / 2)
