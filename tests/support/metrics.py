"""Random depths, methods and comparisons for the tests of the metrics."""

from __future__ import annotations

from typing import get_args

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from redepth.metrics import Method
from tests.support.helpers import seeded

METHODS: tuple[Method, ...] = get_args(Method)
SEEDS = st.integers(0, 2**31)
few = settings(max_examples=25, deadline=None)


def depths(seed: int = 0, *shape: int) -> Tensor:
    """Random depths in (1, 3), float64."""
    size = shape or (12, 14)
    return 1 + 2 * torch.rand(size, generator=seeded(seed), dtype=torch.float64)


GOOD = depths(0, 4, 5)
"""Ground truth that can be used."""


def close(
    metrics: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    """Assert that two records have the same names and close values."""
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=rtol, atol=atol, msg=name)
