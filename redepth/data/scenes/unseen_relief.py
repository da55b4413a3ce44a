"""Families of relief that no embedded model is trained on: they measure how models generalise.

`UNSEEN_RELIEF` is continuous relief, `UNSEEN_SHAPES` shapes on a ground. A family returns (count, H, W) at
any scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from redepth.data.scenes.canvas import Canvas, rms_slope, with_slope
from redepth.data.scenes.relief import Family, of_families, smooth

# --- continuous relief ----------------------------------------------------------------------------


def _folds(c: Canvas) -> Tensor:
    """Folds of cloth that radiate from a point and fan out."""
    cx, cy = c.uniform(-1.6, 1.6), c.uniform(-1.6, 1.6)
    dx, dy = c.x - cx, c.y - cy
    r, angle = torch.sqrt(dx * dx + dy * dy + 1e-3), torch.atan2(dy, dx)
    count = c.whole(5, 14)
    phase = count * angle + c.uniform(0.5, 2.0) * c.some_noise(2, 4)
    crest = torch.sqrt(torch.sin(phase) ** 2 + c.uniform(0.02, 0.3))
    return crest * r / (0.4 + r) + 0.3 * c.noise(2)


def _dunes(c: Canvas) -> Tensor:
    """Waves with a long windward and a short leeward slope, their crests winding."""
    x, _ = c.rotated()
    phase = c.log_uniform(0.8, 2.4) * x + c.uniform(0.15, 0.4) * c.some_noise(2, 4)
    t, lee = torch.remainder(phase, 1.0), c.uniform(0.15, 0.35)
    wave = torch.minimum(t / (1 - lee), (1 - t) / lee)
    return wave * wave * (3 - 2 * wave) + 0.15 * c.some_noise(3, 6)


def _ripples(c: Canvas) -> Tensor:
    """Rings around a few places that run through one another, as on water."""
    h = c.zeros()
    for _ in range(3):
        r = c.distance(1.4)
        h = h + c.uniform(0.3, 1) * torch.cos(c.log_uniform(7, 18) * r + c.uniform(0, 6.3)) * torch.exp(-r)
    return h


def _strokes(c: Canvas) -> Tensor:
    """Rounded strokes raised from a plate, as embossed writing."""
    h = c.zeros()
    for _ in range(7):
        width = c.uniform(0.07, 0.16)
        x0, y0, angle = c.uniform(-1, 1), c.uniform(-1, 1), c.uniform(0, 2 * math.pi)
        length, bend = c.uniform(0.3, 0.9), c.uniform(-0.6, 0.6)
        dx, dy = c.x - x0, c.y - y0
        along = (dx * torch.cos(angle) + dy * torch.sin(angle)).clamp(-length, length)
        # A parabola stands in for a brush stroke; the distance is to its point of the same abscissa.
        off_x = dx - along * torch.cos(angle) + bend * along**2 * torch.sin(angle)
        off_y = dy - along * torch.sin(angle) - bend * along**2 * torch.cos(angle)
        q = (off_x**2 + off_y**2) / width**2
        h = torch.maximum(h, torch.sqrt(torch.clamp(1 - q, min=0.0) + 0.02) - math.sqrt(0.02))
    return h + 0.05 * c.some_noise(2, 5)


def _weave(c: Canvas) -> Tensor:
    """Strands that pass over and under one another, as in a basket."""
    x, y = c.rotated()
    n = c.log_uniform(1.5, 4.0)
    x, y = n * x + 0.1 * c.some_noise(2, 4), n * y
    over = torch.cos(math.pi * x) * torch.cos(math.pi * y)
    warp = torch.abs(torch.cos(math.pi * (x + 0.5)))
    weft = torch.abs(torch.cos(math.pi * (y + 0.5)))
    soft = torch.sqrt(torch.stack([warp + 0.5 * over, weft - 0.5 * over]).amax(dim=0).clamp(min=0.0) + 0.03)
    return soft


def _hammered(c: Canvas) -> Tensor:
    """Round dents side by side, as in beaten metal: the lowest of many paraboloids."""
    h = c.zeros() + 9.0
    zoom = c.log_uniform(0.7, 1.3)
    for _ in range(20):
        dx, dy = c.x - zoom * c.uniform(-1.3, 1.3), c.y - zoom * c.uniform(-1.3, 1.3)
        h = torch.minimum(h, dx * dx + dy * dy + c.uniform(0, 0.05))
    return h / zoom**2


def _shells(c: Canvas) -> Tensor:
    """Logarithmic spirals around a raised centre, as on a snail's shell."""
    cx, cy = c.uniform(-0.7, 0.7), c.uniform(-0.7, 0.7)
    dx, dy = c.x - cx, c.y - cy
    r, angle = torch.sqrt(dx * dx + dy * dy + 4e-3), torch.atan2(dy, dx)
    arms = c.sign() * c.whole(1, 3)
    wave = torch.cos(c.uniform(5, 10) * torch.log(r) + arms * angle)
    return r * wave / (0.3 + r) - c.uniform(0.1, 0.5) * r


