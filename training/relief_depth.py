"""The depth model of relief: its training steps and its validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Generator, Tensor

from redepth.data.scenes.synthetic import Domain, Scenes, scenes
from redepth.depth_models.depth_anything import DepthAnything
from redepth.ops.geometry import normals_from_depth, relative_depth
from training.networks import SIZE

VALIDATION_SEED, VALIDATION_SCENES = 5_000, 32

DEPTH_SHAPES = ((0.1, 128, 160, 8), (0.2, 160, 128, 8), (0.3, 192, 192, 4), (1.0, SIZE, SIZE, 16))
"""Cumulative share of the training steps, height, width and pictures of a batch."""


def depth_loss(disparity: Tensor, batch: Scenes) -> Tensor:
    """L1 + scale-and-shift-invariant + gradient + normal losses, each of order one."""
    target = batch.disparity
    error = disparity - target
    spread = target.std(dim=(1, 2, 3), keepdim=True)
    centred = error - error.mean(dim=(2, 3), keepdim=True)
    gradient = sum(torch.diff(error, dim=d).abs().mean() for d in (-1, -2))
    n = normals_from_depth(relative_depth(disparity.clamp(min=0.05)))
    normal = 1 - (n * normals_from_depth(batch.depth)).sum(dim=1)
    return 0.3 * error.abs().mean() + (centred / spread).abs().mean() + 2 * gradient + 4 * normal.mean()


def depth_steps(
    model: Any, generator: Generator, batch: int, device: torch.device, domain: Domain = "mid"
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    depth_model = DepthAnything()
    depth_model.use(model, device)

    def step() -> Tensor:
        # Photos have all shapes: one batch in five is wider, one in ten larger than the square ones.
        kind = float(torch.rand((), generator=generator))
        height, width, count = next(shape for share, *shape in DEPTH_SHAPES if kind < share)
        drawn = with_mirrored(scenes(count // 2, domain, generator, height=height, width=width))
        drawn = drawn.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = depth_model.encode(drawn.image)
        # The decoder stays in float32: 8 bits of mantissa would quantise the normals.
        features = features.with_maps([w.float() for w in features.maps])
        return depth_loss(depth_model.decode(features), drawn)

    return step


def with_mirrored(batch: Scenes) -> Scenes:
    """Add each scene mirrored left to right; lights stay in the upper half plane."""
    flip: Callable[[Tensor], Tensor] = lambda x: torch.cat([x, x.flip(-1)])  # noqa: E731
    return Scenes(flip(batch.image), flip(batch.depth))


@torch.no_grad()
def validate_depth(model: Any, device: torch.device) -> dict[str, Any]:
    """Measure SI-log and normal error on fixed scenes of both domains."""
    depth_model = DepthAnything()
    depth_model.use(model, device)
    found: dict[str, Any] = {}
    for domain in get_args(Domain):
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        drawn = scenes(VALIDATION_SCENES, domain, generator, height=SIZE, width=SIZE)
        depth = relative_depth(depth_model.decode(depth_model.encode(drawn.image.to(device))).cpu())
        logs = depth.log() - drawn.depth.log()
        found[domain] = {
            "silog": float(100 * logs.std(dim=(1, 2, 3)).mean()),
            "normals": float(angles(normals_from_depth(depth), normals_from_depth(drawn.depth)).mean()),
        }
    return found


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles in degrees between unit normals, (B,3,H,W) each."""
    return torch.rad2deg(torch.acos((a * b).sum(dim=1).clamp(-1, 1)))
