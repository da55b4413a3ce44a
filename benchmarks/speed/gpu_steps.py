"""The parts of `benchmarks.speed.gpu` that time steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.gpu_part import Part, alone
from benchmarks.speed.records import timing
from benchmarks.speed.report import FAST
from benchmarks.speed.ways import (
    ALONE,
    PERFORMANCE,
    PLAIN,
    THEIRS,
    Bench,
    Way,
    console,
    dotted,
    first_gradient,
)
from redepth.optim.refiner import Refiner

VRAM = "8GB"
KERNELS = 45
"""Number of kernels that are listed."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("decoders", "streams"),
    ("decoders", "loop"),
    ("cudnn_benchmark", False),
    ("vae_attention", "sdpa"),
    ("tf32", False),
    ("shared_prefix", False),
    ("cuda_graphs", "off"),
    ("cuda_graphs", "denoiser"),
    ("fused_kernels", "off"),
    ("checkpointing", True),
    ("channels_last", False),
    ("read_losses_every", 1),
)
"""Options of the shipped preset that are changed one at a time."""


def exact_gradient(part: Part, bench: Bench) -> Tensor:
    """Return the first step's gradient in full float32; the first part that needs it computes it."""
    kept = part.scratch / "gradient.pt"
    with alone("gradient"):
        if not kept.exists():
            _save_exact_gradient(part, bench, kept)
    exact: Tensor = torch.load(kept)
    return exact


def _save_exact_gradient(part: Part, bench: Bench, kept: Path) -> None:
    plain = {**dotted(PLAIN), f"{PERFORMANCE}.tf32": False, "prior.dtype": "float32"}
    # Without checkpointing this process needs half of the GPU, which others may use too.
    plain[f"{PERFORMANCE}.checkpointing"] = True
    settings = bench.settings(Way("exact", part.together, plain))
    torch.save(first_gradient(bench.subject.refiner(settings), bench.subject.photo()), kept)


def measure(part: Part, bench: Bench, way: Way, *, inside: bool = False, judged: bool = False) -> None:
    """Time one way, with the error of its first gradient if ``judged``.

    A way that fails is noted in the part's failures; the other ways still run.
    """
    if part.ways and not any(word in way.name for word in part.ways):
        return
    try:
        with alone():
            rows = list(bench.one(way, inside=inside))
        # The gradient comes after the timing, whose first step counts as the way's warm-up.
        extra = _gradient_error(bench, way, exact_gradient(part, bench)) if judged else {}
        for row in rows:
            part.add(row.model_copy(update={"extra": row.extra | extra}))
    except Exception as error:
        part.failures.append(way.name)
        console.print(f"{way.name}: {type(error).__name__}: {str(error)[:2000]}", markup=False)
        console.print_exception(max_frames=12)


def _gradient_error(bench: Bench, way: Way, exact: Tensor) -> dict[str, float]:
    gradient = first_gradient(bench.subject.refiner(bench.settings(way)), bench.subject.photo())
    if len(gradient) != len(exact):
        # The members did not fit in memory together, so this gradient is of fewer members.
        return {}
    return {"gradient_error": float((gradient - exact).norm() / exact.norm())}


def shipped(*options: tuple[str, Any]) -> dict[str, Any]:
    """Return the settings of a long run without compilation, with some options changed."""
    return dotted([("compile", "off"), ("cuda_graphs", "step"), *options])


EAGER = ("cuda_graphs", "off")
"""Needed to time stages: a CUDA graph has none."""


