"""Statistics of a whole depth map: range, entropy, rank correlation, agreement of an ensemble."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

RANGE = (0.02, 0.98)
"""The quantiles that bound the range of a map: outliers do not count."""

_SAMPLE = 2**15


def robust_range(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 2 % and the 98 % quantile of a map, scalars; a large map is sampled with a stride."""
    low, high = torch.quantile(_sample(values).float(), values.new_tensor(RANGE, dtype=torch.float32))
    return low, high


def spread(values: Tensor) -> Tensor:
    """Return the width of `robust_range`; 0 for a map that is constant to float32 precision."""
    return _width(*robust_range(values))


def _width(low: Tensor, high: Tensor) -> Tensor:
    width = high - low
    noise = 1e-6 * torch.maximum(low.abs(), high.abs())
    return torch.where(width > noise, width, torch.zeros_like(width))


def nearness(raw: Tensor, predicts: Literal["disparity", "depth"] = "disparity") -> Tensor:
    r"""Normalise a raw output so that 0 is far and 1 is near, independent of its scale and shift.

    .. math:: n = (D - q_{2\%}) / (q_{98\%} - q_{2\%}) \quad\text{or}\quad
        n = (q_{98\%} - z) / (q_{98\%} - q_{2\%})

    for disparity D and for depth z, with quantiles of the map; the ends lie a little outside [0, 1].

    Args:
        raw: (1, 1, H, W), finite.
        predicts: what ``raw`` is.

    Returns:
        The same shape; 0 everywhere for a constant map.
    """
    low, high = robust_range(raw)
    width = _width(low, high)
    distance = raw - low if predicts == "disparity" else high - raw
    return torch.where(width > 0, distance / torch.where(width > 0, width, 1.0), 0.0)


def entropy(values: Tensor, bins: int = 64) -> float:
    r"""Return the entropy of the histogram between least and largest value, in [0, 1].

    .. math:: H = -\frac{1}{\log K} \sum_k p_k \log p_k

    over K bins; 1 if all are equally full, 0 for a constant map.
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return 0.0
    counts = torch.histc(values.float(), bins, low, high)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log()).sum() / math.log(bins))


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of two maps of one shape, in [-1, 1]; 0 if one is constant.

    Equal values share their mean rank, such as a sky of zeros. A large map is sampled with a stride.
    """
    ranks = [_ranks(_sample(values)) for values in (first, second)]
    a, b = (r - r.mean() for r in ranks)
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size > 0 else 0.0


def agreement_weight(initial: Tensor, members: Tensor, tolerance: float) -> Tensor:
    """Return `deviation_weight` of the members' standard deviation about their mean; 1 for a single member.

    Args:
        initial: (1, 1, H, W).
        members: (M, 1, H, W), in the same unit.
        tolerance: as for `deviation_weight`.
    """
    return deviation_weight(initial, members.std(dim=0, correction=0, keepdim=True), tolerance)


def deviation_weight(initial: Tensor, deviation: Tensor, tolerance: float) -> Tensor:
    r"""Return the weight of an ensemble's mean against the initial map, per pixel.

    .. math:: w = \frac{1}{1 + (\sigma / (\tau S))^2}

    with the members' standard deviation sigma, the initial map's `spread` S and the tolerance tau: 1 where
    all members agree, 1/2 where they differ by tau times the spread.

    Args:
        initial: (1, 1, H, W).
        deviation: (1, 1, H, W), in the same unit.
        tolerance: tau > 0.

    Returns:
        (1, 1, H, W) in [0, 1]. Over a constant initial map, 1 where the members are equal and 0 elsewhere.
    """
    allowed = tolerance * spread(initial)
    ratio = deviation / torch.where(allowed > 0, allowed, 1.0)
    return torch.where(allowed > 0, 1 / (1 + ratio**2), (deviation == 0).to(initial.dtype))


def _sample(values: Tensor) -> Tensor:
    flat = values.flatten()
    return flat[:: max(1, flat.numel() // _SAMPLE)]


def _ranks(values: Tensor) -> Tensor:
    _, where, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[where]
