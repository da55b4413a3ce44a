"""Procedural relief scenes with exact depth: what the embedded models are trained and measured on.

A scene is a height field h(u, v) seen from above by an orthographic camera, z = 1 - h, with one light
from the upper half plane (so that bumps cannot be taken for dents), an albedo and a little noise. Two
domains:

- ``mid``, the narrow one that the embedded depth model is trained on: smooth bumps, coarse noise, domes;
- ``broad``, which the embedded prior is trained on: one or two of ten families of relief, more kinds of
  light, albedo and noise.

All numbers come from one explicit CPU generator, so a seed gives the same scenes on every machine up to
float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.ops.color import linear_to_srgb
from redepth.ops.geometry import ORTHOGRAPHIC, camera_facing, difference, normals_from_depth
from redepth.ops.shading import normalize

Domain = Literal["mid", "broad"]

DISPARITY_SCALE = 7.0
DISPARITY_MARGIN = 0.1


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        image: (B, 3, H, W) sRGB in [0, 1].
        depth: (B, 1, H, W) relative depth z = 1 - h > 0.
    """

    image: Tensor
    depth: Tensor

    def to(self, device: torch.device) -> Scenes:
        """Return a copy on the device."""
        return Scenes(self.image.to(device), self.depth.to(device))

    @property
    def disparity(self) -> Tensor:
        """D = 7 / z - 0.1, so that ``ops.geometry.relative_depth`` gives z back exactly."""
        return DISPARITY_SCALE / self.depth - DISPARITY_MARGIN


def scenes(count: int, domain: Domain, generator: Generator, *, height: int = 96, width: int = 96) -> Scenes:
    """Draw ``count`` scenes of a domain, (count, ., height, width)."""
    relief = _mid_relief if domain == "mid" else _broad_relief
    canvas = _Canvas(count, height, width, generator)
    h = relief(canvas)
    depth = (1.0 - h)[:, None]
    photo = _photograph(canvas, depth, domain)
    return Scenes(photo, depth)


