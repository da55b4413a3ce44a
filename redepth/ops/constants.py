"""Small constants on the device of the data."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return numbers as a vector of another tensor's dtype on its device.

    It is made once per device, because a copy from the host waits for all work of the GPU.
    """
    return _made(values, like.dtype, like.device)


@lru_cache(maxsize=64)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
