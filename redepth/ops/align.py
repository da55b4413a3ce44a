"""Alignment of a prediction to ground truth: least squares, medians, and a robust choice of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Fit = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`scale_and_shift` or `scale_only`: (prediction, target, mask) -> (a, b)."""


def scale_and_shift(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return (a, b), float64 scalars, that minimise :math:`\sum_{mask} (a p + b - t)^2`.

    Args:
        prediction: any shape.
        target: the same shape.
        mask: bool, the same shape: the entries that count.

    A prediction that is constant over the mask gives a = 0, b = the target's mean.

    Raises:
        ValueError: if shapes differ, or fewer than 2 entries count, or one of them is not finite.
    """
    p, t = _entries(prediction, target, mask, 2)
    centred = p - p.mean()
    variance = (centred**2).mean()
    # Relative to the square of the values, so that a tiny but real signal does not count as constant.
    flat = variance <= 1e-20 * (p**2).mean()
    covariance = (centred * (t - t.mean())).mean()
    scale = torch.where(flat, 0.0, covariance / torch.where(flat, 1.0, variance))
    return scale, t.mean() - scale * p.mean()


def scale_only(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return (a, 0), float64 scalars, where a minimises :math:`\sum_{mask} (a p - t)^2`.

    Args:
        prediction: any shape.
        target: the same shape.
        mask: bool, the same shape: the entries that count.

    Raises:
        ValueError: if shapes differ, nothing counts, a value is not finite, or the prediction is 0
            everywhere.
    """
    p, t = _entries(prediction, target, mask, 1)
    square = (p**2).mean()
    if not bool(square > 0):
        raise ValueError("the prediction is 0 at every valid pixel: no scale aligns it")
    return (p * t).mean() / square, torch.zeros_like(square)


def errors_in_both(
    prediction: Tensor, target: Tensor, mask: Tensor, ratio: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Return (a, b), float64 scalars, that minimise :math:`\sum_{mask} (a p + b - t)^2 / (\rho + a^2)`.

    For a prediction and a target that both have errors: `scale_and_shift` takes the target as exact and the
    prediction's errors make its a too small, which a chain of fits adds up.

    Args:
        prediction: any shape.
        target: the same shape.
        mask: bool, the same shape: the entries that count.
        ratio: rho > 0, the variance of the target's errors over that of the prediction's.

    A prediction that does not rise with the target gives a = 1, b = the difference of the means.

    Raises:
        ValueError: as `scale_and_shift` does.

    Source: W. E. Deming, Statistical Adjustment of Data, 1943.
    """
    p, t = _entries(prediction, target, mask, 2)
    p0, t0 = p - p.mean(), t - t.mean()
    pp, tt, pt = (p0 * p0).mean(), (t0 * t0).mean(), (p0 * t0).mean()
    excess = tt - ratio * pp
    rising = pt > 0
    root = (excess**2 + 4 * ratio * pt**2).sqrt()
    scale = torch.where(rising, (excess + root) / (2 * torch.where(rising, pt, 1.0)), 1.0)
    return scale, t.mean() - scale * p.mean()


def median_ratio(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return median(target) / median(prediction) over the mask, a float64 scalar.

    The median of an even number of values is the mean of the middle two. Infinite predictions are allowed,
    they are the largest.

    Raises:
        ValueError: if shapes differ, nothing counts, or the prediction's median is not positive and finite.
    """
    _same_shape(prediction, target, mask)
    if not bool(mask.any()):
        raise ValueError("0 valid pixels are too few to align the medians")
    middle = _median(prediction[mask].double())
    if not bool(torch.isfinite(middle) & (middle > 0)):
        raise ValueError(f"the prediction's median is {float(middle):g}: no scale aligns it")
    return _median(target[mask].double()) / middle


def trimmed_mask(
    fit: Fit, prediction: Tensor, target: Tensor, mask: Tensor, trim: float, *, rounds: int = 20
) -> Tensor:
    """Return the mask without the share ``trim`` of pixels that a robust fit excludes as outliers.

    Least trimmed squares by concentration: fit, keep the (1 - trim) of the mask with the smallest residuals
    |a p + b - t|, fit to those, and repeat until the choice does not change or ``rounds`` are done. No round
    increases the sum of the kept squares; the result is the local optimum reached from plain least squares.

    Args:
        fit: `scale_and_shift` or `scale_only`.
        prediction: any shape.
        target: the same shape.
        mask: bool, the same shape.
        trim: share in [0, 1) of the mask to leave out; 0 returns the mask.
        rounds: largest number of fits.

    Raises:
        ValueError: as ``fit`` does, and for a trim outside [0, 1).

    Source: Rousseeuw and Van Driessen, Computing LTS regression for large data sets, 2006 (C-steps).
    """
    if not 0 <= trim < 1:
        raise ValueError(f"trim must be in [0, 1), got {trim}")
    kept, count = mask, int(mask.sum())
    keep = count - int(trim * count)
    for _ in range(rounds if trim else 0):
        a, b = fit(prediction, target, kept)
        residual = (a * prediction[mask].double() + b - target[mask].double()).abs()
        chosen = torch.zeros_like(residual, dtype=torch.bool)
        # Exactly ``keep`` pixels, also if many residuals are equal.
        chosen[residual.argsort(stable=True)[:keep]] = True
        renewed = mask.masked_scatter(mask, chosen)
        if torch.equal(renewed, kept):
            break
        kept = renewed
    return kept


def _same_shape(prediction: Tensor, target: Tensor, mask: Tensor) -> None:
    if not prediction.shape == target.shape == mask.shape:
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(mask.shape)}"
        raise ValueError(f"prediction, target and mask must have one shape, got {shapes}")


def _entries(prediction: Tensor, target: Tensor, mask: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return the values inside the mask, float64 and 1-D."""
    _same_shape(prediction, target, mask)
    p, t = prediction[mask].double(), target[mask].double()
    if p.numel() < least:
        raise ValueError(f"{p.numel()} valid pixels are too few to align")
    if not bool(torch.isfinite(p).all() & torch.isfinite(t).all()):
        raise ValueError("prediction or target is not finite inside the mask")
    return p, t


def _median(values: Tensor) -> Tensor:
    ordered = values.sort().values
    count = ordered.numel()
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
