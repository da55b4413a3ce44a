"""Fixtures of where and in what precision a test computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The CPU, and under `pytest -m gpu` a GPU without TF32, so that its float32 is comparable with a CPU's.

    With REDEPTH_PRETEND_GPU set, a machine without a GPU pretends one, which finds tensors that a test does
    not move to the device.
    """
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    gpu = torch.device("cuda", 0)
    if torch.cuda.is_available():
        from redepth.runtime.device import numerics

        with numerics(gpu, tf32=False, cudnn_benchmark=False):
            yield gpu
    elif os.environ.get("REDEPTH_PRETEND_GPU"):
        from tests.support.pretend_device import PretendedGPU

        with PretendedGPU():
            yield gpu
    else:
        pytest.skip("needs a CUDA device")


@pytest.fixture(params=["float32", pytest.param("float16", marks=pytest.mark.gpu)])
def dtype(request: pytest.FixtureRequest) -> Any:
    """The precision of a prior, by name: float32, and under `pytest -m gpu` float16 too."""
    return request.param
