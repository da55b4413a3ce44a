"""The parts of `benchmarks.speed.gpu`, each run by it in a process of its own.

    python -m benchmarks.speed.gpu_parts PART rows.jsonl SCRATCH [--tiny]

``SCRATCH`` is a folder that the parts of one run share: the first that needs them writes the networks there.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Timer
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.speed import bench_decoders, bench_norm, bench_shading, random_models
from benchmarks.speed.random_models import REAL, SMALL
from benchmarks.speed.records import ROOT, Row, Timing, append, circumstances, copy_rate, product_rate, timing
from benchmarks.speed.report import FAST, PAPER, SHADING_SHAPE
from benchmarks.speed.told_at_once import TOLD
from benchmarks.speed.ways import (
    ALONE,
    PERFORMANCE,
    PLAIN,
    THEIRS,
    Bench,
    Effort,
    Subject,
    Way,
    console,
    dotted,
    first_gradient,
)
from redepth.runtime.device import choose_device, numerics

VRAM = "8GB"
KERNEL_TESTS = ("geglu", "group_norm", "residual")
"""Of tests/ops: they run on a GPU where there is one."""
WORKERS = max(1, 3 * (os.cpu_count() or 1) // 4)
"""Processes that run tests side by side: most of their time is the host's."""
KERNELS = 45
"""How many kernels are listed."""

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
"""What is changed in the preset as it ships, one option at a time."""


@contextmanager
def alone(what: str = "timing") -> Iterator[None]:
    """Let processes that share a GPU take turns with something."""
    with (Path(tempfile.gettempdir()) / f"redepth-benchmarks-{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Part:
    """What a part is given.

    Attributes:
        rows: the file that rows are appended to.
        scratch: the folder that the parts share.
        tiny: whether all sizes are small.
        limit: seconds after which the part is stopped.
        ways: words of which a way's name has to contain one, to be timed; none: all are.
        started: when that time began.
        failures: what did not go well; a part that has some ends with exit code 1.
    """

    rows: Path
    scratch: Path
    tiny: bool
    limit: float = 600.0
    ways: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)

    @cached_property
    def device(self) -> torch.device:
        """The GPU; the CPU where there is none and sizes are small."""
        return choose_device("auto" if self.tiny else "cuda")

    @property
    def effort(self) -> Effort:
        """How long a way is timed."""
        # A graph is captured after three steps.
        return Effort(4, 2, 1) if self.tiny else Effort(8, 12, 1)

    @property
    def together(self) -> int:
        """Members of the paper's preset."""
        return 2 if self.tiny else 10

    @property
    def seconds(self) -> float:
        """Time for each measurement of its own."""
        return 0.0 if self.tiny else 0.3

    def add(self, row: Row) -> None:
        """Store a row and say so."""
        if self.tiny:
            row = row.model_copy(update={"extra": row.extra | {"tiny": True}})
        append(self.rows, row)
        error = row.extra.get("gradient_error")
        told = f", gradient off by {error:.1e}" if error is not None else ""
        console.print(f"{row.benchmark}, {row.case}, {row.implementation}: {row.median_ms:.4g} ms{told}")

    def row(self, benchmark: str, case: str, implementation: str, took: Timing, **extra: Any) -> Row:
        """Return a row on something that is no step and has no size of its own."""
        return Row(
            benchmark=benchmark,
            case=case,
            implementation=implementation,
            **took._asdict(),
            **circumstances(self.device),
            shape=(1,),
            lights=1,
            dtype=extra.pop("dtype", "float32"),
            extra=extra,
        )

    def networks(self) -> Path:
        """Return the folder of networks with random weights, written by whoever asks first."""
        folder = self.scratch / "networks"
        with alone("networks"):
            if not (folder / "sd/scheduler").exists():
                random_models.write(folder, SMALL if self.tiny else REAL, self.device)
        return folder

    def bench(self, preset: str = PAPER) -> Bench:
        """Return the bench of a preset on these networks."""
        subject = Subject(preset, self.device, self.networks(), self.tiny)
        return Bench.of(subject, self.effort, self.seconds)


def rates(part: Part) -> None:
    """Copies and matrix products."""
    copied = copy_rate(part.device, part.seconds)
    part.add(part.row("rates", "copy", "float32", copied.took, rate=copied.value, unit="GB/s"))
    dtypes = (torch.float32,) if part.device.type == "cpu" else (torch.float16, torch.bfloat16, torch.float32)
    for dtype in dtypes:
        for tf32 in (False, True) if dtype == torch.float32 else (False,):
            name = str(dtype).removeprefix("torch.")
            with numerics(part.device, tf32=tf32, cudnn_benchmark=False):
                found = product_rate(part.device, dtype, part.seconds)
            told = {"rate": found.value, "unit": "TFLOP/s", "dtype": name}
            form = f"{name}, tf32" if tf32 else name
            part.add(part.row("rates", "matrix product", form, found.took, **told))


# --- tests ----------------------------------------------------------------------------------------