class _Canvas:
    """Coordinates and random numbers of a batch: x (count, 1, W), y (count, H, 1).

    Random numbers are drawn on the CPU, one uniform after the other, and everything else happens on the
    device: so both give the same scenes, and in float64 every machine gives the same bytes once rounded.
    """

    def __init__(
        self,
        count: int,
        height: int,
        width: int,
        generator: Generator,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.count, self.height, self.width, self.generator = count, height, width, generator
        self.device, self.dtype = torch.device(device), dtype
        u, v = ORTHOGRAPHIC.axes(height, width, dtype=dtype, device=self.device)
        self.x = u.view(1, 1, -1).expand(count, 1, width)
        self.y = v.view(1, -1, 1).expand(count, height, 1)

    def part(self, count: int) -> _Canvas:
        """Return a canvas for some of the scenes, with the same stream of random numbers."""
        return _Canvas(count, self.height, self.width, self.generator, device=self.device, dtype=self.dtype)

    def zeros(self) -> Tensor:
        """A flat height field, (count, H, W)."""
        return torch.zeros(self.count, self.height, self.width, device=self.device, dtype=self.dtype)

    def rand(self, *size: int) -> Tensor:
        """Uniform numbers in [0, 1) of any shape."""
        return torch.rand(size, generator=self.generator, dtype=self.dtype).to(self.device)

    def randn(self, *size: int) -> Tensor:
        """Normal numbers of any shape, cut at 4.9, by the inverse of their distribution."""
        u = (2 * self.rand(*size) - 1).clamp(-1 + 1e-6, 1 - 1e-6)
        return math.sqrt(2) * torch.erfinv(u)

    def integers(self, below: int) -> Tensor:
        """One integer in [0, below) per scene, (count,), on the CPU."""
        return torch.randint(below, (self.count,), generator=self.generator)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers, (count, *shape, 1, 1)."""
        return low + (high - low) * self.rand(self.count, *shape, 1, 1)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """Numbers whose logarithm is uniform, (count, 1, 1)."""
        return torch.exp(self.uniform(math.log(low), math.log(high)))

    def sign(self, positive: float = 0.5) -> Tensor:
        """+1 with the given probability, else -1."""
        return 1.0 - 2.0 * (self.uniform(0, 1) >= positive)

    def rotated(self) -> tuple[Tensor, Tensor]:
        """Coordinates in a randomly rotated frame, each (count, H, W)."""
        angle = self.uniform(0, 2 * math.pi)
        cos, sin = torch.cos(angle), torch.sin(angle)
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin

    def noise(self, cells: int) -> Tensor:
        """Smooth noise of unit variance with about ``cells`` features along a side, (count, H, W)."""
        grid = self.randn(self.count, 1, cells + 3, cells + 3)
        size = (self.height, self.width)
        return F.interpolate(grid, size=size, mode="bicubic", align_corners=True)[:, 0]

    def some_noise(self, low: int, high: int) -> Tensor:
        """Noise at one scale for the whole batch, drawn between two numbers of cells."""
        cells = int(torch.randint(low, high + 1, (1,), generator=self.generator))
        return self.noise(cells)

    def blob(self, radius: tuple[float, float], stretch: float = 1.0) -> Tensor:
        """One Gaussian bump at a random place, (count, H, W), height 1."""
        cx, cy = self.uniform(-1.1, 1.1), self.uniform(-1.1, 1.1)
        angle = self.uniform(0, math.pi)
        cos, sin = torch.cos(angle), torch.sin(angle)
        dx, dy = self.x - cx, self.y - cy
        r = self.log_uniform(*radius)
        s = self.log_uniform(1.0, stretch) if stretch > 1 else torch.ones_like(r)
        a, b = (dx * cos + dy * sin) / (r * s), (dy * cos - dx * sin) / r * s
        return torch.exp(-0.5 * (a * a + b * b))

    def distance(self, spread: float = 1.1) -> Tensor:
        """Distance from a random centre, (count, H, W)."""
        dx = self.x - self.uniform(-spread, spread)
        dy = self.y - self.uniform(-spread, spread)
        return torch.sqrt(dx * dx + dy * dy + 1e-9)


def _gaussians(c: _Canvas) -> Tensor:
    h = c.zeros()
    for _ in range(14):
        h = h + c.sign() * c.uniform(0.3, 1) * c.blob((0.05, 0.35), stretch=2.0)
    return h


def _domes(c: _Canvas) -> Tensor:
    h = c.zeros()
    for _ in range(9):
        radius = c.uniform(0.12, 0.6)
        cap = torch.clamp(radius**2 - c.distance() ** 2, min=0.0)
        # The square root's slope is infinite at the rim; the small constant bounds it.
        h = torch.maximum(h, torch.sqrt(cap + 1e-3) - math.sqrt(1e-3))
    return h


def _ridges(c: _Canvas) -> Tensor:
    x, _ = c.rotated()
    phase = c.log_uniform(5, 22) * x + c.uniform(0, 2.5) * c.some_noise(2, 5)
    wave = torch.sin(phase)
    sharp = c.uniform(0, 1)
    return (1 - sharp) * wave - sharp * torch.abs(torch.sin(phase / 2))


def _tiles(c: _Canvas) -> Tensor:
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


def _carved(c: _Canvas) -> Tensor:
    return torch.tanh(c.uniform(1, 5) * c.some_noise(3, 10))


def _discs(c: _Canvas) -> Tensor:
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


def _pebbles(c: _Canvas) -> Tensor:
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


def _craters(c: _Canvas) -> Tensor:
    h = 0.5 * c.some_noise(2, 4)
    for _ in range(8):
        radius = c.log_uniform(0.08, 0.5)
        q = c.distance() / radius
        bowl = -torch.exp(-0.5 * (q / 0.6) ** 4)
        rim = 0.7 * torch.exp(-0.5 * ((q - 1) / 0.2) ** 2)
        h = h + radius * (bowl + rim) * 2.0
    return h


def _fractal(c: _Canvas) -> Tensor:
    gain = c.uniform(0.4, 0.62)
    return c.noise(3) + gain * c.noise(7) + gain**2 * c.noise(15) + gain**3 * c.noise(31)


def _heads(c: _Canvas) -> Tensor:
    """Ellipsoid with smaller bumps and hollows on it, as a carved head has."""
    x, y = c.rotated()
    a, b = c.uniform(0.45, 0.8), c.uniform(0.6, 1.0)
    body = torch.clamp(1 - (x / a) ** 2 - (y / b) ** 2, min=0.0)
    h = torch.sqrt(body + 2e-3) * 0.6
    for _ in range(9):
        h = h + 0.12 * c.sign() * c.blob((0.05, 0.15), stretch=1.6) * (body > 0)
    return h


def _smooth(c: _Canvas) -> Tensor:
    """Broad bumps, coarse noise, domes and some finer bumps, mixed at random: the narrow domain's relief."""
    smooth = c.zeros()
    for _ in range(5):
        smooth = smooth + c.uniform(0.3, 1) * c.blob((0.18, 0.5))
    fine = torch.zeros_like(smooth)
    for _ in range(8):
        fine = fine + c.sign(0.6) * c.uniform(0.3, 1) * c.blob((0.08, 0.18))
    parts = [smooth, c.some_noise(3, 6), _domes(c), fine]
    weights = c.uniform(0, 1, len(parts)) ** 2
    h = torch.stack([part / _slope(part) for part in parts], dim=1)
    return (weights * h).sum(dim=1)


FAMILIES: dict[str, Callable[[_Canvas], Tensor]] = {
    "smooth": _smooth,
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


def _slope(h: Tensor) -> Tensor:
    """Root mean square slope per unit of u and v, (B, 1, 1)."""
    step = 2.0 / max(h.shape[-2] - 1, 1)
    squares = difference(h, -1) ** 2 + difference(h, -2) ** 2
    return squares.mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-6) / step


def _with_slope(h: Tensor, slope: Tensor) -> Tensor:
    """Scale to an RMS slope, centre, and keep |h| below 0.6 so that z = 1 - h stays positive."""
    h = h - h.mean(dim=(1, 2), keepdim=True)
    h = h * (slope / _slope(h))
    peak = h.abs().amax(dim=(1, 2), keepdim=True)
    return h * (0.6 / peak.clamp(min=0.6))


def _mid_relief(c: _Canvas) -> Tensor:
    return _with_slope(_smooth(c), c.uniform(0.3, 0.65))


def _broad_relief(c: _Canvas) -> Tensor:
    """One family per scene, or two mixed; scenes of one family are drawn together."""
    names = list(FAMILIES)
    first, second = c.integers(len(names)), c.integers(len(names))
    share = c.uniform(0, 0.6) * (c.uniform(0, 1) < 0.5)
    h = c.zeros()
    first, second = first.to(c.device), second.to(c.device)
    for index, name in enumerate(names):
        for choice, weight in ((first, 1 - share), (second, share)):
            rows = torch.nonzero(choice == index)[:, 0]
            if len(rows) == 0:
                continue
            part = FAMILIES[name](c.part(len(rows)))
            h[rows] = h[rows] + weight[rows] * part / _slope(part)
    return _with_slope(h, c.uniform(0.3, 0.7))


def _photograph(c: _Canvas, depth: Tensor, domain: Domain) -> Tensor:
    """Shade the true surface by its own light: ambient + Lambert + Blinn-Phong highlight, times albedo."""
    broad = domain == "broad"
    normals = camera_facing(normals_from_depth(depth))
    light = _upper_light(c, 80.0 if broad else 50.0, (0.3, 1.5) if broad else (0.4, 0.95))
    cosine = torch.einsum("bchw,bc->bhw", normals, light).clamp(min=0.0)
    half = normalize(light + light.new_tensor([0.0, 0.0, 1.0]))
    highlight = torch.einsum("bchw,bc->bhw", normals, half).clamp(min=0.0)
    ambient = c.uniform(0.03, 0.2)
    shading = ambient + (1 - ambient) * cosine
    albedo = _broad_albedo(c) if broad else _plain_albedo(c)
    linear = albedo * shading[:, None]
    if broad:
        strength = c.uniform(0.0, 0.3) * (c.uniform(0, 1) < 0.5)
        linear = linear + (strength * highlight ** c.log_uniform(8, 60))[:, None]
    exposure = c.log_uniform(0.45, 1.5) if broad else c.uniform(0.8, 1.4)
    linear = linear * exposure[:, None]
    if broad:
        linear = linear * c.uniform(0.7, 1.0, 3)
    image = linear_to_srgb(linear.clamp(0.0, 1.0))
    sigma = c.uniform(0.0, 0.04 if broad else 0.01)[:, None]
    return (image + sigma * c.randn(*image.shape)).clamp(0.0, 1.0)


def _upper_light(c: _Canvas, spread: float, tangent: tuple[float, float]) -> Tensor:
    """Unit vectors (count, 3) to a light at azimuth 90 +- spread degrees and the tangent of its slant."""
    azimuth = torch.deg2rad(90 + c.uniform(-spread, spread))[:, 0, 0]
    slant = c.uniform(*tangent)[:, 0, 0]
    ones = torch.ones_like(slant)
    return normalize(torch.stack([slant * azimuth.cos(), slant * azimuth.sin(), ones], dim=1))


def _plain_albedo(c: _Canvas) -> Tensor:
    base = c.uniform(0.35, 0.8)
    tint = c.uniform(0.85, 1.0, 3)
    return base[:, None] * tint


def _broad_albedo(c: _Canvas) -> Tensor:
    """Plain, blotched or striped colour, (count, 3, H, W)."""
    base = c.uniform(0.25, 0.9)[:, None] * c.uniform(0.6, 1.0, 3)
    other = c.uniform(0.15, 0.9)[:, None] * c.uniform(0.6, 1.0, 3)
    x, _ = c.rotated()
    blotches = torch.sigmoid(c.uniform(1, 8) * c.some_noise(2, 8))
    stripes = torch.sigmoid(c.uniform(1, 8) * torch.sin(c.log_uniform(4, 25) * x))
    kind = c.uniform(0, 1)
    pattern = torch.where(kind < 0.3, blotches, stripes) * (kind < 0.45)
    strength = c.uniform(0.1, 0.7) * pattern
    return base * (1 - strength[:, None]) + other * strength[:, None]
