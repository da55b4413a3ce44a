"""The canvas of procedural scenes: coordinates, seeded random numbers and noise for a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.ops.camera import ORTHOGRAPHIC
from redepth.ops.geometry import difference


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