def run_tests(part: Part, marks: str, *where: str) -> None:
    """Run tests; what they came to is a row, also where their time ends before they do.

    Each failure is told at once (`benchmarks.speed.told_at_once`).
    """
    # A CPU has none of them: a few stand in, so that this part is tried too.
    asked = ["tests/ops/test_filters.py"] if part.tiny else ["-m", marks, *(where or ("tests",))]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "benchmarks.speed.told_at_once",
        *asked,
    ]
    if importlib.util.find_spec("xdist") is not None and not part.tiny:
        command += ["-n", str(WORKERS)]
    outcomes = Counter[str]()
    failed: list[str] = []
    with alone():
        began = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            # Its workers too: while one of them runs, what it says does not end.
            stop = partial(os.killpg, process.pid, signal.SIGKILL)
            left = part.limit - (time.monotonic() - part.started)
            timer = Timer(max(left - 10, 1), stop)
            timer.start()
            for line in process.stdout or ():
                if line.startswith(TOLD):
                    outcome, name = line.removeprefix(TOLD).split(" ", 1)
                    outcomes[outcome] += 1
                    if outcome == "failed":
                        failed.append(name.strip())
                    continue
                sys.stdout.write(line)
                sys.stdout.flush()
            timer.cancel()
    took, name = 1e3 * (time.perf_counter() - began), " ".join([marks, *where])
    counts = {n: outcomes[n] for n in ("passed", "skipped")}
    if process.returncode:
        part.failures.append(f"{name}: {len(failed)} failed, pytest ended with {process.returncode}")
    ended = {"failed": failed, "whole": process.returncode in (0, 1), **counts}
    part.add(part.row("tests", "gpu", name, timing([took, took]), **ended))


def tests(part: Part) -> None:
    """All GPU tests but those that compile, and those of the mesh renderer, which compiles its rasterizer."""
    run_tests(part, "gpu and not compiles", "tests", "--ignore=tests/renderers/test_mesh_gpu.py")


def kernel_tests(part: Part) -> None:
    """The tests of kernels, which run on a GPU where there is one."""
    run_tests(part, "not slow and not gpu", *(f"tests/ops/test_{n}.py" for n in KERNEL_TESTS))


def compiled_tests(part: Part) -> None:
    """The GPU tests that compile."""
    run_tests(part, "gpu and compiles")


def mesh(part: Part) -> None:
    """The mesh renderer with nvdiffrast, which compiles itself first."""
    run_tests(part, "gpu", "tests/renderers/test_mesh_gpu.py")


# --- steps ----------------------------------------------------------------------------------------


def exact_gradient(part: Part, bench: Bench) -> Tensor:
    """Return the first step's gradient in full float32, computed by whoever asks first."""
    kept = part.scratch / "gradient.pt"
    with alone("gradient"):
        if not kept.exists():
            _save_exact_gradient(part, bench, kept)
    exact: Tensor = torch.load(kept)
    return exact


def _save_exact_gradient(part: Part, bench: Bench, kept: Path) -> None:
    plain = {**dotted(PLAIN), f"{PERFORMANCE}.tf32": False, "prior.dtype": "float32"}
    # Other processes may be on the GPU too: without it this one would need half of it.
    plain[f"{PERFORMANCE}.checkpointing"] = True
    settings = bench.settings(Way("exact", part.together, plain))
    torch.save(first_gradient(bench.subject.refiner(settings), bench.subject.photo()), kept)


def measure(part: Part, bench: Bench, way: Way, *, inside: bool = False, judged: bool = False) -> None:
    """Time one way, judged by its first gradient if asked; after one that fails the others still run."""
    if part.ways and not any(word in way.name for word in part.ways):
        return
    try:
        with alone():
            rows = list(bench.one(way, inside=inside))
        # Afterwards: what a first step costs is the way's warm-up.
        extra = _gradient_error(bench, way, exact_gradient(part, bench)) if judged else {}
        for row in rows:
            part.add(row.model_copy(update={"extra": row.extra | extra}))
    except Exception as error:
        part.failures.append(way.name)
        console.print(f"{way.name}: {type(error).__name__}: {str(error)[:2000]}", markup=False)
        console.print_exception(max_frames=12)


def _gradient_error(bench: Bench, way: Way, exact: Tensor) -> dict[str, float]:
    found = first_gradient(bench.subject.refiner(bench.settings(way)), bench.subject.photo())
    # Where the members did not fit together, this is another group's gradient.
    return (
        {"gradient_error": float((found - exact).norm() / exact.norm())} if len(found) == len(exact) else {}
    )


def shipped(*options: tuple[str, Any]) -> dict[str, Any]:
    """Return the settings of a long run, but for compilation, with some options changed."""
    return dotted([("compile", "off"), ("cuda_graphs", "step"), *options])


EAGER = ("cuda_graphs", "off")
"""Where stages are looked at: a graph has none."""


def steps(part: Part) -> None:
    """Members together and one at a time, by stage; under a memory limit; the authors' way."""
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
    """Each option changed by itself, and bfloat16."""
    bench, n = part.bench(), part.together
    for name, value in OPTIONS:
        measure(part, bench, Way(f"{n} together, {name}={value}", n, shipped((name, value))), judged=True)
    half = shipped() | {"prior.dtype": "bfloat16"}
    measure(part, bench, Way(f"{n} together, bfloat16", n, half), judged=True)


