"""Time Blinn-Phong relighting: the kernels, the eager twin and its torch.compile, against the memory floor.

    python -m benchmarks.speed.bench_shading               # writes benchmarks/results/shading-<device>.json
    python -m benchmarks.speed.bench_shading --sweep       # the fastest cut to programs on this GPU
    python -m benchmarks.speed.bench_shading --size 1x128x128 --lights 1     # another size, on a CPU too

A time is the median of repeated runs with a cold cache. The floor counts each input read once and each output
written once, at the bandwidth of a large copy in the same run.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import torch._functorch.config as functorch
import typer
from rich.console import Console
from torch import Tensor

from benchmarks.speed import report
from benchmarks.speed.records import (
    Row,
    against_floor,
    circumstances,
    copy_bandwidth,
    result_path,
    save_each,
    time_runs,
)
from benchmarks.speed.report import SHADING_SHAPE
from redepth.ops import color, shading
from redepth.renderers.blinn_phong import BlinnPhong

Relight = Callable[..., Tensor]
Shape = tuple[int, int, int]

CASES = ("forward", "backward", "both")
IMPLEMENTATIONS = ("triton", "eager", "compile")
GPU_SIZES = ("1x518x518", "10x518x518", "16x1024x1024")
CPU_SIZES = ("1x256x256",)
SWEEP = tuple(product((8, 16, 32, 64, 128), (1, 2, 4, 8)))


app = typer.Typer(add_completion=False)
console = Console(width=120)


# --- what is timed --------------------------------------------------------------------------------


def problem(name: str, device: torch.device) -> str:
    """Return why an implementation cannot be timed here; empty if it can."""
    if name == "triton" and (device.type != "cuda" or importlib.util.find_spec("triton") is None):
        return "needs a CUDA GPU and triton"
    if name == "compile" and device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "needs a C++ compiler"
    return ""


def implementation(name: str) -> Relight:
    """Return the function of an implementation."""
    if name == "triton":
        from redepth.ops.triton import blinn_phong as shading_triton

        return shading_triton.relight_blinn_phong
    if name == "compile":
        torch._dynamo.reset()
        return torch.compile(shading.relight_blinn_phong, dynamic=False)
    return shading.relight_blinn_phong


def arguments(shape: Shape, lights: int, device: torch.device) -> dict[str, Tensor]:
    """Draw a scene of the size; its values must be plausible, but do not affect the time."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, height // 16 + 2, width // 16 + 2, generator=generator)
    terrain = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    photo = torch.rand(1, 3, height, width, generator=generator).expand(batch, -1, -1, -1).contiguous()
    light = BlinnPhong(lights=lights).draw(batch, generator)
    drawn = {
        "depth": 1 + 0.2 * terrain,
        "image_linear": color.srgb_to_linear(photo),
        "direction": light.direction,
        "diffuse": light.material.diffuse[..., None].repeat(1, 1, 3),
        "specular": light.material.specular[..., None].repeat(1, 1, 3),
        "shininess": light.material.shininess,
    }
    return {name: value.to(device) for name, value in drawn.items()}


def bytes_floor(case: str, shape: Shape, lights: int) -> int:
    """Return the bytes to move: depth and photo, result or cotangent, and the gradient of the depth."""
    pixels = shape[0] * shape[1] * shape[2]
    forward, backward = 4 + 12 + 12 * lights, 4 + 12 + 12 * lights + 4
    return pixels * {"forward": forward, "backward": backward, "both": forward + backward}[case]


def work(case: str, relight: Relight, given: dict[str, Tensor]) -> Callable[[], object]:
    """Return a function without arguments that runs a case once."""
    depth = given["depth"].clone().requires_grad_()
    inputs = {**given, "depth": depth}
    batch, _, height, width = depth.shape
    cotangent = torch.randn(batch, given["shininess"].shape[1], 3, height, width).to(depth.device)
    if case == "forward":
        return torch.no_grad()(lambda: relight(**given))
    if case == "both":
        return lambda: torch.autograd.grad(relight(**inputs), depth, cotangent)
    relit = relight(**inputs)
    return lambda: torch.autograd.grad(relit, depth, cotangent, retain_graph=True)


