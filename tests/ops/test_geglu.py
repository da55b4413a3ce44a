"""The gated unit: the kernel, in Triton's interpreter or on a GPU, against torch."""

from __future__ import annotations

import pytest
import torch

from redepth.ops import geglu
from tests.support.helpers import relative_error, seeded

triton = pytest.importorskip("triton")

from redepth.ops.triton import geglu as geglu_triton  # noqa: E402

INTERPRETED = not isinstance(geglu_triton._geglu, triton.JITFunction)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


@pytest.mark.parametrize("shape", [(2, 5, 24), (3, 1, 2), (1, 7, 2 * 1280), (2, 3, 2 * 1025)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)]
)
def test_the_kernel_is_the_product(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    x = (3 * torch.randn(shape, generator=seeded())).to(DEVICE, dtype)
    first, second = x.double().chunk(2, dim=-1)
    expected = first * torch.nn.functional.gelu(second)
    found = geglu_triton.geglu(x)
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert relative_error(found.double(), expected) < tolerance
    assert torch.equal(geglu.geglu(x), found)


def test_with_gradient_torch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geglu_triton, "geglu", None)
    x = torch.randn(2, 8, generator=seeded()).to(DEVICE).requires_grad_()
    geglu.geglu(x).sum().backward()
    assert x.grad is not None
