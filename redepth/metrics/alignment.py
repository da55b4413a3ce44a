"""Align predictions to the units of the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redepth.contracts import Predicts
from redepth.metrics.batch import ImagePair, known_depth, split_batch, stack_rows
from redepth.ops.align import Fit, median_ratio, scale_and_shift, scale_only, trimmed_mask

Method = Literal["none", "median", "scale", "affine-depth", "affine-disparity", "affine-disparity-then-depth"]
"""How a prediction is brought to the ground truth's units; see `align`."""

Far = float | Literal["truth"] | None
"""Upper limit of aligned depth; see `align`."""


@dataclass(frozen=True)
class Aligned:
    """A prediction in the ground truth's units.

    Attributes:
        depth: (..., H, W) float64, finite and > 0 everywhere.
        clipped: (...) share of the measured pixels that had to be clipped.
        parameters: scales and shifts that were fitted, name -> (...): ``disparity_scale``,
            ``disparity_shift``, ``depth_scale``, ``depth_shift``, as far as the method has them.
        unclipped: (..., H, W) the depth before clipping; infinite where there is none.
    """

    depth: Tensor
    clipped: Tensor
    parameters: dict[str, Tensor]
    unclipped: Tensor


def align(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None,
    method: Method,
    *,
    predicts: Predicts = "disparity",
    near: float | None = None,
    far: Far = None,
    trim: float = 0.0,
    names: Sequence[str] = (),
) -> Aligned:
    r"""Bring predictions to the ground truth's units over the mask.

    With p the prediction as depth, d the prediction as disparity and t the true depth:

    - ``none``: p unchanged (a metric prediction).
    - ``median``: s p, s = median(t) / median(p).
    - ``scale``: s p, s the least-squares scale of p to t.
    - ``affine-depth``: a p + b, least squares to t.
    - ``affine-disparity``: 1 / (a d + b), least squares of a d + b to 1 / t.
    - ``affine-disparity-then-depth``: the paper's. 1 / (a d + b) where positive and 0 elsewhere, and this
      once more by least squares to t. A prediction of depth takes the second step only.

    A prediction of the other kind is inverted first. A value <= 0 cannot be inverted: the fit leaves such
    pixels out. A disparity <= 0 becomes the far end of the range, a depth <= 0 the near end.

    Args:
        prediction: (..., H, W) raw; finite inside the mask.
        truth: (H, W) or (..., H, W) depth; unknown where <= 0 or not finite.
        mask: same shapes, bool, where to align and to measure; None is wherever the truth is known.
        method: one of the above.
        predicts: kind of the prediction.
        near: lower limit that aligned depth is clipped to. With None, depth that is not positive becomes the
            least ground truth inside the mask, because the metrics need its logarithm.
        far: upper limit. With None, infinite depth becomes the greatest ground truth inside the mask. With
            ``truth``, this greatest ground truth is the limit of all aligned depth. For disparity that is
            MoGe's clamp, depth = 1 / max(a d + b, 1 / max t); for depth the same limit, min(a p + b, max t).
        trim: share of the mask that each least-squares fit may leave out as outliers
            (`ops.align.trimmed_mask`).
        names: of the images, for messages.

    Raises:
        InputError: it names the image. Sizes differ, the mask holds no known ground truth, the ground truth
            is constant inside it, the prediction is not finite inside it, or no fit exists.

    Source of the clamp: MoGe's evaluation (arXiv 2410.19115, microsoft/MoGe, moge/test/metrics.py).
    """
    settings = _Settings(method, predicts, near, far, trim)
    images = split_batch(prediction, truth, known_depth(truth), mask, names)
    aligned = [_align_image(image, settings) for image in images]
    rows = [{"clipped": one.clipped, **one.parameters} for one in aligned]
    scalars = stack_rows(rows, prediction.shape[:-2])
    clipped = scalars.pop("clipped")
    depth = torch.stack([one.depth for one in aligned]).reshape(prediction.shape)
    unclipped = torch.stack([one.unclipped for one in aligned]).reshape(prediction.shape)
    return Aligned(depth, clipped, scalars, unclipped)


