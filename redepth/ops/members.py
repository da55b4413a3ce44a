"""Layers of several networks at once: row i of the input is computed with weights i.

A layer's weights have the axis of the networks first: (M, ...) for an input (M, ...) with one row each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, ...]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x_i w_i^T + b_i; x is (M, ..., C), ``weight`` (M, O, C), ``bias`` (M, O)."""
    rows = x.reshape(len(x), -1, x.shape[-1])
    return _product(rows, weight.mT, None if bias is None else bias[:, None]).view(*x.shape[:-1], -1)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve x (M, C, H, W) with ``weight`` (M, O, C / groups, h, w) and ``bias`` (M, O), row by row.

    A 1 x 1 convolution is a batched matrix product, any other one grouped convolution.
    """
    members, channels, height, width = x.shape
    if weight.shape[3:] == (1, 1) and set(stride) == {1} and groups == 1 and not any(padding):
        rows = _product(weight.flatten(2), x.flatten(2), None if bias is None else bias[:, :, None])
        return rows.unflatten(2, (height, width))
    y = F.conv2d(
        x.reshape(1, members * channels, height, width),
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        stride,
        padding,
        dilation,
        members * groups,
    )
    return y.unflatten(1, (members, -1)).squeeze(0)


def conv_transpose2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map each pixel of x (M, C, H, W) to an h x w block: ``weight`` is (M, C, O, h, w)."""
    _, _, out, high, wide = weight.shape
    blocks = torch.bmm(weight.flatten(2).mT, x.flatten(2)).view(len(x), out, high, wide, *x.shape[2:])
    y = blocks.permute(0, 1, 4, 2, 5, 3).reshape(len(x), out, x.shape[2] * high, x.shape[3] * wide)
    return y if bias is None else y + bias[:, :, None, None]


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b)
