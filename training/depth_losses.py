"""Losses of a depth model of photos: disparity, its edges, normals, log depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.data.scenes.synthetic import Scenes
from redepth.ops.camera import Camera
from redepth.ops.geometry import normals_from_depth, relative_depth

SCALES = (1, 2, 4)
LEAST_SPREAD = 0.4
"""Least unit of errors: relief has a spread of 0.2, rooms have 3.5, and neither may outweigh the other."""

LARGEST_STEP = 0.12
"""Where the log depth of neighbours differs by more, it is an edge, which has no normal."""

NEAREST_TO_FAR = 0.05
"""Least disparity that normals and log depth are computed from."""


def photo_depth_loss(disparity: Tensor, batch: Scenes, camera: Camera) -> Tensor:
    """Return the sum of the losses of a predicted disparity (B, 1, H, W), each of order one.

    1. The mean |D - D*| in units of the spread of D*: it ties the disparity of the sky to 0.
    2. The same but for a shift.
    3. The gradient of 2 at three scales (after Ranftl et al., arXiv 1907.01341).
    4. 1 minus the cosine of the normals, away from edges and sky.
    5. The spread of the error of log depth outside of the sky: the metric SI-log, without alignment.
    """
    target = batch.disparity
    sky = torch.zeros_like(target, dtype=torch.bool) if batch.sky is None else batch.sky
    spread = target.std(dim=(1, 2, 3), keepdim=True).clamp(min=LEAST_SPREAD)
    plain = (disparity - target) / spread
    error = plain - plain.mean(dim=(1, 2, 3), keepdim=True)
    edges = sum(torch.diff(error[..., ::k, ::k], dim=d).abs().mean() for k in SCALES for d in (-1, -2))
    z, true_z = (relative_depth(d.clamp(min=NEAREST_TO_FAR)) for d in (disparity, target))
    smooth = away_from_edges(true_z, sky)
    cosine = (normals_from_depth(z, camera) * normals_from_depth(true_z, camera)).sum(dim=1, keepdim=True)
    normal = ((1 - cosine) * smooth).sum() / smooth.sum().clamp(min=1)
    logs = z.log() - true_z.log()
    known = (~sky).float()
    area = known.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    middle = (logs * known).sum(dim=(1, 2, 3), keepdim=True) / area
    variance = (((logs - middle) * known) ** 2).sum(dim=(1, 2, 3), keepdim=True) / area
    log = (variance + 1e-5).sqrt().mean()
    return 0.3 * plain.abs().mean() + error.abs().mean() + 0.7 * edges + 2 * normal + 2 * log


def away_from_edges(depth: Tensor, sky: Tensor) -> Tensor:
    """Return 1 where neither a pixel nor its neighbours are at an edge or sky, else 0, (B, 1, H, W)."""
    log = depth.log()
    highest, lowest = F.max_pool2d(log, 3, 1, 1), -F.max_pool2d(-log, 3, 1, 1)
    return ((highest - lowest < 2 * LARGEST_STEP) & (F.max_pool2d(sky.float(), 3, 1, 1) == 0)).float()