def steps(part: Part) -> None:
    """Members together and one at a time, by stage; with a memory limit; the authors' way."""
    bench, n = part.bench(), part.together
    measure(part, bench, Way(f"{n} together", n, shipped()), judged=True)
    measure(part, bench, Way(f"{n} together, no graph", n, shipped(EAGER)), inside=True)
    measure(part, bench, Way(ALONE, 1, shipped()))
    measure(part, bench, Way(THEIRS, 1, dotted(PLAIN), reloads=True), inside=True)
    measure(part, bench, Way(f"{n // 2} together", n // 2, shipped()))
    if part.device.type == "cuda":
        measure(part, bench, Way(f"within {VRAM}", n, shipped() | {"optim.vram": VRAM}))
    measure(part, bench, Way(f"{ALONE}, no graph", 1, shipped(EAGER)), inside=True)
    measure(part, bench, Way(f"{n} together, plain", n, dotted(PLAIN)), inside=True, judged=True)


def options(part: Part) -> None:
    """Each option changed alone, and bfloat16."""
    bench, n = part.bench(), part.together
    for name, value in OPTIONS:
        measure(part, bench, Way(f"{n} together, {name}={value}", n, shipped((name, value))), judged=True)
    half = shipped() | {"prior.dtype": "bfloat16"}
    measure(part, bench, Way(f"{n} together, bfloat16", n, half), judged=True)


def kernels(part: Part) -> None:
    """The kernels of a step, of the shipped preset and of the plain one, by time."""
    bench, n = part.bench(), part.together
    for name, settings in (("no graph", shipped(EAGER)), ("plain", dotted(PLAIN))):
        list_kernels(part, bench, Way(f"{n} together, {name}", n, settings))


def list_kernels(part: Part, bench: Bench, way: Way) -> None:
    """Profile some steps and store a row of the kernels that take most of their time."""
    refiner = bench.subject.refiner(bench.settings(way))
    refiner.optim = refiner.optim.model_copy(update={"steps": 3})
    refiner.run(bench.subject.photo())
    one, three = (_profiled(part, bench, refiner, steps) for steps in (1, 3))
    # Half the difference of three steps and one: work of the run itself, such as the encoder, drops out.
    per_step = {}
    for name, (ms, calls) in three.items():
        ms_of_one, calls_of_one = one.get(name, (0.0, 0.0))
        per_step[name] = ((ms - ms_of_one) / 2, (calls - calls_of_one) / 2)
    total = max(sum(ms for ms, _ in per_step.values()), 1e-6)
    slowest = sorted(per_step.items(), key=lambda item: -item[1][0])[:KERNELS]
    listed = [{"name": name, "ms": round(ms, 4), "calls": calls} for name, (ms, calls) in slowest]
    launched = sum(calls for _, calls in per_step.values())
    part.add(part.row("kernels", "step", way.name, timing([total, total]), kernels=listed, launched=launched))


def _profiled(part: Part, bench: Bench, refiner: Refiner, steps: int) -> dict[str, tuple[float, float]]:
    """Return name -> (milliseconds, calls) of the kernels of a run with this number of steps."""
    from torch.profiler import ProfilerActivity, profile

    if part.device.type == "cuda":
        activity, time_of_itself = ProfilerActivity.CUDA, "self_device_time_total"
    else:
        activity, time_of_itself = ProfilerActivity.CPU, "self_cpu_time_total"
    refiner.optim = refiner.optim.model_copy(update={"steps": steps})
    with profile(activities=[activity]) as profiled:
        refiner.run(bench.subject.photo())
    # Calls of the runtime take no time on the device and are not kernels.
    events = [event for event in profiled.key_averages() if getattr(event, time_of_itself) > 0]
    return {event.key: (getattr(event, time_of_itself) / 1e3, event.count) for event in events}


def compile_prior(part: Part) -> None:
    """torch.compile of the prior, with and without the fused kernels."""
    bench, n = part.bench(), part.together
    compiled = ("compile", "off" if part.tiny else "prior")
    ways: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = (
        ("compile=prior, fused_kernels=off", (compiled, ("fused_kernels", "off"))),
        ("compile=prior", (compiled,)),
    )
    for name, changed in ways:
        measure(part, bench, Way(f"{n} together, {name}", n, shipped(*changed)), judged=True)


def compile_all(part: Part) -> None:
    """torch.compile of prior and decoders."""
    bench, n = part.bench(), part.together
    way = Way(f"{n} together, compile=all", n, shipped(("compile", "off" if part.tiny else "all")))
    measure(part, bench, way, judged=True)


def fast(part: Part) -> None:
    """The preset `re-depth-fast`, whose mathematics differs."""
    bench = part.bench(FAST)
    n = 2 if part.tiny else bench.subject.preset().optim.members
    measure(part, bench, Way(f"{n} together", n, shipped()))
    measure(part, bench, Way(f"{n} together, no graph", n, shipped(EAGER)), inside=True)
