"""Families of relief: height fields h(u, v), drawn in batches on a canvas by one stream of random numbers.

Three tables: `NARROW` is all that the embedded depth model has seen, `BROAD` what the embedded priors have
seen; `UNSEEN_RELIEF` and `UNSEEN_SHAPES` are for measuring only, nothing is trained on them. A family returns
(count, H, W) at any scale; `with_slope` brings it to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.ops.geometry import ORTHOGRAPHIC, difference


class Canvas:
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

    def part(self, count: int) -> Canvas:
        """Return a canvas for some of the scenes, with the same stream of random numbers."""
        return Canvas(count, self.height, self.width, self.generator, device=self.device, dtype=self.dtype)

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

    def whole(self, low: int, high: int) -> Tensor:
        """Whole numbers from low to high, (count, 1, 1)."""
        return torch.floor(self.uniform(low, high + 1))

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


def rms_slope(h: Tensor) -> Tensor:
    """Root mean square slope per unit of u and v, (B, 1, 1)."""
    step = 2.0 / max(h.shape[-2] - 1, 1)
    squares = difference(h, -1) ** 2 + difference(h, -2) ** 2
    return squares.mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-6) / step


def with_slope(h: Tensor, slope: Tensor) -> Tensor:
    """Scale to an RMS slope, centre, and keep |h| below 0.6 so that z = 1 - h stays positive."""
    h = h - h.mean(dim=(1, 2), keepdim=True)
    h = h * (slope / rms_slope(h))
    peak = h.abs().amax(dim=(1, 2), keepdim=True)
    return h * (0.6 / peak.clamp(min=0.6))


# --- seen in training -----------------------------------------------------------------------------


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


def _smooth(c: Canvas) -> Tensor:
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


# --- never trained on: continuous relief ------------------------------------------------------------


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


# --- never trained on: shapes on a ground -----------------------------------------------------------


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


Family = Callable[[Canvas], Tensor]

NARROW: dict[str, Family] = {"smooth": _smooth}
BROAD: dict[str, Family] = {
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


def narrow_relief(c: Canvas) -> Tensor:
    """Draw the depth model's own kind of relief at an RMS slope of 0.3 to 0.65, (count, H, W)."""
    return with_slope(_smooth(c), c.uniform(0.3, 0.65))


def broad_relief(c: Canvas) -> Tensor:
    """Draw one family of `BROAD` per scene, or two mixed, at an RMS slope of 0.3 to 0.7, (count, H, W)."""
    first, second = c.integers(len(BROAD)), c.integers(len(BROAD))
    share = c.uniform(0, 0.6) * (c.uniform(0, 1) < 0.5)
    h = of_families(c, BROAD, [(first, 1 - share), (second, share)])
    return with_slope(h, c.uniform(0.3, 0.7))


def shifted_relief(c: Canvas, families: dict[str, Family], strength: float) -> Tensor:
    """Mix the narrow relief with a share of a family that nothing was trained on, (count, H, W).

    Args:
        c: canvas.
        families: `UNSEEN_RELIEF` or `UNSEEN_SHAPES`.
        strength: 0 for the narrow relief alone, 1 for the family alone; the RMS slope is drawn as for
            the narrow relief.
    """
    slope, narrow = c.uniform(0.3, 0.65), _smooth(c)
    choice, share = c.integers(len(families)), c.zeros()[:, :1, :1] + strength
    h = of_families(c, families, [(choice, share)])
    return with_slope(h + (1 - strength) * narrow / rms_slope(narrow), slope)


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
