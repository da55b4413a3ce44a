"""Depth metrics under the paper's protocol."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.contracts import Predicts
from redepth.errors import InputError
from redepth.ops.align import scale_and_shift


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: name -> value; see `depth_metrics`.
        aligned: (H, W) the prediction as depth in the ground truth's units.
        clipped: share of the mask's pixels whose aligned depth was not positive; they were set to the
            least ground-truth depth of the mask, so that no metric becomes NaN.
    """

    metrics: dict[str, float]
    aligned: Tensor
    clipped: float


def evaluate(
    raw: Tensor, gt_depth: Tensor, mask: Tensor | None = None, *, predicts: Predicts = "disparity"
) -> Evaluation:
    """Score a raw prediction against ground-truth depth by the paper's double least squares.

    Scale and shift of the raw disparity to 1 / depth over the mask; invert where positive, 0
    elsewhere; scale and shift of the resulting depth to the ground truth over the mask; then the
    metrics over the mask. A prediction of depth takes the second alignment only.

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
    valid = torch.isfinite(gt_depth) & (gt_depth > 0) & torch.isfinite(raw)
    valid = valid if mask is None else valid & mask
    truth = torch.where(valid, gt_depth, torch.ones_like(gt_depth)).double()
    if int(valid.sum()) < 2:
        raise InputError("the ground truth has no known depth (> 0, finite) inside the mask")
    if bool((truth[valid] == truth[valid][0]).all()):
        raise InputError("the ground truth is constant inside the mask: nothing can be aligned to it")
    prediction = torch.where(torch.isfinite(raw), raw, torch.zeros_like(raw)).double()
    if predicts == "disparity":
        a, b = scale_and_shift(prediction, 1.0 / truth, valid)
        disparity = a * prediction + b
        positive = disparity > 0
        prediction = torch.where(positive, 1.0 / torch.where(positive, disparity, 1.0), 0.0)
    a, b = scale_and_shift(prediction, truth, valid)
    aligned = a * prediction + b
    bad = valid & (aligned <= 0)
    measured = torch.where(bad, truth[valid].min(), aligned)
    metrics = depth_metrics(measured[valid], truth[valid])
    share = float(bad.sum()) / float(valid.sum())
    return Evaluation(metrics, aligned, share)


def depth_metrics(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Compare positive depths, 1-D over the measured pixels, in float64.

    ``a1``, ``a2``, ``a3``: share with max(p/t, t/p) < 1.25^k; ``abs_rel`` mean |p - t| / t; ``sq_rel`` mean
    (p - t)^2 / t; ``rmse``; ``rmse_log``; ``log_10`` mean |log10 p - log10 t|; ``silog`` 100 sqrt(mean e^2
    - (mean e)^2), e = log p - log t (Eigen et al., arXiv 1406.2283). Errors in the truth's units.
    """
    p, t = prediction.double(), truth.double()
    ratio = torch.maximum(p / t, t / p)
    e = p.log() - t.log()
    values = {f"a{k}": (ratio < 1.25**k).double().mean() for k in (1, 2, 3)}
    values["abs_rel"] = ((p - t).abs() / t).mean()
    values["sq_rel"] = ((p - t) ** 2 / t).mean()
    values["rmse"] = ((p - t) ** 2).mean().sqrt()
    values["rmse_log"] = (e**2).mean().sqrt()
    values["log_10"] = (p.log10() - t.log10()).abs().mean()
    values["silog"] = 100 * ((e**2).mean() - e.mean() ** 2).clamp(min=0).sqrt()
    return {name: float(value) for name, value in values.items()}


def silog(disparity: Tensor, gt_depth: Tensor) -> float:
    """Return the SI-log of one (H, W) disparity under the paper's protocol."""
    return evaluate(disparity, gt_depth).metrics["silog"]
