"""Materials: albedo patterns in three dimensions, and a highlight, of every thing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redepth.data.scenes.rooms.stage import Stage

PATTERNS = ("plain", "checks", "stripes", "noise", "patches", "bricks")
SHARES = (0.34, 0.1, 0.12, 0.22, 0.12, 0.1)
WAVES = 5


class Skins:
    """The materials of N scenes, (N, S, ...)."""

    def __init__(self, stage: Stage) -> None:
        n, s = stage.count, stage.skins
        base = stage.log_uniform(0.08, 0.9, s, 1)
        tint = stage.uniform(0.0, 1.0, s, 1) ** 2
        first = base * (1 - tint * stage.rand(s, 3))
        other = stage.log_uniform(0.08, 0.9, s, 1) * (1 - tint * stage.rand(s, 3))
        # Most patterns are two tones of one colour, the others two colours.
        shade = first * stage.uniform(0.45, 1.5, s, 1)
        second = torch.where(stage.rand(s, 1) < 0.5, shade, other).clamp(max=0.95)
        limits = torch.tensor(SHARES).cumsum(0)
        pattern = torch.searchsorted(limits, stage.rand(s).float()).clamp(max=len(PATTERNS) - 1)
        cells = stage.log_uniform(1.2, 9.0, s, 1)
        offset = stage.uniform(-50, 50, s, 3)
        sharp = stage.uniform(1.0, 6.0, s, 1)
        grain = stage.uniform(0, 0.35, s, 1) ** 2
        gloss = stage.uniform(0, 0.5, s, 1) * (stage.rand(s, 1) < 0.35)
        exponent = stage.log_uniform(8, 90, s, 1)
        self.numbers = torch.cat(
            [first, second, pattern[..., None].to(first), cells, offset, sharp, grain, gloss, exponent],
            dim=-1,
        )
        direction = torch.nn.functional.normalize(stage.rand(WAVES, 3) - 0.5, dim=-1)
        self.wave = direction * stage.uniform(0.5, 3.0, WAVES, 1) * math.pi
        self.phase = stage.uniform(0, 2 * math.pi, WAVES)
        self.count = n

    def at(self, p: Tensor, skin: Tensor, pitch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return albedo (N, 3, P), gloss and exponent (N, P) of points.

        Args:
            p: (N, 3, P) points in the coordinates of their things, in metres.
            skin: (N, P) numbers of their materials.
            pitch: (N, P) metres that a pixel sees there: finer patterns fade to their mean.
        """
        rows = torch.arange(self.count)[:, None]
        of = self.numbers[rows, skin].permute(2, 0, 1)
        first, second, (pattern, cells) = of[0:3], of[3:6], of[6:8]
        sharp, grain, gloss, exponent = of[11:15]
        q = p.transpose(0, 1) * cells + of[8:11]
        noise = self._noise(q)
        share = torch.full_like(cells, 0.0)
        for number, value in enumerate(
            (None, _checks(q), _stripes(q, noise), noise, _patches(q), _bricks(q))
        ):
            if value is not None:
                crisp = value if number in (4, 5) else torch.sigmoid(sharp * value * 2)
                share = torch.where(pattern == number, crisp, share)
        fade = 1 / (1 + (2.2 * pitch * cells) ** 4)
        share = torch.where(pattern == 0, 0.0, 0.5 + (share - 0.5) * fade)
        albedo = torch.lerp(first, second, share)
        albedo = albedo * (1 + grain * fade * noise)
        return albedo.clamp(0.02, 0.98).transpose(0, 1), gloss, exponent

    def _noise(self, q: Tensor) -> Tensor:
        """A sum of waves that bend one another, (N, P), about -2 to 2."""
        total = torch.zeros_like(q[0])
        for k in range(WAVES):
            wave = self.wave[:, k, :, None]
            angle = q[0] * wave[:, 0] + q[1] * wave[:, 1] + q[2] * wave[:, 2] + self.phase[:, k, None]
            total = total + torch.sin(angle + 1.3 * total)
        return total * 0.6


def _checks(q: Tensor) -> Tensor:
    return 8 * torch.sin(math.pi * q[0]) * torch.sin(math.pi * q[1] + 0.7) * torch.sin(math.pi * q[2])


def _stripes(q: Tensor, noise: Tensor) -> Tensor:
    return 2 * torch.sin(2 * math.pi * (q[0] + 0.5 * q[1]) + 0.5 * noise)


def _hash(cell: Tensor) -> Tensor:
    return torch.remainder(torch.sin(cell[0] * 12.9898 + cell[1] * 78.233 + cell[2] * 37.719) * 43758.547, 1)


def _patches(q: Tensor) -> Tensor:
    return _hash(torch.floor(0.5 * q + 1e-3))


def _bricks(q: Tensor) -> Tensor:
    row = torch.floor(q[1] * 1.5)
    shift = torch.stack([0.6 * q[0] + 0.5 * torch.remainder(row, 2), q[1] * 1.5, 0.6 * q[2]])
    part = torch.remainder(shift, 1)
    edge = torch.minimum(part, 1 - part)
    mortar = (edge[0] < 0.04) | (edge[1] < 0.06) | (edge[2] < 0.04)
    return torch.where(mortar, 1.0, 0.35 * _hash(torch.floor(shift)))
