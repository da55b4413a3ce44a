"""Procedural relief scenes with exact depth, for training and measuring the embedded models.

A scene is a height field h(u, v) seen from above by an orthographic camera, z = 1 - h, with light from the
upper half plane, an albedo and a camera (`data.scenes.relief`, `data.scenes.photographs`). Two domains are
for training (`scenes`):

- ``mid``, the narrow one of the embedded depth model: smooth bumps, coarse noise, domes;
- ``broad``, the priors': one or two of eleven families of relief, more kinds of light, albedo and noise.

Splits for measuring (`benchmark_scenes`) shift one factor of the narrow domain at a time. No model is trained
on their families of relief and shapes (`data.scenes.unseen_relief`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from redepth.data.scenes import photographs, relief
from redepth.data.scenes.canvas import Canvas
from redepth.data.scenes.unseen_relief import UNSEEN_RELIEF, UNSEEN_SHAPES, shifted_relief
from redepth.errors import ConfigError, nearest
from redepth.ops.geometry import normals_from_depth

Domain = Literal["mid", "broad"]
Split = Literal["in-domain", "relief", "shapes", "lighting", "texture", "degraded", "sky"]
SPLITS: tuple[Split, ...] = get_args(Split)

DISPARITY_SCALE = 7.0
DISPARITY_MARGIN = 0.1


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        image: (B, 3, H, W) sRGB in [0, 1].
        depth: (B, 1, H, W) relative depth z = 1 - h > 0; infinite in the sky.
        sky: (B, 1, H, W) bool, where the sky is; None where there is none.
        albedo: (B, 3, H, W) linear, of the surface; None where it is not kept.
    """

    image: Tensor
    depth: Tensor
    sky: Tensor | None = None
    albedo: Tensor | None = None

    def to(self, device: torch.device) -> Scenes:
        """Return a copy on the device."""
        return Scenes(
            self.image.to(device),
            self.depth.to(device),
            None if self.sky is None else self.sky.to(device),
            None if self.albedo is None else self.albedo.to(device),
        )

    @property
    def disparity(self) -> Tensor:
        """D = 7 / z - 0.1, so that ``ops.geometry.relative_depth`` gives z back exactly; 0 in the sky."""
        return (DISPARITY_SCALE / self.depth - DISPARITY_MARGIN).clamp(min=0.0)

    @property
    def normals(self) -> Tensor:
        """Unit normals of the sampled surface, x right, y up, z to the viewer; (B,3,H,W), 0 in the sky."""
        if self.sky is None:
            return normals_from_depth(self.depth)
        known = torch.where(self.sky, torch.nan, self.depth)
        return torch.where(self.sky, 0.0, normals_from_depth(known))

    def sha256(self) -> str:
        """Return a hash of the pictures, as 8-bit ones, and of the depth, as float32."""
        image = (self.image * 255).round().to(torch.uint8).cpu().contiguous().numpy()
        depth = self.depth.float().cpu().contiguous().numpy()
        return hashlib.sha256(image.tobytes() + depth.astype("<f4").tobytes()).hexdigest()


def scenes(count: int, domain: Domain, generator: Generator, *, height: int = 96, width: int = 96) -> Scenes:
    """Draw ``count`` scenes of a training domain, (count, ., height, width)."""
    c = Canvas(count, height, width, generator)
    narrow = domain == "mid"
    h = relief.narrow_relief(c) if narrow else relief.broad_relief(c)
    depth = (1.0 - h)[:, None]
    photograph = photographs.narrow_photograph if narrow else photographs.broad_photograph
    return Scenes(photograph(c, depth), depth)


def benchmark_scenes(
    count: int,
    split: Split,
    generator: Generator,
    *,
    strength: float = 1.0,
    height: int = 96,
    width: int = 96,
    device: torch.device | str = "cpu",
) -> Scenes:
    """Draw ``count`` scenes of a split of the benchmark, (count, ., height, width).

    Random numbers come from the CPU. Everything is computed in float64 and rounded at the end, the picture to
    8 bits per channel: a seed gives the same bytes on every machine and device that has float64.

    Args:
        count: number of scenes.
        split: ``in-domain``, or the factor that is shifted: ``relief`` and ``shapes`` (the geometry, to
            families that no model is trained on), ``lighting``, ``texture``, ``degraded``, ``sky``.
        generator: of the CPU.
        strength: of the shift, 0 (none) to 1.
        height: in pixels.
        width: in pixels.
        device: of the computation and the result.

    Raises:
        ConfigError: for an unknown split or a strength outside [0, 1].
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split '{split}'{nearest(split, SPLITS)} (valid: {', '.join(SPLITS)})")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength {strength:g} is outside [0, 1]")
    c = Canvas(count, height, width, generator, device=device, dtype=torch.float64)
    unseen = {"relief": UNSEEN_RELIEF, "shapes": UNSEEN_SHAPES}
    h = shifted_relief(c, unseen[split], strength) if split in unseen else relief.narrow_relief(c)
    depth = (1.0 - h)[:, None]
    image, albedo = photographs.shifted_photograph(c, depth, split, strength)
    sky = None
    if split == "sky":
        image, sky = photographs.with_sky(c, image, strength)
        depth = torch.where(sky, torch.inf, depth)
    return Scenes((image * 255).round().float() / 255, depth.float(), sky, albedo.float())
