"""How far a model's predictions are from the refinements of held-out photos; no labels are needed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from redepth.adaptation.losses import RelativeDepth
from redepth.adaptation.targets import Target

SMALLEST = 1e-6
"""Least relative depth, as a share of the refined depth's mean."""


@torch.no_grad()
def distance(raw: Tensor, target: Target, relative_depth: RelativeDepth, *, metric: bool = False) -> float:
    r"""Return the distance of a prediction to the refinement of its photo, in percent.

    .. math:: 100 \sqrt{\overline{d^2} - \lambda \, \overline{d}^2}, \qquad d = \log z - \log z^*

    with the relative depths z and z* of prediction and refinement, and means over the pixels weighted by
    trust. This is SI-log with the refinement as the truth. For affine models lambda is 1: the scale of
    relative depth is unknown. For ``metric`` ones it is 0: a wrong scale is an error.

    Nothing is aligned first, other than with ground truth: both are raw outputs of one network, in one unit.
    So it also shows a model whose raw outputs shrink, are shifted, or whose large forms drift. An alignment
    would hide the first two, which change how steep the surface is.

    Args:
        raw: (1,1,H,W) prediction; values below 0 count as 0.
        target: on the same device, of the same size.
        relative_depth: of this photo.
        metric: whether the depth model is metric.

    Returns:
        A number >= 0; NaN if the prediction is not finite, or no pixel is trusted.

    Raises:
        ValueError: the sizes differ.
    """
    goal, weight = target.refined, target.trust.double()
    if raw.shape != goal.shape:
        raise ValueError(f"the raw outputs must have one shape, got {tuple(raw.shape)}, {tuple(goal.shape)}")
    predicted, refined = (relative_depth(map_.to(goal.dtype).clamp(min=0)).double() for map_ in (raw, goal))
    least = SMALLEST * refined.mean()
    d = predicted.clamp(min=least).log() - refined.clamp(min=least).log()
    total = weight.sum()
    mean = (weight * d).sum() / total
    centre = torch.zeros_like(mean) if metric else mean
    # About the centre, because the difference of two means loses small values.
    return 100 * math.sqrt(float((weight * (d - centre).square()).sum() / total))


def mean_distance(distances: Iterable[float]) -> float:
    """Return the mean over the held-out photos; NaN if there is none, infinite if one is not finite."""
    listed = list(distances)
    if not listed:
        return math.nan
    if not all(map(math.isfinite, listed)):
        return math.inf
    return math.fsum(listed) / len(listed)
