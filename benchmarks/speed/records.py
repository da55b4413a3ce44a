"""The rows of a benchmark: one per measurement, with everything needed to judge and repeat it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from torch import Tensor

import redepth
from redepth.io import save_json

ROOT = Path(__file__).parents[2]
COMMIT = "REDEPTH_COMMIT"
RESULTS = Path(__file__).parents[1] / "results"

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Steps(BaseModel):
    """Further fields of a row on the optimisation, whose times are one member's share of one step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str
    members: Count
    """Members of the preset's whole run; ``steps`` likewise."""
    steps: Count
    micro_batch: Count
    """Members that advanced together."""
    settings: dict[str, Any] = {}
    """Settings that differ from the preset, by dotted key."""
    warmup_s: NotNegative
    """Time of the first steps beyond that of as many later ones."""
    stages_ms: dict[str, NotNegative] = {}
    """Median of each stage, a member's share, from a separate run; empty if it was not measured."""
    tflop: Positive
    """Counted operations of one member's step in the plain form, a multiplication and an addition as two."""
    tflop_s: Positive
    """Rate of a large matrix product in the networks' dtype, measured in the same run."""
    times_floor: Positive
    """``median_ms`` divided by the time of ``tflop`` at ``tflop_s``."""
    extrapolated_s: Positive
    """Extrapolated, not measured: the time of ``members`` x ``steps`` at this pace, with loading if each
    member loads its own model."""

    @property
    def floor_ms(self) -> float:
        """Milliseconds of the counted operations at the rate of a matrix product."""
        return 1e3 * self.tflop / self.tflop_s


class Row(BaseModel):
    """One measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    """Name of the benchmark, such as ``shading``."""
    case: str
    """Part of the benchmark, such as ``backward``."""
    implementation: str
    median_ms: Positive
    p20_ms: Positive
    p80_ms: Positive
    repeats: Count
    shape: tuple[Count, ...]
    lights: Count
    dtype: str
    device: str
    threads: Count
    """CPU threads of torch."""
    versions: dict[str, str]
    commit: str = Field(pattern=r"^([0-9a-f]{40}|unknown)$")
    dirty: bool
    """Whether the checkout differed from the commit."""
    date: date
    bytes_floor: Count | None = None
    """Bytes of necessary traffic: each input read once, each output written once."""
    copy_gb_s: Positive | None = None
    """Bandwidth of a large copy, bytes read and written, measured in the same run."""
    fraction_of_copy: Positive | None = None
    """``bytes_floor`` over the time, as a fraction of ``copy_gb_s``."""
    peak_mib: Positive | None = None
    """Peak memory: torch's on a GPU, else the resident memory of the whole process."""
    of_steps: Steps | None = None
    extra: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Row:
        if not self.p20_ms <= self.median_ms <= self.p80_ms:
            raise ValueError("p20_ms <= median_ms <= p80_ms does not hold")
        known = (self.bytes_floor, self.copy_gb_s, self.fraction_of_copy)
        if len({value is None for value in known}) > 1:
            raise ValueError("bytes_floor, copy_gb_s and fraction_of_copy come together or not at all")
        own = self.of_steps
        if own is not None and not 0.99 < self.median_ms / own.floor_ms / own.times_floor < 1.01:
            raise ValueError("times_floor is not median_ms over the time of tflop at tflop_s")
        return self


ROWS = TypeAdapter(list[Row])


class Timing(NamedTuple):
    """Median and spread of repeated runs."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    repeats: int


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON, atomically."""
    save_json(path, ROWS.dump_python(list(rows), mode="json"))


def save_each(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Write rows as they come, so that a run that ends early has stored its rows; return all."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        save(path, found)
    return found


def append(path: Path, row: Row) -> None:
    """Append a row to a file of JSON lines and flush it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(row.model_dump_json() + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def load(path: Path) -> list[Row]:
    """Read rows, of JSON or of JSON lines, and check them.

    Raises:
        pydantic.ValidationError: a row does not follow the schema.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [Row.model_validate_json(line) for line in text.splitlines()]
    return ROWS.validate_python(json.loads(text))


def result_path(out: Path | None, kind: str, device: torch.device) -> Path:
    """Return the file of a benchmark's rows: ``out``, or by default a file named after the device."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return out if out is not None else RESULTS / f"{kind}-{slug}.json"


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return the fields of a row that are the same for a whole run."""
    commit, dirty = checkout()
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit,
        "dirty": dirty,
        "date": date.today(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect times."""
    found = {"python": platform.python_version(), "redepth": redepth.__version__}
    for name in ("torch", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def checkout() -> tuple[str, bool]:
    """Return the commit of this repository and whether tracked files differ from it.

    If the files were copied without the repository, the environment variable `COMMIT` names it.
    """
    if stated := os.environ.get(COMMIT):
        return stated, False
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}"


def time_runs(
    run: Callable[[], object], device: torch.device, seconds: float, *, at_least: int = 5
) -> Timing:
    """Time ``run`` repeatedly for about ``seconds``, on a GPU with a cold cache each time."""
    for _ in range(3):
        run()
    runner = _CudaClock(device) if device.type == "cuda" else _cpu_clock
    first = runner(run)
    repeats = max(at_least, min(1000, round(seconds * 1e3 / max(first, 1e-3))))
    return timing([runner(run) for _ in range(repeats)])


def take_turns(
    runs: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Time each of several runs once a round, in milliseconds, so that a disturbance affects all alike."""
    clock = _CudaClock(device) if device.type == "cuda" else _cpu_clock
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(clock(run))
    return times


def timing(milliseconds: Sequence[float]) -> Timing:
    """Return median and 20th and 80th percentile."""
    spread = quantiles(milliseconds, n=5, method="inclusive")
    rounded = (round(value, 6) for value in (median(milliseconds), spread[0], spread[-1]))
    return Timing(*rounded, len(milliseconds))


class Rate(NamedTuple):
    """A rate that a device reaches, and the times that it was computed from."""

    value: float
    took: Timing


def copy_rate(device: torch.device, seconds: float) -> Rate:
    """Return the GB/s, read and written, of copying a tensor far larger than any cache."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    took = time_runs(lambda: target.copy_(source), device, seconds)
    return Rate(2 * source.nbytes / took.median_ms / 1e6, took)


def copy_bandwidth(device: torch.device, seconds: float) -> float:
    """Return the GB/s of `copy_rate`."""
    return copy_rate(device, seconds).value


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> Rate:
    """Return the TFLOP/s of a product of square matrices that is compute-bound."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    took = time_runs(lambda: left @ right, device, seconds)
    return Rate(2 * side**3 / took.median_ms / 1e9, took)


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return the TFLOP/s of `product_rate`."""
    return product_rate(device, dtype, seconds).value


def against_floor(bytes_floor: int, median_ms: float, copy_gb_s: float) -> Mapping[str, Any]:
    """Return the fields of a row that relate its time to the memory floor."""
    fraction = bytes_floor / (median_ms * 1e6) / copy_gb_s
    return {"bytes_floor": bytes_floor, "copy_gb_s": copy_gb_s, "fraction_of_copy": fraction}


class _CudaClock:
    """Milliseconds of device time between two events, after the L2 cache was overwritten."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.flush: Tensor = torch.empty(2**28, dtype=torch.uint8, device=device)

    def __call__(self, run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        # The host enqueues the timed work while this runs, so that no launch latency is timed.
        self.flush.zero_()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self.device)
        return start.elapsed_time(end)


def _cpu_clock(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return (perf_counter() - start) * 1e3


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
