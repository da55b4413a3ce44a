"""Label-free terms that are added to the prior's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.contracts import Objective, Surface
from redepth.registry import Registry

REGISTRY = Registry("objective", "redepth.objectives", Objective)
REGISTRY.add(
    "smoothness",
    "redepth.optim.objectives:Smoothness",
    "mean |Laplacian| of the min-max normalised raw output (the paper's)",
)

register = REGISTRY.register


def laplacian(values: Tensor) -> Tensor:
    """5-point Laplacian of (B, 1, H, W), zero padding, unit spacing."""
    kernel = values.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    return F.conv2d(values, kernel.view(1, 1, 3, 3), padding=1)


def normalize_range(values: Tensor) -> Tensor:
    """Map each row to [0, 1] by its own detached minimum and maximum; a constant row becomes 0."""
    flat = values.detach().flatten(1)
    low = flat.amin(dim=1).view(-1, 1, 1, 1)
    span = flat.amax(dim=1).view(-1, 1, 1, 1) - low
    return torch.where(span > 0, (values - low) / torch.where(span > 0, span, 1.0), 0.0)


@dataclass(kw_only=True, eq=False)
class Smoothness:
    r"""Mean absolute Laplacian of the raw output D.

    .. math:: \mathcal{L} = \frac{1}{HW} \sum \left| \nabla^2 \frac{D - \min D}{\max D - \min D} \right|

    minimum and maximum detached, zero padding (so the border counts, as in the paper's
    implementation). 0 for a constant D. Source: arXiv 2512.17908.
    """

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        return laplacian(normalize_range(surface.raw)).abs().mean(dim=(1, 2, 3))
