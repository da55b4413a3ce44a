"""The parts of `benchmarks.speed.gpu` that time single pieces: copies, products, kernels, decoders."""

from __future__ import annotations

import torch

from benchmarks.speed import bench_decoders, bench_norm, bench_shading
from benchmarks.speed.gpu_part import Part
from benchmarks.speed.records import copy_rate, product_rate
from benchmarks.speed.report import SHADING_SHAPE
from redepth.runtime.device import numerics


def rates(part: Part) -> None:
    """Copies and matrix products."""
    copied = copy_rate(part.device, part.seconds)
    part.add(part.row("rates", "copy", "float32", copied.took, rate=copied.value, unit="GB/s"))
    dtypes = (torch.float32,) if part.device.type == "cpu" else (torch.float16, torch.bfloat16, torch.float32)
    for dtype in dtypes:
        for tf32 in (False, True) if dtype == torch.float32 else (False,):
            name = str(dtype).removeprefix("torch.")
            with numerics(part.device, tf32=tf32, cudnn_benchmark=False):
                product = product_rate(part.device, dtype, part.seconds)
            record = {"rate": product.value, "unit": "TFLOP/s", "dtype": name}
            form = f"{name}, tf32" if tf32 else name
            part.add(part.row("rates", "matrix product", form, product.took, **record))


def shading(part: Part) -> None:
    """The re-lighting kernel against eager and compiled torch."""
    shapes = [(1, 16, 16)] if part.tiny else [SHADING_SHAPE, (10, 518, 518)]
    names = ["eager"] if part.device.type == "cpu" else ["triton", "eager", "compile"]
    for row in bench_shading.measure(names, shapes, [1], part.device, part.seconds):
        part.add(row)


def norms(part: Part) -> None:
    """The fused normalisation against torch's normalisation."""
    dtype = torch.float16 if part.device.type == "cuda" else torch.float32
    shapes = ["1x64x8x8"] if part.tiny else bench_norm.SHAPES
    for row in bench_norm.measure(shapes, part.device, part.seconds / 3, dtype):
        part.add(row)


def decoders(part: Part) -> None:
    """The decoders of all members, in each form."""
    counts = [2] if part.tiny else [1, 10]
    with numerics(part.device, tf32=True, cudnn_benchmark=True):
        for row in bench_decoders.measure(["small"], counts, part.device, 2 if part.tiny else 10, part.tiny):
            part.add(row)
