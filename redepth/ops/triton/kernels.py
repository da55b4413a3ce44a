"""Whether Triton kernels can run, for the functions that choose between them and torch."""

from __future__ import annotations

import importlib.metadata
import os

import torch
from torch import Tensor

OLDEST_TRITON = (3, 4)
"""The oldest release that compiles the kernels."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes that the kernels read and write."""


def triton_problem() -> str:
    """Return what to install before the kernels can be compiled; empty if they can."""
    command = 'pip install "redepth[triton]" (Linux)'
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return command
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TRITON:
        return ""
    return f"triton {version} is older than {'.'.join(map(str, OLDEST_TRITON))}: {command}"


# Constants, because torch.compile cannot trace the functions that compute them.
TRITON_PROBLEM = triton_problem()
"""The result of `triton_problem` on this machine."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in Triton's interpreter, which takes CPU tensors."""


def can_take(x: Tensor) -> bool:
    """Return whether kernels can read a tensor: on CUDA or in the interpreter, of their dtypes, not empty."""
    reachable = x.is_cuda or (INTERPRETED and x.device.type == "cpu")
    return reachable and x.dtype in DTYPES and x.numel() > 0 and not TRITON_PROBLEM


def learns(*tensors: Tensor) -> bool:
    """Return whether autograd tracks one of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
