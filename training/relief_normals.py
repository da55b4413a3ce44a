"""A network from photo to normals: its training steps and its validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.data.scenes.synthetic import Domain, scenes
from redepth.ops.geometry import half_turn, normals_from_depth
from training.networks import SIZE
from training.relief_depth import VALIDATION_SCENES, VALIDATION_SEED, angles, with_mirrored


def predict_normals(model: Callable[..., Any], photo: Tensor) -> Tensor:
    """Return unit normals (N,3,S,S), in the frame of `normals_from_depth`, of photos in [0, 1].

    The network's own frame, which its weights were trained in, has x to the left and y down.
    """
    pictures = F.pixel_unshuffle(photo * 2 - 1, 4)
    out = model(pictures, torch.zeros(len(photo), device=photo.device)).sample
    return half_turn(F.normalize(F.pixel_shuffle(out.float(), 4), dim=1), dim=1)


def normals_steps(
    predict: Callable[..., Any], generator: Generator, batch: int, device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that computes the loss, 1 minus the mean cosine, of the next batch."""

    def step() -> Tensor:
        drawn = with_mirrored(scenes(batch // 2, "broad", generator, height=SIZE, width=SIZE)).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            found = predict_normals(predict, drawn.image)
        return 1 - (found * normals_from_depth(drawn.depth)).sum(dim=1).mean()

    return step


@torch.no_grad()
def validate_normals(model: Any, device: torch.device) -> dict[str, Any]:
    """Measure the normal error in degrees on fixed scenes of both domains."""
    found: dict[str, Any] = {}
    for domain in get_args(Domain):
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        drawn = scenes(VALIDATION_SCENES, domain, generator, height=SIZE, width=SIZE)
        normals = predict_normals(model, drawn.image.to(device)).cpu()
        found[domain] = {"normals": float(angles(normals, normals_from_depth(drawn.depth)).mean())}
    return found
