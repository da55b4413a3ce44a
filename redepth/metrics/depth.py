"""Errors of aligned depth: Eigen's metrics, per image or pooled over the pixels of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from redepth.metrics.batch import ImagePair, known_depth, split_batch, stack_rows


def depth_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    silog_lambda: float = 1.0,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare positive depths in the same units.

    With p the prediction, t the ground truth and e = ln p - ln t, over the mask:

    - ``a1``, ``a2``, ``a3`` (often called delta 1 to 3): the share with max(p / t, t / p) < 1.25^k;
    - ``abs_rel``: the mean of |p - t| / t; ``sq_rel``: of (p - t)^2 / t;
    - ``rmse``, ``rmse_log``: the roots of the means of (p - t)^2 and e^2;
    - ``log_10``: the mean of |log10 p - log10 t|;
    - ``silog``:

    .. math:: \text{silog} = 100 \sqrt{\overline{e^2} - \lambda \, \overline{e}^2}

    ``sq_rel`` and ``rmse`` are in the units of the ground truth, the others have none.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: same shapes, bool. Only pixels with known ground truth (finite and > 0) count; None is all
            of them.
        silog_lambda: 1 is the scale-invariant error of the KITTI benchmark and of the paper, 0.5 the training
            loss of Eigen et al.; papers differ.
        names: of the images, for messages.

    Returns:
        name -> (...).

    Raises:
        InputError: it names the image. Sizes differ, nothing to measure, or a depth is not positive and
            finite.

    Source: Eigen et al., arXiv 1406.2283.
    """
    return metrics_of(depth_means(prediction, truth, mask, names=names), silog_lambda=silog_lambda)


def depth_means(
    prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, names: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the means over the mask that `metrics_of` needs, and ``pixels``, the number of measured pixels.

    Weighted by ``pixels``, the means of several images pool to those of all their pixels (`pooled`).
    Arguments and errors are those of `depth_metrics`.
    """
    rows = [_means(image) for image in split_batch(prediction, truth, known_depth(truth), mask, names)]
    return stack_rows(rows, prediction.shape[:-2])


def _means(image: ImagePair) -> dict[str, Tensor]:
    p, t = image.prediction[image.mask].double(), image.truth[image.mask].double()
    bad = int((~(torch.isfinite(p) & (p > 0))).sum())
    if bad:
        raise image.error(f"{bad} of {p.numel()} depths are not positive and finite; align them first")
    ratio = torch.maximum(p / t, t / p)
    e = p.log() - t.log()
    values = {f"a{k}": (ratio < 1.25**k).double().mean() for k in (1, 2, 3)}
    values["abs_rel"] = ((p - t).abs() / t).mean()
    values["sq_rel"] = ((p - t) ** 2 / t).mean()
    values["square"] = ((p - t) ** 2).mean()
    values["log_square"] = (e**2).mean()
    values["log"] = e.mean()
    # The variance about the mean: mean(e^2) - mean(e)^2 would lose a small spread to cancellation.
    values["log_spread"] = ((e - e.mean()) ** 2).mean()
    values["log_10"] = (p.log10() - t.log10()).abs().mean()
    return values | {"pixels": t.new_tensor(float(t.numel()))}


def metrics_of(means: Mapping[str, Tensor], *, silog_lambda: float = 1.0) -> dict[str, Tensor]:
    """Return the metrics of `depth_metrics` from the means of `depth_means` or `pooled`.

    Raises:
        ValueError: lambda is outside [0, 1], where SI-log may not be real.
    """
    if not 0 <= silog_lambda <= 1:
        raise ValueError(f"silog_lambda must be in [0, 1], got {silog_lambda}")
    metrics = {name: means[name] for name in ("a1", "a2", "a3", "abs_rel", "sq_rel")}
    metrics["rmse"] = means["square"].sqrt()
    metrics["rmse_log"] = means["log_square"].sqrt()
    metrics["log_10"] = means["log_10"]
    spread = means["log_spread"] + (1 - silog_lambda) * means["log"] ** 2
    return metrics | {"silog": 100 * spread.sqrt()}


def pooled(means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pool the means of n images, name -> (n,), to those of all their pixels, name -> scalar."""
    weights = means["pixels"] / means["pixels"].sum()
    joint = {name: (weights * values).sum() for name, values in means.items() if name != "pixels"}
    between = (weights * (means["log"] - joint["log"]) ** 2).sum()
    joint["log_spread"] = joint["log_spread"] + between
    return joint | {"pixels": means["pixels"].sum()}
