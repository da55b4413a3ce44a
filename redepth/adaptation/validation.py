"""How far a model's predictions are from the refinements of held-out photos; no labels are needed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redepth.adaptation.losses import RelativeDepth
from redepth.adaptation.targets import Target

SMALLEST = 0.01
"""Relative depth below this share of the refined depth's mean counts as this: its logarithm has no bound."""


@torch.no_grad()
def distance(raw: Tensor, target: Target, relative_depth: RelativeDepth, *, metric: bool = False) -> float:
    r"""Return the distance of a prediction to the refinement of its photo, in percent.

    .. math:: 100 \sqrt{\overline{d^2} - \lambda \, \overline{d}^2}, \qquad d = \log z - \log z^*

    with the relative depths z and z* of prediction and refinement, and means over the pixels weighted by
    trust. This is SI-log with the refinement as the truth. For affine models lambda is 1: the scale of
    relative depth is unknown. For ``metric`` ones it is 0: a wrong scale is an error. Without any trust all
    pixels count alike.

    Nothing is aligned first, other than with ground truth: both are raw outputs of one network, in one unit.
    So it also shows a model whose raw outputs shrink, are shifted, or whose large forms drift. An alignment
    would hide the first two, which change how steep the surface is.

    Args:
        raw: (1,1,H,W) prediction; values below 0 count as 0.
        target: on the same device, of the same size.
        relative_depth: of this photo.
        metric: whether the depth model is metric.

    Returns:
        A number >= 0; infinite if the prediction is not finite.

    Raises:
        ValueError: the sizes differ.
    """
    goal = target.refined
    if raw.shape != goal.shape:
        raise ValueError(f"the raw outputs must have one shape, got {tuple(raw.shape)}, {tuple(goal.shape)}")
    if not bool(torch.isfinite(raw).all()):
        return math.inf
    predicted, refined = (relative_depth(m.to(goal.dtype).clamp(min=0)).double() for m in (raw, goal))
    least = SMALLEST * refined.mean()
    d = predicted.clamp(min=least).log() - refined.clamp(min=least).log()
    weight = target.trust.double()
    weight = weight / weight.sum() if float(weight.sum()) > 0 else torch.full_like(d, 1 / d.numel())
    centre = 0.0 if metric else (weight * d).sum()
    # About the centre, because the difference of two means loses small values.
    return 100 * math.sqrt(float((weight * (d - centre).square()).sum()))
