"""Score one prediction by the paper's double least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.contracts import Predicts
from redepth.errors import InputError
from redepth.metrics.alignment import align
from redepth.metrics.batch import known_depth
from redepth.metrics.depth import depth_metrics


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        metrics: name -> value; see `depth_metrics`.
        aligned: (H, W) the prediction as depth in the ground truth's units, not clipped.
        clipped: share of the mask's pixels whose aligned depth was not positive; they were set to the
            least ground-truth depth of the mask, so that no metric becomes NaN.
        protocol: name of the evaluation protocol; empty where none was named.
        cautions: a line for each reason to doubt a metric, besides what was clipped.
    """

    metrics: dict[str, float]
    aligned: Tensor
    clipped: float
    protocol: str = ""
    cautions: tuple[str, ...] = ()


def evaluate(
    raw: Tensor, gt_depth: Tensor, mask: Tensor | None = None, *, predicts: Predicts = "disparity"
) -> Evaluation:
    """Score a raw prediction against ground-truth depth by the paper's double least squares.

    It runs `align` with ``affine-disparity-then-depth``, clips only depth that is not positive, and then
    runs `depth_metrics`. Pixels whose prediction is not finite are left out.

    Args:
        raw: (H, W) disparity or depth, affine-invariant.
        gt_depth: (H, W) depth, > 0 where known; 0, negative and non-finite values are unknown.
        mask: (H, W) bool, where to measure; None is everywhere.
        predicts: what ``raw`` is.

    Raises:
        InputError: if sizes differ, or too little ground truth is left, or it is constant.
    """
    if raw.shape != gt_depth.shape or (mask is not None and mask.shape != raw.shape):
        shapes = f"prediction {tuple(raw.shape)}, ground truth {tuple(gt_depth.shape)}"
        raise InputError(f"sizes differ: {shapes}; they must be one size, the photo's")
    valid = known_depth(gt_depth, mask) & torch.isfinite(raw)
    if int(valid.sum()) < 2:
        raise InputError("the ground truth has no known depth (> 0, finite) inside the mask")
    aligned = align(raw, gt_depth, valid, "affine-disparity-then-depth", predicts=predicts)
    metrics = depth_metrics(aligned.depth, gt_depth, valid)
    values = {name: float(value) for name, value in metrics.items()}
    return Evaluation(values, aligned.unclipped, float(aligned.clipped))
