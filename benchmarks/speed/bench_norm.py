"""Time group normalisation with SiLU at Stable Diffusion's shapes: the kernels and torch, against the floor.

    python -m benchmarks.speed.bench_norm                  # a table
    python -m benchmarks.speed.bench_norm --sweep          # which cut to programs is fastest on this GPU
    python -m benchmarks.speed.bench_norm --device cpu --shape 1x64x8x8

Torch's time includes the copy to channels-last that the next convolution would make. The floor is the memory
traffic of these kernels at the bandwidth of a large copy in the same run: forward, x is read twice and y is
written; backward, x and its cotangent are read twice and the gradient is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from benchmarks.speed import report
from benchmarks.speed.records import Row, against_floor, circumstances, copy_bandwidth, time_runs
from redepth.ops import group_norm as twin
from redepth.runtime.device import choose_device

SHAPES = (
    "2x128x512x512",
    "2x256x256x256",
    "2x512x128x128",
    "2x512x64x64",
    "4x320x64x64",
    "4x960x64x64",
    "4x1920x32x32",
    "4x1280x16x16",
    "4x2560x8x8",
)
PASSES = {"forward": 3, "both": 8}
SWEEP = tuple(product((1024, 2048, 4096, 8192), (2, 4, 8), (1, 2, 4)))
console = Console(width=120)


def eager(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise in torch, as the networks do without the kernels."""
    y = torch.nn.functional.silu(torch.nn.functional.group_norm(x, groups, weight, bias))
    return y.contiguous(memory_format=torch.channels_last)


def fused(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise by the kernels, where they can run."""
    return twin.fused_group_norm(x, groups, weight, bias, silu=True)


def work(case: str, norm: Callable[..., Tensor], given: dict[str, Any]) -> Callable[[], object]:
    """Return a function without arguments that runs a case once."""
    if case == "forward":
        return torch.no_grad()(lambda: norm(**given))
    x = given["x"].detach().requires_grad_()
    cotangent = torch.randn_like(x)
    return lambda: torch.autograd.grad(norm(**{**given, "x": x}), x, cotangent)


def arguments(shape: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Draw an input of this shape, channels-last, and weights."""
    sizes = [int(part) for part in shape.split("x")]
    x = torch.randn(sizes, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, sizes[1], device=device, dtype=dtype)
    return {"x": x, "groups": 32, "weight": weight, "bias": bias}


def sweep(case: str, given: dict[str, Any], device: torch.device, seconds: float) -> dict[str, float]:
    """Return the milliseconds of each cut, fastest first; all kernels but the joins are cut alike."""
    from redepth.ops.triton.group_norm import launch

    names = ("SUMS", "RESULT", "BACKWARD") if case == "both" else ("SUMS", "RESULT")
    milliseconds: dict[str, float] = {}
    for name in names:
        shipped = getattr(launch, name)
        for elements, warps, tiles in SWEEP:
            if tiles > 1 and name == "SUMS":
                continue
            setattr(launch, name, launch.Launch(elements, warps, tiles))
            took = time_runs(work(case, fused, given), device, seconds)
            milliseconds[f"{name} {elements} elements {warps} warps {tiles} tiles"] = took.median_ms
            setattr(launch, name, shipped)
    return dict(sorted(milliseconds.items(), key=lambda item: item[1]))


def measure(
    shapes: Sequence[str], device: torch.device, seconds: float, dtype: torch.dtype = torch.float16
) -> Iterator[Row]:
    """Time each shape, forward and both ways, by the kernels and by torch."""
    bandwidth = copy_bandwidth(device, seconds)
    for shape, (case, passes) in product(shapes, PASSES.items()):
        given = arguments(shape, dtype, device)
        for name, norm in {"kernels": fused, "torch": eager}.items():
            took = time_runs(work(case, norm, given), device, seconds)
            yield Row(
                benchmark="group-norm",
                case=case,
                implementation=name,
                **took._asdict(),
                shape=tuple(given["x"].shape),
                lights=1,
                dtype=str(dtype).removeprefix("torch."),
                **circumstances(device),
                **against_floor(passes * given["x"].nbytes, took.median_ms, bandwidth),
            )


def main(
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    shape: Annotated[list[str] | None, typer.Option(help="NxCxHxW; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time to spend on each measurement.")] = 0.1,
    cuts: Annotated[bool, typer.Option("--sweep", help="Vary how the kernels are cut.")] = False,
) -> None:
    """Print the time of each shape."""
    where, sizes = choose_device(device), shape or SHAPES
    if not cuts:
        console.print(report.text(list(measure(sizes, where, seconds, getattr(torch, dtype)))), markup=False)
        return
    for size, case in product(sizes, PASSES):
        given = arguments(size, getattr(torch, dtype), where)
        best = list(sweep(case, given, where, seconds).items())[:6]
        console.print(size, case, *(f"\n  {took:.4f} ms {cut}" for cut, took in best))


if __name__ == "__main__":
    typer.run(main)
