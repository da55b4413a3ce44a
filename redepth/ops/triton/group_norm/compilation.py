"""The kernels as sources for Triton's compiler, which needs no GPU."""

from __future__ import annotations

from typing import Any

import torch
from triton.compiler import ASTSource

from redepth.ops.triton.group_norm import backward, forward, launch

FLOAT32_ARGUMENTS = ("partial", "mean", "rstd", "plain", "along")
"""Pointers to float32, for any dtype of the pictures."""


def ahead_of_time(
    shape: tuple[int, int, int, int], groups: int = 32, *, dtype: str = "fp16", silu: bool = True
) -> dict[str, tuple[ASTSource, dict[str, Any]]]:
    """Return source and options of the kernels for `triton.compile`, by the kernels' names.

    These are all kernels that such pictures need, forward and backward, specialised as the launches
    specialise them, for contiguous weights of the same dtype.

    Args:
        shape: N, C, H and W.
        groups: number of groups that the channels are divided into.
        dtype: dtype of the tensors, as Triton names it.
        silu: whether SiLU follows.
    """
    images, channels, height, width = shape
    rows = torch.Size((images, height * width, channels))
    # An addend of each picture needs the most loads.
    addend = {"ADDEND": 2}
    activation = {"ACT": silu, **addend}
    join = launch.join_tile(channels, groups)

    def tile(cut: launch.Launch, *, summed: bool) -> dict[str, int]:
        return launch.cut(rows, cut, summed=summed).tile

    whole = launch.whole_tile(rows, groups)
    if whole:
        kernels = [(forward._whole, whole | activation)]
    else:
        kernels = [
            (forward._moments, tile(launch.SUMS, summed=True)),
            (forward._join_moments, join | addend),
            (forward._apply, tile(launch.RESULT, summed=False) | activation),
        ]
    kernels += [
        (backward._pulled, tile(launch.BACKWARD, summed=True) | activation),
        (backward._join_pulled, join),
        (backward._pull, tile(launch.BACKWARD, summed=False) | activation),
    ]
    return {
        kernel.__name__: _source(kernel, constants, dtype, channels, groups) for kernel, constants in kernels
    }


def _source(
    kernel: Any, constants: dict[str, Any], dtype: str, channels: int, groups: int
) -> tuple[ASTSource, dict[str, Any]]:
    """Return a kernel's source, with the specialisations of a launch, and its options."""
    constants = dict(constants)
    warps = constants.pop("num_warps")
    # The sizes in ``do_not_specialize`` are 0 here.
    numbers = {"pixels": 0, "chunk": 0, "chunks": 0, "channels": channels, "groups": groups}
    signature: dict[str, str] = {}
    values: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    aligned = [["tt.divisibility", 16]]
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[position,] = "constexpr", constants[name]
        elif name in numbers:
            signature[name] = "i32"
            if numbers[name] and numbers[name] % 16 == 0:
                attributes[position,] = aligned
        elif name == "eps":
            signature[name] = "fp32"
        else:
            signature[name] = "*fp32" if name in FLOAT32_ARGUMENTS else f"*{dtype}"
            attributes[position,] = aligned
    return ASTSource(kernel, signature, values, attributes), {"num_warps": warps}