def peak_mib(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Return the device memory that one run adds; {} where it cannot be measured."""
    if device.type != "cuda":
        return {}
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return {"peak_mib": round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)}


# --- measurement ----------------------------------------------------------------------------------


def measure(
    names: Sequence[str], sizes: Sequence[Shape], lights: Sequence[int], device: torch.device, seconds: float
) -> Iterator[Row]:
    """Time every case of every implementation at every size."""
    # The backward pass is timed repeatedly on one graph, so its buffers must not be donated.
    functorch.donated_buffer = False
    common = circumstances(device)
    copy_gb_s = copy_bandwidth(device, seconds)
    console.print(f"{common['device']}: a copy moves {copy_gb_s:.0f} GB/s")
    for shape, count, name in product(sizes, lights, names):
        given = arguments(shape, count, device)
        relight = implementation(name)
        for case in CASES:
            run = work(case, relight, given)
            took = time_runs(run, device, seconds)
            yield Row(
                benchmark="shading",
                case=case,
                implementation=name,
                **took._asdict(),
                shape=shape,
                lights=count,
                dtype="float32",
                **common,
                **against_floor(bytes_floor(case, shape, count), took.median_ms, copy_gb_s),
                extra=peak_mib(run, device),
            )
            del run


def sweep(shape: Shape, lights: int, device: torch.device, seconds: float) -> Iterator[Row]:
    """Time both kernels under every cut to programs."""
    from redepth.ops.triton.blinn_phong import launch

    common = circumstances(device)
    copy_gb_s = copy_bandwidth(device, seconds)
    given = arguments(shape, lights, device)
    standard = launch.FORWARD, launch.BACKWARD
    try:
        for rows, strips in SWEEP:
            launch.FORWARD = launch.BACKWARD = launch.Launch(rows, strips)
            for case in ("forward", "backward"):
                took = time_runs(work(case, implementation("triton"), given), device, seconds)
                yield Row(
                    benchmark="shading-sweep",
                    case=case,
                    implementation=f"triton, {rows} rows, {strips} strips",
                    **took._asdict(),
                    shape=shape,
                    lights=lights,
                    dtype="float32",
                    **common,
                    **against_floor(bytes_floor(case, shape, lights), took.median_ms, copy_gb_s),
                )
    finally:
        launch.FORWARD, launch.BACKWARD = standard


# --- command line ---------------------------------------------------------------------------------


def parse_size(text: str) -> Shape:
    """Parse BxHxW."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise typer.BadParameter(f"a size is BxHxW, such as 1x518x518, got {text}")
    batch, height, width = map(int, match.groups())
    return batch, height, width


def chosen(names: Sequence[str] | None, device: torch.device) -> list[str]:
    """Return the implementations to time: by default, all that run here."""
    if unknown := set(names or ()) - set(IMPLEMENTATIONS):
        raise typer.BadParameter(f"no {', '.join(unknown)}; there are: {', '.join(IMPLEMENTATIONS)}")
    problems = {name: problem(name, device) for name in names or IMPLEMENTATIONS}
    for name, reason in problems.items():
        if reason:
            console.print(f"{name} is left out: {reason}")
    return [name for name, reason in problems.items() if not reason]


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="BxHxW; may be repeated.")] = None,
    lights: Annotated[list[int] | None, typer.Option(help="Lights per image; may be repeated.")] = None,
    implementations: Annotated[
        list[str] | None, typer.Option("--only", help="triton, eager or compile; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0, help="Time to spend on each measurement.")] = 0.5,
    out: Annotated[Path | None, typer.Option(help="JSON file; by default in benchmarks/results.")] = None,
    try_cuts: Annotated[bool, typer.Option("--sweep", help="Vary how the kernels are cut.")] = False,
) -> None:
    """Time relighting, print the table and the targets, and store the rows."""
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if try_cuts:
        if why := problem("triton", on):
            raise typer.BadParameter(f"--sweep {why}")
        shape = parse_size(size[0]) if size else SHADING_SHAPE
        path = result_path(out, "shading-sweep", on)
        rows = save_each(path, sweep(shape, (lights or [1])[0], on, seconds))
        for case in ("forward", "backward"):
            best = min((row for row in rows if row.case == case), key=lambda row: row.median_ms)
            console.print(f"{case}: the fastest is {best.implementation}")
    else:
        sizes = [parse_size(text) for text in size or (GPU_SIZES if on.type == "cuda" else CPU_SIZES)]
        path = result_path(out, "shading", on)
        names = chosen(implementations, on)
        rows = save_each(path, measure(names, sizes, lights or [1, 4], on, seconds))
        console.print(report.text(rows), highlight=False, markup=False)
    console.print(f"wrote {path}")


if __name__ == "__main__":
    app()