@dataclass(frozen=True)
class _Settings:
    """The arguments of `align` that hold for all images."""

    method: Method
    predicts: Predicts
    near: float | None
    far: Far
    trim: float


def _align_image(image: ImagePair, settings: _Settings) -> Aligned:
    inside = image.truth[image.mask].double()
    if bool((inside == inside[0]).all()):
        raise image.error("the ground truth is constant inside the mask: nothing can be aligned to it")
    missing = int((~torch.isfinite(image.prediction[image.mask])).sum())
    if missing:
        raise image.error(f"the prediction is not finite at {missing} of {inside.numel()} measured pixels")
    raw = torch.where(torch.isfinite(image.prediction), image.prediction, 0.0).double()
    truth = torch.where(image.mask, image.truth, 1.0).double()
    try:
        unclipped, parameters = _fit(raw, truth, image.mask, settings)
    except ValueError as error:
        raise image.error(error) from None
    near = settings.near
    far = float(inside.max()) if settings.far == "truth" else settings.far
    below = unclipped <= 0 if near is None else unclipped < near
    above = torch.isinf(unclipped) if far is None else unclipped > far
    lowest = inside.min() if near is None else inside.new_tensor(near)
    highest = inside.max() if far is None else inside.new_tensor(far)
    depth = torch.where(below, lowest, torch.where(above, highest, unclipped))
    share = (below | above)[image.mask].double().mean()
    return Aligned(depth, share, parameters, unclipped)


def _fit(raw: Tensor, truth: Tensor, mask: Tensor, settings: _Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """Return aligned depth, infinite where there is none, and the fitted numbers."""
    method, trim = settings.method, settings.trim
    if method == "affine-disparity-then-depth":
        if settings.predicts == "disparity":
            return _fit_disparity_then_depth(raw, truth, mask, trim)
        method = "affine-depth"
    if method == "affine-disparity":
        disparity = raw if settings.predicts == "disparity" else _inverse(raw)
        aligned, parameters = _fit_affine(disparity, 1 / truth, mask, trim, "disparity", scale_and_shift)
        return _inverse(aligned), parameters
    depth = raw if settings.predicts == "depth" else _inverse(raw)
    if method == "none":
        return depth, {}
    if method == "median":
        ratio = median_ratio(depth, truth, mask)
        return ratio * depth, {"depth_scale": ratio}
    fit = scale_only if method == "scale" else scale_and_shift
    aligned, parameters = _fit_affine(depth, truth, mask, trim, "depth", fit)
    if method == "scale":
        del parameters["depth_shift"]
    return aligned, parameters


def _fit_affine(
    values: Tensor, target: Tensor, mask: Tensor, trim: float, space: str, fit: Fit
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a v + b, infinite where v is, and (a, b)."""
    usable = torch.isfinite(values)
    finite = torch.where(usable, values, 0.0)
    a, b = fit(finite, target, trimmed_mask(fit, finite, target, mask & usable, trim))
    aligned = torch.where(usable, a * finite + b, torch.inf)
    return aligned, {f"{space}_scale": a, f"{space}_shift": b}


def _fit_disparity_then_depth(
    disparity: Tensor, truth: Tensor, mask: Tensor, trim: float
) -> tuple[Tensor, dict[str, Tensor]]:
    aligned, first = _fit_affine(disparity, 1 / truth, mask, trim, "disparity", scale_and_shift)
    positive = aligned > 0
    depth = torch.where(positive, 1 / torch.where(positive, aligned, 1.0), 0.0)
    aligned, second = _fit_affine(depth, truth, mask, trim, "depth", scale_and_shift)
    return aligned, first | second


def _inverse(values: Tensor) -> Tensor:
    """Return 1 / v where v > 0 and infinity elsewhere."""
    positive = values > 0
    return torch.where(positive, 1 / torch.where(positive, values, 1.0), torch.inf)