def kernels(part: Part) -> None:
    """The kernels of a step as the preset ships and of the plain one, by time."""
    bench, n = part.bench(), part.together
    for name, settings in (("no graph", shipped(EAGER)), ("plain", dotted(PLAIN))):
        list_kernels(part, bench, Way(f"{n} together, {name}", n, settings))


def list_kernels(part: Part, bench: Bench, way: Way) -> None:
    """Profile some steps and store a row of what took most of them."""
    from torch.profiler import ProfilerActivity, profile

    refiner = bench.subject.refiner(bench.settings(way))
    refiner.optim = refiner.optim.model_copy(update={"steps": 3})
    refiner.run(bench.subject.photo())
    found: dict[int, dict[str, list[float]]] = {}
    for count in (1, 3):
        refiner.optim = refiner.optim.model_copy(update={"steps": count})
        kind = ProfilerActivity.CUDA if part.device.type == "cuda" else ProfilerActivity.CPU
        with profile(activities=[kind]) as profiled:
            refiner.run(bench.subject.photo())
        own = "self_device_time_total" if part.device.type == "cuda" else "self_cpu_time_total"
        # Calls of the runtime, which take no time on the device, are none of its kernels.
        events = [e for e in profiled.key_averages() if getattr(e, own) > 0]
        found[count] = {e.key: [getattr(e, own) / 1e3, e.count] for e in events}
    # Two steps less one: what the run itself does, such as the encoder, drops out.
    per_step = {
        key: [(now - then) / 2 for now, then in zip(found[3][key], found[1].get(key, [0.0, 0]), strict=True)]
        for key in found[3]
    }
    listed = sorted(per_step.items(), key=lambda item: -item[1][0])[:KERNELS]
    total = max(sum(ms for ms, _ in per_step.values()), 1e-6)
    told = [{"name": key, "ms": round(ms, 4), "calls": calls} for key, (ms, calls) in listed]
    launched = sum(calls for _, calls in per_step.values())
    part.add(part.row("kernels", "step", way.name, timing([total, total]), kernels=told, launched=launched))


def compile_prior(part: Part) -> None:
    """torch.compile of the prior, with and without what it could do by itself."""
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
    """The preset with other mathematics."""
    bench = part.bench(FAST)
    n = 2 if part.tiny else bench.subject.preset().optim.members
    measure(part, bench, Way(f"{n} together", n, shipped()))
    measure(part, bench, Way(f"{n} together, no graph", n, shipped(EAGER)), inside=True)


# --- single pieces --------------------------------------------------------------------------------


def shading(part: Part) -> None:
    """The re-lighting kernel against eager and compiled torch."""
    shapes = [(1, 16, 16)] if part.tiny else [SHADING_SHAPE, (10, 518, 518)]
    names = ["eager"] if part.device.type == "cpu" else ["triton", "eager", "compile"]
    for row in bench_shading.measure(names, shapes, [1], part.device, part.seconds):
        part.add(row)


def norms(part: Part) -> None:
    """The fused normalisation against torch's."""
    dtype = torch.float16 if part.device.type == "cuda" else torch.float32
    shapes = ["1x64x8x8"] if part.tiny else bench_norm.SHAPES
    for row in bench_norm.measure(shapes, part.device, part.seconds / 3, dtype):
        part.add(row)


def decoders(part: Part) -> None:
    """The decoders of all members in each form."""
    counts = [2] if part.tiny else [1, 10]
    with numerics(part.device, tf32=True, cudnn_benchmark=True):
        for row in bench_decoders.measure(["small"], counts, part.device, 2 if part.tiny else 10, part.tiny):
            part.add(row)


PARTS: dict[str, Callable[[Part], None]] = {
    "rates": rates,
    "kernel-tests": kernel_tests,
    "tests": tests,
    "steps": steps,
    "kernels": kernels,
    "options": options,
    "shading": shading,
    "norms": norms,
    "decoders": decoders,
    "compile": compile_prior,
    "fast": fast,
    "mesh": mesh,
    "compiled-tests": compiled_tests,
    "compile-all": compile_all,
}


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    rows: Annotated[Path, typer.Argument(help="The file that rows are appended to.")],
    scratch: Annotated[Path, typer.Argument(help="The folder that the parts of a run share.")],
    tiny: Annotated[bool, typer.Option("--tiny", help="Small sizes.")] = False,
    limit: Annotated[float, typer.Option(help="Seconds after which it is stopped.")] = 600.0,
    ways: Annotated[str, typer.Option(help="With commas: only ways whose name contains one.")] = "",
) -> None:
    """Run one part."""
    part = Part(rows, scratch, tiny, limit, tuple(word for word in ways.split(",") if word))
    if not tiny and not torch.cuda.is_available():
        raise typer.BadParameter("there is no CUDA GPU here; --tiny runs on a CPU")
    PARTS[name](part)
    if part.failures:
        console.print("FAILED: " + "; ".join(part.failures), markup=False)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
