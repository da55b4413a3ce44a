"""From the network's size to the photo's."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth.exports.source import Array
from redepth.io import row_blocks
from redepth.ops import geometry, panorama


def enlarge(target: Array, values: Tensor, *, closed: bool = False) -> None:
    """Write a map (1, 1, h, w) at the size of ``target`` (H, W): bilinear, corners aligned.

    As in the released code of Re-Depth Anything (arXiv 2512.17908). A ``closed`` map, whose left and right
    edge are neighbours, is resized across the edge by `ops.panorama.resize_into`.
    """
    if closed:
        panorama.resize_into(torch.from_numpy(target)[None, None], values.float())
        return
    geometry.resize_into(torch.from_numpy(target)[None, None], values.float())


def enlarge_guided(
    target: Array,
    values: Tensor,
    photo: NDArray[np.float32],
    *,
    radius: float,
    eps: float,
    closed: bool = False,
) -> None:
    r"""Write a map (1, 1, h, w) at the size of ``target`` (H, W), with edges where the photo has them.

    The enlarged map U p is filtered by `guide`. Then comes back what the filter's window, which spans several
    pixels of the network, took of their detail: what the given map differs from the reduced result, D g,

    .. math:: q = g + U (p - D g), \qquad g = \mathrm{guide}(U p).

    A ``closed`` map keeps g, because D would open its seam.

    Args:
        target: of the photo's size.
        values: finite.
        photo: (H, W, 3) sRGB in [0, 1].
        radius: of the window, in pixels of the network.
        eps: as for `guide`.
        closed: whether the left and right edge are neighbours.

    Source: the correction is the back-projection of Irani and Peleg, Improving resolution by image
    registration, 1991.
    """
    enlarge(target, values, closed=closed)
    pixels = round(radius * target.shape[1] / values.shape[-1])
    guide(target, photo, radius=pixels, eps=eps, closed=closed)
    if closed:
        return
    height, width = values.shape[-2:]
    result = torch.from_numpy(target)[None, None]
    reduced = geometry.resize(result, height, width, align_corners=True, antialias=True)
    lost = np.empty_like(target)
    enlarge(lost, values.float() - reduced)
    target += lost


def guide(
    target: Array, photo: NDArray[np.float32], *, radius: int, eps: float, closed: bool = False
) -> None:
    r"""Filter a map that was enlarged, in place, so that its edges follow those of the photo.

    The guided filter: in each window the map is an affine function of the photo's colour,

    .. math:: q_i = \bar a_i^T I_i + \bar b_i, \qquad a_k = (\Sigma_k + \epsilon 1)^{-1}
        \big(\overline{I p} - \mu_k \bar p_k\big), \qquad b_k = \bar p_k - a_k^T \mu_k

    with the window's mean colour :math:`\mu_k`, its covariance :math:`\Sigma_k`, and the mean over all
    windows that hold a pixel. It is computed for some rows at a time, so that memory does not grow with the
    photo; each strip has the rows around it that its windows reach.

    Args:
        target: (H, W) finite.
        photo: (H, W, 3) sRGB in [0, 1].
        radius: of the window, in pixels; 1 at least.
        eps: smallest variance of a colour that counts as an edge.
        closed: whether the left and right edge are neighbours.

    Source: He, Sun and Tang, Guided image filtering, 2013; kornia's ``guided_blur`` computes it.
    """
    from kornia.filters import guided_blur

    height, width = target.shape
    # Reflection at the border needs a window that is smaller than the picture.
    wide = min(max(1, radius), (min(height, width) - 1) // 2)
    if wide < 1:
        return
    halo, given = 2 * wide, target.copy()
    # The filter works in float32: its variances are differences, and need small numbers.
    middle, spread = float(given.mean(dtype=np.float64)), float(given.std(dtype=np.float64))
    if spread == 0:
        return
    # What the windows beside one edge reach is at the other one.
    beyond = halo if closed else 0
    columns = np.arange(-beyond, width + beyond) % width
    for rows in _strips(target.shape, halo):
        first, last = max(0, rows.start - halo), min(height, rows.stop + halo)
        guidance = torch.from_numpy(photo[first:last, columns]).permute(2, 0, 1)[None]
        values = torch.from_numpy((given[first:last, columns] - middle) / spread)[None, None]
        filtered = guided_blur(guidance, values, 2 * wide + 1, eps, separable=True)[0, 0].numpy()
        kept = filtered[rows.start - first : rows.stop - first, beyond : beyond + width]
        target[rows] = kept * spread + middle


def _strips(shape: tuple[int, ...], halo: int) -> list[slice]:
    """Return blocks of rows: those of `io.row_blocks`, at least as high as what is around each."""
    height = shape[0]
    block = next(row_blocks(shape)).stop
    size = max(block, 2 * halo)
    return [slice(start, min(start + size, height)) for start in range(0, height, size)]
