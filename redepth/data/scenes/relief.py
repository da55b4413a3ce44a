"""Families of relief: height fields h(u, v), drawn in batches on a canvas.

`NARROW` has the family that the embedded depth model is trained on, `BROAD` those of the embedded priors. A
family returns (count, H, W) at any scale; `with_slope` scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from redepth.data.scenes.canvas import Canvas, rms_slope, with_slope


def _gaussians(c: Canvas) -> Tensor:
    h = c.zeros()
    for _ in range(14):
        h = h + c.sign() * c.uniform(0.3, 1) * c.blob((0.05, 0.35), stretch=2.0)
    return h


def _domes(c: Canvas) -> Tensor:
    h = c.zeros()
    for _ in range(9):
        radius = c.uniform(0.12, 0.6)
        cap = torch.clamp(radius**2 - c.distance() ** 2, min=0.0)
        # The square root's slope is infinite at the rim; the small constant bounds it.
        h = torch.maximum(h, torch.sqrt(cap + 1e-3) - math.sqrt(1e-3))
    return h


def _ridges(c: Canvas) -> Tensor:
    x, _ = c.rotated()
    phase = c.log_uniform(5, 22) * x + c.uniform(0, 2.5) * c.some_noise(2, 5)
    wave = torch.sin(phase)
    sharp = c.uniform(0, 1)
    return (1 - sharp) * wave - sharp * torch.abs(torch.sin(phase / 2))


def _tiles(c: Canvas) -> Tensor:
    x, y = c.rotated()
    rows = c.log_uniform(1.5, 5)
    aspect = c.log_uniform(1.0, 2.6)
    row = torch.floor(y * rows)
    column = x * rows / aspect + 0.5 * torch.remainder(row, 2) * (c.uniform(0, 1) < 0.7)
    fx = torch.abs(torch.remainder(column, 1) - 0.5) * 2
    fy = torch.abs(torch.remainder(y * rows, 1) - 0.5) * 2
    soft = c.uniform(0.05, 0.2)
    groove = torch.sigmoid((0.85 - fx) / (soft / aspect)) * torch.sigmoid((0.85 - fy) / soft)
    tilt = torch.sin(12.9898 * torch.floor(column) + 78.233 * row)
    return groove * (1 + 0.25 * tilt) + 0.06 * c.some_noise(6, 20)


def _carved(c: Canvas) -> Tensor:
    return torch.tanh(c.uniform(1, 5) * c.some_noise(3, 10))


def _discs(c: Canvas) -> Tensor:
    h = c.zeros()
    inner = c.some_noise(10, 24)
    for _ in range(6):
        radius, soft = c.uniform(0.15, 0.5), c.uniform(0.02, 0.05)
        d = c.distance()
        plate = torch.sigmoid((radius - d) / soft)
        rim = torch.exp(-0.5 * ((d - 0.88 * radius) / (0.05 * radius + 0.01)) ** 2)
        disc = plate * (1 + 0.3 * rim + 0.12 * inner * torch.sigmoid((0.75 * radius - d) / soft))
        h = torch.maximum(h, disc)
    return h


def _pebbles(c: Canvas) -> Tensor:
    count = 22
    first = c.zeros() + 9.0
    second = first.clone()
    zoom = c.log_uniform(0.7, 2.0)
    for _ in range(count):
        dx = c.x - zoom * c.uniform(-1.1, 1.1)
        dy = c.y - zoom * c.uniform(-1.1, 1.1)
        d = dx * dx + dy * dy
        second = torch.minimum(second, torch.maximum(first, d))
        first = torch.minimum(first, d)
    roundness = 1 - first / second.clamp(min=1e-6)
    return torch.sqrt(roundness + 1e-3) + 0.05 * c.some_noise(6, 16)


def _craters(c: Canvas) -> Tensor:
    h = 0.5 * c.some_noise(2, 4)
    for _ in range(8):
        radius = c.log_uniform(0.08, 0.5)
        q = c.distance() / radius
        bowl = -torch.exp(-0.5 * (q / 0.6) ** 4)
        rim = 0.7 * torch.exp(-0.5 * ((q - 1) / 0.2) ** 2)
        h = h + radius * (bowl + rim) * 2.0
    return h


def _fractal(c: Canvas) -> Tensor:
    gain = c.uniform(0.4, 0.62)
    return c.noise(3) + gain * c.noise(7) + gain**2 * c.noise(15) + gain**3 * c.noise(31)


def _heads(c: Canvas) -> Tensor:
    """Ellipsoid with smaller bumps and hollows on it, as a carved head has."""
    x, y = c.rotated()
    a, b = c.uniform(0.45, 0.8), c.uniform(0.6, 1.0)
    body = torch.clamp(1 - (x / a) ** 2 - (y / b) ** 2, min=0.0)
    h = torch.sqrt(body + 2e-3) * 0.6
    for _ in range(9):
        h = h + 0.12 * c.sign() * c.blob((0.05, 0.15), stretch=1.6) * (body > 0)
    return h


def smooth(c: Canvas) -> Tensor:
    """Broad bumps, coarse noise, domes and some finer bumps, mixed at random: the narrow domain's relief."""
    smooth = c.zeros()
    for _ in range(5):
        smooth = smooth + c.uniform(0.3, 1) * c.blob((0.18, 0.5))
    fine = torch.zeros_like(smooth)
    for _ in range(8):
        fine = fine + c.sign(0.6) * c.uniform(0.3, 1) * c.blob((0.08, 0.18))
    parts = [smooth, c.some_noise(3, 6), _domes(c), fine]
    weights = c.uniform(0, 1, len(parts)) ** 2
    h = torch.stack([part / rms_slope(part) for part in parts], dim=1)
    return (weights * h).sum(dim=1)


Family = Callable[[Canvas], Tensor]

NARROW: dict[str, Family] = {"smooth": smooth}
BROAD: dict[str, Family] = {
    "smooth": smooth,
    "gaussians": _gaussians,
    "domes": _domes,
    "ridges": _ridges,
    "tiles": _tiles,
    "carved": _carved,
    "discs": _discs,
    "pebbles": _pebbles,
    "craters": _craters,
    "fractal": _fractal,
    "heads": _heads,
}


def narrow_relief(c: Canvas) -> Tensor:
    """Draw the depth model's own kind of relief at an RMS slope of 0.3 to 0.65, (count, H, W)."""
    return with_slope(smooth(c), c.uniform(0.3, 0.65))


def broad_relief(c: Canvas) -> Tensor:
    """Draw one family of `BROAD` per scene, or two mixed, at an RMS slope of 0.3 to 0.7, (count, H, W)."""
    h = of_families(c, BROAD, broad_parts(c))
    return with_slope(h, c.uniform(0.3, 0.7))


def broad_parts(c: Canvas) -> list[tuple[Tensor, Tensor]]:
    """Draw two families of `BROAD` per scene, (count,), and their shares, (count, 1, 1), half of them 1."""
    first, second = c.integers(len(BROAD)), c.integers(len(BROAD))
    share = c.uniform(0, 0.6) * (c.uniform(0, 1) < 0.5)
    return [(first, 1 - share), (second, share)]


def of_families(c: Canvas, families: dict[str, Family], parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum parts of unit RMS slope, each (family of every scene, weight); a family is drawn at once."""
    h = c.zeros()
    for index, family in enumerate(families.values()):
        for choice, weight in parts:
            rows = torch.nonzero(choice == index)[:, 0].to(c.device)
            if len(rows) == 0:
                continue
            part = family(c.part(len(rows)))
            h[rows] = h[rows] + weight[rows] * part / rms_slope(part)
    return h
