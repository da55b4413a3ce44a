"""Separable smoothing and gradients of maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.geometry import difference


def gaussian_blur(values: Tensor, sigma: float, *, closed: bool = False) -> Tensor:
    r"""Convolve each channel of (B, C, H, W) with a Gaussian.

    .. math:: k(t) \propto e^{-t^2 / (2 \sigma^2)}, \quad |t| \le \lceil 3 \sigma \rceil

    The kernel sums to 1 and the border is repeated, so that a constant map does not change. ``sigma`` > 0 is
    in pixels. Non-finite values spread over the kernel's reach. In a ``closed`` map the first and the last
    column are neighbours.
    """
    kernel = _gaussian(values, sigma)
    return _convolved(values, kernel / kernel.sum(), "replicate", closed)


def wide_gaussian_blur(values: Tensor, sigma: float) -> Tensor:
    """Return `gaussian_blur` of (B, C, H, W), by two matrix products.

    They are faster where sigma is a large share of the side, most of all in the backward pass.
    """
    rows, columns = (_blurring(size, sigma, like=values) for size in values.shape[-2:])
    return rows @ values @ columns.mT


def _blurring(size: int, sigma: float, *, like: Tensor) -> Tensor:
    """Return the matrix (size, size) of a blur along one axis, whose border is repeated."""
    kernel = _gaussian(like, sigma)
    kernel, reach = kernel / kernel.sum(), len(kernel) // 2
    pixels = torch.arange(size, device=like.device)
    offsets = pixels - pixels[:, None]
    inside = kernel[(offsets + reach).clamp(0, 2 * reach)]
    matrix = torch.where(offsets.abs() <= reach, inside, torch.zeros_like(inside))
    # What lies before the first pixel counts as it, and by symmetry for the last one.
    last = reach - 1 - pixels
    before = torch.where(last >= 0, kernel.cumsum(0)[last.clamp(min=0)], torch.zeros_like(kernel[:1]))
    matrix[:, 0] += before
    matrix[:, -1] += before.flip(0)
    return matrix


def gaussian_sum(values: Tensor, sigma: float, *, closed: bool = False) -> Tensor:
    r"""Return :math:`\sum_q e^{-\lVert p - q \rVert^2 / (2 \sigma^2)} v_q` at each pixel p of (B, C, H, W).

    Nothing is outside of the map, unless it is ``closed``, and beyond 3 sigma along a side nothing counts.
    """
    return _convolved(values, _gaussian(values, sigma), "constant", closed)


def _gaussian(values: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    t = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    return torch.exp(-(t**2) / (2 * sigma**2))


def _convolved(values: Tensor, kernel: Tensor, border: str, closed: bool) -> Tensor:
    """Convolve the columns and the rows with the same kernel."""
    reach = len(kernel) // 2
    # One picture with grouped channels: on a CPU far faster than a batch of pictures with one channel.
    planes = values.flatten(0, 1)[None]
    if closed:
        width = values.shape[-1]
        around = torch.arange(-reach, width + reach, device=values.device).remainder(width)
        planes = planes.index_select(-1, around)
    count = planes.shape[1]
    beside = 0 if closed else reach
    for shape, pad in (((1, 1, 1, -1), (beside, beside, 0, 0)), ((1, 1, -1, 1), (0, 0, reach, reach))):
        weight = kernel.view(shape).expand(count, -1, -1, -1).contiguous()
        planes = F.conv2d(F.pad(planes, pad, mode=border), weight, groups=count)
    return planes.view(values.shape)


def detail(values: Tensor, scale: float, *, closed: bool = False) -> Tensor:
    r"""Return the part of (B, C, H, W) that a Gaussian of sigma = ``scale`` times the shorter side removes.

    .. math:: v - G_\sigma * v

    It has no forms wider than about 6 sigma, and keeps those narrower than sigma. In a ``closed`` map the
    first and the last column are neighbours.
    """
    return values - gaussian_blur(values, scale * min(values.shape[-2:]), closed=closed)


def gradient(values: Tensor) -> Tensor:
    """Return the derivatives along columns and rows of (B, 1, H, W) per pixel, (B, 2, H, W)."""
    return torch.cat([difference(values, -1), difference(values, -2)], dim=1)


def length(vectors: Tensor) -> Tensor:
    """Return the Euclidean length over the channels of (B, C, H, W), (B, 1, H, W)."""
    return (vectors * vectors).sum(dim=1, keepdim=True).sqrt()


def dilate(values: Tensor, radius: int) -> Tensor:
    """Return the largest value of (B, 1, H, W) in the square of this radius around each pixel."""
    side = 2 * radius + 1
    rows = F.max_pool2d(values, (side, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))


def fill_holes(values: Tensor, known: Tensor) -> Tensor:
    """Fill the unknown pixels of (B, C, H, W) smoothly from the known ones around them.

    Known pixels are averaged over squares of 2 x 2, 4 x 4 and so on, until every square has one. An unknown
    pixel takes the bilinear interpolation of the finest averages that exist around it, so that it lies
    between the least and the greatest known value. Known pixels do not change.

    Args:
        values: anything at unknown pixels, NaN too.
        known: (B, C, H, W) bool.

    Raises:
        ValueError: nothing is known.

    Source: the pull-push algorithm of Gortler et al., The Lumigraph, SIGGRAPH 1996, without its blending.
    """
    if not bool(known.flatten(2).any(dim=2).all()):
        raise ValueError("no pixel is known")
    if bool(known.all()):
        return values
    weight = known.to(values.dtype)
    clean = torch.where(known, values, torch.zeros((), dtype=values.dtype, device=values.device))
    shares = F.avg_pool2d(weight, 2, ceil_mode=True)
    sums = F.avg_pool2d(clean, 2, ceil_mode=True)
    coarse = fill_holes(sums / shares.clamp_min(1e-30), shares > 0)
    smooth = F.interpolate(coarse, size=values.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known, values, smooth)


def resample(values: Tensor, height: int, width: int) -> Tensor:
    r"""Resize maps (B, C, h, w) so that an affine function stays exactly one, up to the border.

    Along each axis, output i is the mean of the inputs j with weights

    .. math:: w_{ij} \propto \max\Big(0, 1 - \frac{|j - c_i|}{s}\Big), \qquad
        c_i = \Big(i + \frac{1}{2}\Big) \frac{n}{m} - \frac{1}{2}, \qquad s = \max\Big(\frac{n}{m}, 1\Big)

    for n inputs and m outputs: bilinear, with a low-pass filter where the map shrinks. Then the two weights
    around c_i are changed so that the weighted mean of j is c_i. Inputs beyond the border continue the first
    or last two linearly. `ops.geometry.resize` leaves them out, which bends a plane at the border.

    Returns:
        (B, C, height, width).
    """
    rows, columns = (
        _resampling(n, m, like=values) for n, m in ((values.shape[-2], height), (values.shape[-1], width))
    )
    return rows @ values @ columns.mT


def _resampling(n: int, m: int, *, like: Tensor) -> Tensor:
    """Return the matrix (m, n) of `resample` along one axis."""
    if n == m or n == 1:
        return torch.eye(n, dtype=like.dtype, device=like.device).expand(m, n)
    reach = max(n / m, 1.0)
    margin = math.ceil(reach)
    outputs = torch.arange(m, dtype=torch.float64, device=like.device)[:, None]
    inputs = torch.arange(-margin, n + margin, dtype=torch.float64, device=like.device)
    centres = (outputs + 0.5) * n / m - 0.5
    weights = (1 - (centres - inputs).abs() / reach).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # Weight moves from the input after the centre to the one before it, or back.
    surplus = (weights * inputs).sum(dim=1, keepdim=True) - centres
    before_centre = (centres.floor() + margin).long()
    weights.scatter_add_(1, before_centre, surplus).scatter_add_(1, before_centre + 1, -surplus)
    matrix = weights[:, margin : margin + n].clone()
    before, after = weights[:, :margin], weights[:, margin + n :]
    # x_j = x_0 + j (x_1 - x_0) for j < 0, and the same from the other end.
    for sums, distances, edge, inner in (
        (before, -inputs[:margin], 0, 1),
        (after, inputs[-margin:] - (n - 1), n - 1, n - 2),
    ):
        beyond = (sums * distances).sum(dim=1)
        matrix[:, edge] += sums.sum(dim=1) + beyond
        matrix[:, inner] -= beyond
    return matrix.to(like.dtype)