# --- shapes on a ground ---------------------------------------------------------------------------


def _placed(c: Canvas, count: int, shape: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Put turned and scaled copies of a shape of radius 1 on a ground, the highest wins."""
    h = c.zeros()
    for _ in range(count):
        radius, angle = c.uniform(0.25, 0.6), c.uniform(0, 2 * math.pi)
        dx, dy = (c.x - c.uniform(-1, 1)) / radius, (c.y - c.uniform(-1, 1)) / radius
        cos, sin = torch.cos(angle), torch.sin(angle)
        h = torch.maximum(h, radius * shape(dx * cos + dy * sin, dy * cos - dx * sin))
    return h


def _rounded(inside: Tensor) -> Tensor:
    """Round what falls from 1 to 0 at a rim into a slope that ends there without a step."""
    return torch.sqrt(torch.clamp(inside, min=0.0) + 0.03) - math.sqrt(0.03)


def _rings(c: Canvas) -> Tensor:
    tube = c.uniform(0.2, 0.4)
    return _placed(c, 5, lambda x, y: tube * _rounded(1 - ((torch.hypot(x, y) - 1 + tube) / tube) ** 2))


def _rods(c: Canvas) -> Tensor:
    width = c.uniform(0.2, 0.4)

    def rod(x: Tensor, y: Tensor) -> Tensor:
        past = torch.relu(torch.abs(x) - 1 + width)
        return width * _rounded(1 - (past**2 + y**2) / width**2)

    return _placed(c, 7, rod)


def _cones(c: Canvas) -> Tensor:
    return _placed(c, 6, lambda x, y: 1.05 - torch.sqrt(torch.clamp(x**2 + y**2, max=1.0) + 0.01)).clamp(
        min=0.0
    )


def _pyramids(c: Canvas) -> Tensor:
    power = c.uniform(4, 9)
    return _placed(
        c, 5, lambda x, y: torch.relu(1 - (x.abs() ** power + y.abs() ** power + 1e-4) ** (1 / power))
    )


def _superellipsoids(c: Canvas) -> Tensor:
    power = c.uniform(2.5, 5)
    return 0.6 * _placed(c, 5, lambda x, y: _rounded(1 - x.abs() ** power - (y.abs() * 1.4) ** power))


def _stars(c: Canvas) -> Tensor:
    points, depth = c.whole(3, 7), c.uniform(0.15, 0.35)

    def star(x: Tensor, y: Tensor) -> Tensor:
        rim = 1 - depth + depth * torch.cos(points * torch.atan2(y, x))
        return 0.6 * _rounded(1 - (x**2 + y**2) / rim**2)

    return _placed(c, 5, star)


UNSEEN_RELIEF: dict[str, Family] = {
    "folds": _folds,
    "dunes": _dunes,
    "ripples": _ripples,
    "strokes": _strokes,
    "weave": _weave,
    "hammered": _hammered,
    "shells": _shells,
}
UNSEEN_SHAPES: dict[str, Family] = {
    "rings": _rings,
    "rods": _rods,
    "cones": _cones,
    "pyramids": _pyramids,
    "superellipsoids": _superellipsoids,
    "stars": _stars,
}


def shifted_relief(c: Canvas, families: dict[str, Family], strength: float) -> Tensor:
    """Mix the narrow relief with a share of a family of this module, (count, H, W).

    Args:
        c: canvas.
        families: `UNSEEN_RELIEF` or `UNSEEN_SHAPES`.
        strength: 0 for the narrow relief alone, 1 for the family alone; the RMS slope is drawn as for
            the narrow relief.
    """
    slope, narrow = c.uniform(0.3, 0.65), smooth(c)
    choice, share = c.integers(len(families)), c.zeros()[:, :1, :1] + strength
    h = of_families(c, families, [(choice, share)])
    return with_slope(h + (1 - strength) * narrow / rms_slope(narrow), slope)
