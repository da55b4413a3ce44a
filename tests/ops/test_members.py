from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops import members
from tests.support.helpers import seeded

ROWS = 3


def given(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = seeded()
    return [torch.randn(ROWS, *s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


def alike(batched: Callable[..., Tensor], single: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    """Results and all gradients are those of one row at a time."""
    found, expected = batched(*tensors), torch.cat([single(*own) for own in zip(*tensors, strict=True)])
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn(found.shape, dtype=found.dtype, generator=seeded(1))
    for one, other in zip(
        *(torch.autograd.grad(y, tensors, cotangent) for y in (found, expected)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (1, {}),
        (1, {"stride": (2, 2)}),
        (1, {"padding": (1, 1)}),
        (3, {"padding": (1, 1)}),
        (3, {"padding": (1, 0), "stride": (2, 1)}),
        (3, {"padding": (2, 2), "dilation": (2, 2)}),
        (1, {"groups": 2}),
        (3, {"groups": 2}),
    ],
)
def test_convolutions_are_those_of_each_row(kernel: int, options: Any, bias: bool, layout: Any) -> None:
    channels = 4 // options.get("groups", 1)
    tensors = given((4, 6, 7), (6, channels, kernel, kernel), *([(6,)] if bias else []))
    tensors[0] = tensors[0].detach().to(memory_format=layout).requires_grad_()

    def batched(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return members.conv2d(x, w, b, **options)

    alike(batched, lambda x, w, b=None: F.conv2d(x[None], w, b, **options), tensors)


@pytest.mark.parametrize("one_channel", [True, False])
def test_a_convolution_to_one_channel_in_the_layout_of_copies(one_channel: bool) -> None:
    out = 1 if one_channel else 4
    x, weight, bias = given((8, 5, 6), (out, 1, 1, 8), (out,))
    rows = weight.detach().permute(0, 1, 4, 2, 3).requires_grad_()
    alike(members.conv2d, lambda x, w, b: F.conv2d(x[None], w, b), [x, rows, bias])


@pytest.mark.parametrize("bias", [True, False])
def test_blocks_are_transposed_convolutions_of_each_row(bias: bool) -> None:
    tensors = given((4, 3, 5), (4, 2, 2, 3), *([(2,)] if bias else []))

    def batched(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return members.conv_transpose2d(x, w, b)

    alike(batched, lambda x, w, b=None: F.conv_transpose2d(x[None], w, b, stride=(2, 3)), tensors)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (3, 5, 4)])
def test_linear_layers_are_those_of_each_row(shape: tuple[int, ...], bias: bool) -> None:
    tensors = given(shape, (6, 4), *([(6,)] if bias else []))

    def batched(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return members.linear(x, w, b)

    alike(batched, lambda x, w, b=None: F.linear(x[None], w, b), tensors)
