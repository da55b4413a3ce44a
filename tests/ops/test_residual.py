"""The sum at the end of a residual block: the kernel, in Triton's interpreter or on a GPU, against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redepth.ops import residual
from tests.support.helpers import relative_error, seeded

triton = pytest.importorskip("triton")

from redepth.ops.triton import residual as residual_triton  # noqa: E402

INTERPRETED = not isinstance(residual_triton._add, triton.JITFunction)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


def given(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    a, b = (torch.randn(shape, generator=seeded(s)).to(DEVICE, dtype) for s in (0, 1))
    bias = torch.randn(shape[1], generator=seeded(2)).to(DEVICE, dtype)
    return [*(x.contiguous(memory_format=torch.channels_last) for x in (a, b)), bias]


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 320, 4, 4), (3, 1, 64, 65)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-7), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)]
)
def test_the_kernel_is_the_sum(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    a, b, bias = given(shape, dtype)
    a.requires_grad_()
    b.requires_grad_()
    found = residual_triton.add_with_bias(a, b, bias)
    exact = a.double() + b.double() + bias.double().view(-1, 1, 1)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(found.double(), exact) < tolerance
    cotangent = torch.randn(shape, generator=seeded(3)).to(found)
    for gradient in torch.autograd.grad(found, (a, b), cotangent):
        assert torch.equal(gradient, cotangent)


def test_a_bias_of_any_stride_is_read_rightly() -> None:
    a, b, bias = given((2, 6, 5, 7))
    expected = residual_triton.add_with_bias(a, b, bias)
    assert torch.equal(residual_triton.add_with_bias(a, b, bias.repeat_interleave(2)[::2]), expected)


def test_other_layouts_are_added_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, bias = given((2, 6, 5, 7))
    expected = residual_triton.add_with_bias(a, b, bias)
    monkeypatch.setattr(residual_triton, "add_with_bias", None)
    found = residual.add_with_bias(a.contiguous(), b, bias)
    assert relative_error(found, expected) < 1e-6


def test_a_bias_that_learns_is_added_in_torch() -> None:
    a, b, bias = given((2, 6, 5, 7))
    bias.requires_grad_()
    residual.add_with_bias(a, b, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((6,), 70.0, device=DEVICE))
