"""Group normalisation as an autograd function and as operators for torch.compile."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from redepth.ops.triton.group_norm.backward import input_gradient
from redepth.ops.triton.group_norm.blocks import program_block
from redepth.ops.triton.group_norm.forward import normalize
from redepth.ops.triton.group_norm.launch import GRID_LIMIT
from redepth.ops.triton.kernels import DTYPES

INTERPRETED = not isinstance(program_block, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter."""


class _GroupNorm(torch.autograd.Function):
    """`group_norm` of checked arguments, outside of torch.compile."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        silu: bool,
        addend: Tensor | None,
    ) -> Tensor:
        y, mean, rstd = normalize(x, groups, weight, bias, eps, silu, addend)
        ctx.save_for_backward(x, weight, bias, mean, rstd, addend)
        ctx.groups, ctx.silu = groups, silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, addend = ctx.saved_tensors
        gradient = input_gradient(cotangent, x, ctx.groups, weight, bias, mean, rstd, ctx.silu, addend)
        return gradient, None, None, None, None, None, None


# The same as operators, which torch.compile does not look into. Elsewhere they are not used: an operator's
# overhead is larger than that of the launches.

_forward_op = torch.library.custom_op(
    "redepth::group_norm",
    normalize,
    mutates_args=(),
    schema=(
        "(Tensor x, int groups, Tensor weight, Tensor bias, float eps, bool silu, Tensor? addend) -> "
        "(Tensor, Tensor, Tensor)"
    ),
)
_backward_op = torch.library.custom_op(
    "redepth::group_norm_backward",
    input_gradient,
    mutates_args=(),
    schema=(
        "(Tensor cotangent, Tensor x, int groups, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, "
        "bool silu, Tensor? addend) -> Tensor"
    ),
)


def _like(x: Tensor) -> Tensor:
    rows = torch.empty((x.shape[0], *x.shape[2:], x.shape[1]), dtype=x.dtype, device=x.device)
    return rows.movedim(-1, 1)


@_forward_op.register_fake
def _(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, addend: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (x.new_empty((x.shape[0], groups), dtype=torch.float32) for _ in range(2))
    return _like(x), mean, rstd


@_backward_op.register_fake
def _(cotangent: Tensor, x: Tensor, *_: Any) -> Tensor:
    return _like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, groups, weight, bias, _, silu, addend = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:], addend)
    ctx.groups, ctx.silu = groups, silu


def _pull_back(ctx: Any, cotangent: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd, addend = ctx.saved_tensors
    gradient = _backward_op(cotangent, x, ctx.groups, weight, bias, mean, rstd, ctx.silu, addend)
    return gradient, None, None, None, None, None, None


_forward_op.register_autograd(_pull_back, setup_context=_keep)


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    addend: Tensor | None = None,
) -> Tensor:
    """Normalise groups of channels, and apply SiLU: `group_norm.group_norm`, whose equations hold.

    Gradients flow to x only. Arithmetic is float32.

    Args:
        x: (N, C, ...), float32, float16 or bfloat16, on a CUDA device; a tensor that is not channels-last is
            copied to that layout first.
        groups: number of groups that the channels are divided into.
        weight: (C,) w, of any of these dtypes.
        bias: (C,) b, of any of these dtypes.
        eps: added to the variance.
        silu: whether SiLU follows.
        addend: (1 or N, C), added to x first; of any of these dtypes, and without gradient.

    Returns:
        The shape and dtype of ``x``, in channels-last memory.

    Raises:
        TypeError: a dtype is none of these.
        ValueError: a shape or a device does not fit, weight or bias require grad (the kernels compute no
            gradient for them), or the tensors are not on a CUDA device.
    """
    _check(x, groups, weight, bias, addend)
    weight, bias = weight.contiguous(), bias.contiguous()
    addend = None if addend is None else addend.contiguous()
    if torch.compiler.is_compiling():
        return _forward_op(x, groups, weight, bias, eps, silu, addend)[0]
    if torch.is_grad_enabled() and x.requires_grad:
        return _GroupNorm.apply(x, groups, weight, bias, eps, silu, addend)
    return normalize(x, groups, weight, bias, eps, silu, addend)[0]


def _check(x: Tensor, groups: int, weight: Tensor, bias: Tensor, addend: Tensor | None) -> None:
    if x.dim() < 3 or x.numel() == 0:
        raise ValueError(f"x must be (N, C, ...) with pixels and not empty, got {tuple(x.shape)}")
    images, channels = x.shape[:2]
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not fall into {groups} groups")
    if images > GRID_LIMIT or channels > GRID_LIMIT:
        raise ValueError(f"at most {GRID_LIMIT} pictures and channels at a time, got {tuple(x.shape)}")
    vectors: dict[str, tuple[Tensor, set[tuple[int, ...]]]]
    vectors = {"weight": (weight, {(channels,)}), "bias": (bias, {(channels,)})}
    if addend is not None:
        vectors["addend"] = (addend, {(1, channels), (images, channels)})
    for name, (value, shapes) in {"x": (x, {tuple(x.shape)}), **vectors}.items():
        if value.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, float16 or bfloat16, got {value.dtype}")
        if value.device != x.device:
            raise ValueError(f"{name} must be on {x.device} as x is, got {value.device}")
        if tuple(value.shape) not in shapes:
            wanted = " or ".join(str(shape) for shape in sorted(shapes))
            raise ValueError(f"{name} must be {wanted}, got {tuple(value.shape)}")
        if name != "x" and torch.is_grad_enabled() and value.requires_grad:
            raise ValueError(f"the triton kernels have no gradient for {name}; freeze it, or use the twin")
    if x.device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"the triton kernels need a CUDA device, got {x.device}; use the twin, or set "
            "TRITON_INTERPRET=1 before the import to run them in Triton's slow interpreter"
        )
