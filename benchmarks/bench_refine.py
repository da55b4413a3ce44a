"""Time the refinement: a member's share of a step, its stages, the floor, and the authors' way beside it.

    python -m benchmarks.bench_refine               # all that this machine can measure; rows go to results/
    python -m benchmarks.bench_refine --only paper --preset re-depth-anything --steps 50
    python -m benchmarks.bench_refine --tiny        # every part with narrow networks, in seconds

Parts: ``paper`` (presets of Stable Diffusion on networks of real shapes and random weights: members together
and one at a time, by stage, under 8 GB, and the authors' way), ``sweep`` (each option of
``optim.performance``, and what its warm-up costs), ``embedded`` (that preset on a photo, on the CPU), and
``command`` (all of ``redepth refine`` in a process of its own). The first two need a GPU, or ``--tiny``.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import skimage
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import random_models, stages
from benchmarks.random_models import REAL, SMALL, Shapes
from benchmarks.records import (
    RESULTS,
    ROOT,
    Row,
    Steps,
    circumstances,
    device_name,
    matrix_rate,
    result_path,
    save,
    timing,
)
from redepth import io
from redepth.config import Preset, load_preset, preset_names
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import ConfigError
from redepth.optim.refiner import Refiner
from redepth.pipeline import Pipeline, choose_device, keep_freed_memory

PARTS = ("paper", "sweep", "embedded", "command")
PAPER, FAST, EMBEDDED = "re-depth-anything", "re-depth-fast", "embedded"
THEIRS, ALONE, VRAM = "authors' way", "one at a time", "8GB"
PHOTO = Path(skimage.__file__).parent / "data" / "gravel.png"
TINY_SIDE = 96
RUNS = 3
"""How often what is slow and no step is timed: loading a model, a whole command."""

PERFORMANCE = "optim.performance"
PLAIN: tuple[tuple[str, Any], ...] = (
    ("channels_last", False),
    ("compile", "off"),
    ("cuda_graphs", False),
    ("checkpointing", False),
    ("fused_norm", "off"),
    ("vae_attention", "sdpa"),
    ("shared_prefix", False),
    ("read_losses_every", 1),
)
"""The step with nothing done for speed."""
TRIED: tuple[tuple[str, Any], ...] = (
    ("channels_last", True),
    ("compile", "prior"),
    ("compile", "all"),
    ("cuda_graphs", True),
    ("checkpointing", True),
    ("fused_norm", "on"),
    ("vae_attention", "explicit"),
    ("shared_prefix", True),
    ("read_losses_every", 10),
)
"""What the sweep sets, one option at a time."""
FOR_GPUS = ("compile", "cuda_graphs", "fused_norm")
"""What means nothing on a CPU, or minutes of compiling for narrow networks."""

MOST_SECONDS = {PAPER: 100.0, FAST: 50.0}
MOST_GB = 24.0
SPEEDUPS = {PAPER: {THEIRS: 4.0}, EMBEDDED: {ALONE: 1.5}}
COMMAND_SECONDS, COMMAND_GB = 30.0, 1.5

app = typer.Typer(add_completion=False)
console = Console(width=120)


# --- what is timed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A preset on one device: on a photo with its own weights, or on noise with random ones.

    Attributes:
        name: of the preset.
        device: where it computes.
        folder: of `random_models`; None for the preset's own weights.
        tiny: whether the sizes are none that anybody would use.
    """

    name: str
    device: torch.device
    folder: Path | None = None
    tiny: bool = False

    @property
    def shapes(self) -> Shapes:
        """The shapes of random networks."""
        return SMALL if self.tiny else REAL

    def preset(self, overrides: dict[str, Any] | None = None) -> Preset:
        """Return the preset under overrides; a member that stops early would stop the clock."""
        changed = {"optim.early_stop.enabled": False, **(overrides or {})}
        if self.tiny and self.folder is None:
            changed["depth_model.longer_side"] = TINY_SIDE
        given = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
        if self.folder is None:
            return load_preset(self.name, given)
        return random_models.preset_on(self.folder, self.shapes, self.name, given)

    def pipeline(self, overrides: dict[str, Any]) -> Pipeline:
        """Load the preset under overrides."""
        return Pipeline(self.preset(overrides), device=str(self.device))

    def photo(self) -> Tensor:
        """Return what is refined."""
        if self.folder is None:
            return torch.from_numpy(io.load_photo(PHOTO)).permute(2, 0, 1)[None]
        side = self.shapes.photo
        return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Way:
    """One way of taking the same steps.

    Attributes:
        name: in the table.
        micro_batch: members that advance together.
        settings: what differs from the preset, by dotted key.
        reloads: whether each member loads the depth model anew, as in the authors' implementation.
    """

    name: str
    micro_batch: int
    settings: dict[str, Any] = field(default_factory=dict)
    reloads: bool = False


@dataclass(frozen=True)
class Effort:
    """How long to measure: steps that do not count, steps that do, and how often all ways take their turn."""

    warmup: int
    steps: int
    rounds: int


@dataclass
class Found:
    """What one way came to."""

    steps_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    warmup_s: float = 0.0
    reload_ms: float = 0.0
    peak_mib: float | None = None


def take(refiner: Refiner, photo: Tensor, effort: Effort, found: Found) -> None:
    """Refine once and add the times of the steps."""
    on_gpu = refiner.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(refiner.device)
    with stages.whole(refiner) as marks:
        refiner.run(photo)
    taken = [sum(step.values()) for step in marks.steps()]
    first, counted = taken[: -effort.steps], taken[-effort.steps :]
    if not found.steps_ms:
        found.warmup_s = max(0.0, sum(first) - len(first) * median(counted)) / 1e3
    found.steps_ms += counted
    if on_gpu:
        found.peak_mib = torch.cuda.max_memory_allocated(refiner.device) / 2**20


def look_inside(refiner: Refiner, photo: Tensor, effort: Effort) -> dict[str, float]:
    """Refine once more with every stage marked; return the median milliseconds of each."""
    with stages.split(refiner) as marks:
        refiner.run(photo)
    counted = marks.steps()[-effort.steps :]
    return {name: median(step.get(name, 0.0) for step in counted) for name in stages.names(refiner)}


def reload_ms(pipeline: Pipeline, photo: Tensor) -> list[float]:
    """Time what the authors' implementation does for each member: load the depth model, run its encoder."""
    took = []
    for _ in range(RUNS):
        start = perf_counter()
        model = DepthAnything(**pipeline.preset.depth_model.options).load(pipeline.device)
        # Reading a number waits for the device.
        float(model.encode(model.prepare(photo.to(pipeline.device))).maps[0].sum())
        took.append((perf_counter() - start) * 1e3)
    return took


def teraflop(refiner: Refiner, photo: Tensor) -> float:
    """Count the operations of one step, forward and backward: those of two steps less those of one."""
    counts = []
    for steps in (1, 2):
        refiner.optim = refiner.optim.model_copy(update={"steps": steps})
        with FlopCounterMode(display=False) as counter:
            refiner.run(photo)
        counts.append(counter.get_total_flops())
    return (counts[1] - counts[0]) / 1e12


def known(options: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return those of the options of ``optim.performance`` that there are, with dotted keys."""
    dotted = [(f"{PERFORMANCE}.{name}", value) for name, value in options]
    return [(key, value) for key, value in dotted if _exists(key, value)]


def _exists(key: str, value: Any) -> bool:
    try:
        load_preset(EMBEDDED, [f"{key}={json.dumps(value)}"])
    except ConfigError:
        return False
    return True


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Measures ways of taking the steps of one subject and makes rows of them.

    Attributes:
        subject: what is measured.
        effort: how long.
        common: what is the same in all rows.
        tflop: operations of one member's step.
        tflop_s: rate of a matrix product.
    """

    subject: Subject
    effort: Effort
    common: dict[str, Any]
    tflop: float
    tflop_s: float

    @classmethod
    def of(cls, subject: Subject, effort: Effort, seconds: float) -> Bench:
        """Count the operations of the plain step, and measure the rate of a matrix product."""
        plain = {"optim.members": 1, **dict(known(PLAIN))}
        refiner, photo = subject.pipeline(plain).refiner, subject.photo()
        prior = refiner.prior.describe()
        common = {
            **circumstances(subject.device),
            "lights": refiner.renderer.lights,
            "dtype": prior["dtype"],
            "extra": {"tiny": True} if subject.tiny else {},
        }
        rate = matrix_rate(subject.device, getattr(torch, prior["dtype"]), seconds)
        counted = teraflop(refiner, photo)
        console.print(
            f"{subject.name} on {common['device']}: {counted:.3g} TFLOP a member-step, a matrix product runs "
            f"at {rate:.3g} TFLOP/s",
            highlight=False,
        )
        return cls(subject, effort, common, counted, rate)

    def rows(self, ways: Sequence[Way], *, inside: bool = True) -> Iterator[Row]:
        """Time ways in turn, so that whatever else the machine does slows all of them alike."""
        _free()
        photo = self.subject.photo()
        loaded = [(way, self._load(way), Found()) for way in ways]
        for _ in range(self.effort.rounds):
            for _, pipeline, found in loaded:
                take(pipeline.refiner, photo, self.effort, found)
        for way, pipeline, found in loaded:
            size = self._size(pipeline, photo)
            if inside:
                found.stages_ms = look_inside(pipeline.refiner, photo, self.effort)
            if way.reloads:
                took = timing(reload_ms(pipeline, photo))
                found.reload_ms = took.median_ms
                yield self._row(way, "reload", shape=(1, *size), **took._asdict())
            yield self._member_step(way, size, found)

    def _load(self, way: Way) -> Pipeline:
        steps = self.effort.warmup + self.effort.steps + 1
        own = {"members": way.micro_batch, "members_per_batch": way.micro_batch, "steps": steps}
        return self.subject.pipeline({f"optim.{k}": v for k, v in own.items()} | way.settings)

    def _size(self, pipeline: Pipeline, photo: Tensor) -> tuple[int, ...]:
        return tuple(pipeline.refiner.depth_model.prepare(photo).shape[-2:])

    def _member_step(self, way: Way, size: tuple[int, ...], found: Found) -> Row:
        together, optim = way.micro_batch, self.subject.preset().optim
        took = timing([ms / together for ms in found.steps_ms])
        own = Steps(
            preset=self.subject.name,
            members=optim.members,
            steps=optim.steps,
            micro_batch=together,
            settings=way.settings,
            warmup_s=found.warmup_s,
            stages_ms={name: ms / together for name, ms in found.stages_ms.items()},
            tflop=self.tflop,
            tflop_s=self.tflop_s,
            times_floor=took.median_ms * self.tflop_s / self.tflop / 1e3,
            extrapolated_s=optim.members * (optim.steps * took.median_ms + found.reload_ms) / 1e3,
        )
        given = {"shape": (together, *size), "peak_mib": found.peak_mib, "of_steps": own}
        return self._row(way, "member-step", **took._asdict(), **given)

    def _row(self, way: Way, case: str, **given: Any) -> Row:
        return Row(benchmark="refine", case=case, implementation=way.name, **self.common, **given)


def paper(bench: Bench, micro_batches: Sequence[int]) -> Iterator[Row]:
    """Time micro-batches of several sizes, the one that a memory limit leaves, and the authors' way."""
    ways = [Way(f"{n} together" if n > 1 else ALONE, n) for n in micro_batches]
    if bench.subject.device.type == "cuda":
        limit = {"optim.vram": VRAM}
        ways.append(Way(f"within {VRAM}", fits(bench.subject, limit), limit))
    ways.append(Way(THEIRS, 1, dict(known(PLAIN)), reloads=True))
    for way in ways:
        # One after the other: several priors of real size need not fit beside each other.
        yield from bench.rows([way])


def fits(subject: Subject, limit: dict[str, Any]) -> int:
    """Return the micro-batch that a memory limit leaves."""
    return subject.pipeline({**limit, "optim.steps": 1}).refiner.run(subject.photo()).members_per_batch


def sweep(bench: Bench, together: int) -> Iterator[Row]:
    """Time the plain step, each option by itself, and the preset as it is."""
    plain = dict(known(PLAIN))
    ways = [Way("plain", together, plain)]
    on_gpu = bench.subject.device.type == "cuda"
    for key, value in known(pair for pair in TRIED if on_gpu or pair[0] not in FOR_GPUS):
        ways.append(Way(f"{key.removeprefix(PERFORMANCE)[1:]}={value}", together, {**plain, key: value}))
    ways.append(Way("as the preset", together))
    rows = [row for way in ways for row in bench.rows([way], inside=False)]
    for row in rows:
        pays = {"pays_after_member_steps": pays_after(row, rows[0])}
        yield row.model_copy(update={"benchmark": "refine-sweep", "extra": row.extra | pays})


def pays_after(row: Row, plain: Row) -> int | None:
    """Return after how many member-steps a way has made good what its warm-up costs; None for never."""
    assert row.of_steps is not None
    assert plain.of_steps is not None
    gain = plain.median_ms - row.median_ms
    cost = max(0.0, row.of_steps.warmup_s - plain.of_steps.warmup_s) * 1e3
    return None if gain <= 0 else round(cost / gain)


def embedded(bench: Bench) -> list[Row]:
    """Time the preset's members together, one at a time, and the authors' way, in turns."""
    together = bench.subject.preset().optim.members
    theirs = Way(THEIRS, 1, dict(known(PLAIN)), reloads=True)
    return list(bench.rows([Way(f"{together} together", together), Way(ALONE, 1), theirs]))


def command(preset: str, tiny: bool) -> Row:
    """Time all of ``redepth refine PHOTO`` on the CPU, from starting Python to the last file."""
    took, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            given = ("refine", PHOTO, "--preset", preset, "--device", "cpu", "--out", folder)
            seconds, peak = run_command(*given)
            took.append(seconds * 1e3)
            peaks.append(peak)
        record = json.loads(next(Path(folder).rglob("run.json")).read_text(encoding="utf-8"))
    return Row(
        benchmark="refine",
        case="command",
        implementation=f"redepth refine --preset {preset}",
        **timing(took)._asdict(),
        **circumstances(torch.device("cpu")),
        shape=(record["members_done"], *record["network_size"]),
        lights=record["preset"]["renderer"]["lights"],
        dtype=record["prior"]["dtype"],
        peak_mib=max(peaks),
        extra={"timings": record["timings"]} | ({"tiny": True} if tiny else {}),
    )


def run_command(*arguments: str | Path) -> tuple[float, float]:
    """Run ``redepth ARGUMENTS``; return wall seconds and peak resident memory in MiB.

    Raises:
        RuntimeError: if it fails, with what it said.
    """
    call = [sys.executable, "-m", "redepth", *map(str, arguments)]
    with tempfile.TemporaryFile() as said:
        start = perf_counter()
        process = subprocess.Popen(call, stdout=said, stderr=said, cwd=ROOT)
        # Unlike `wait`, it tells the memory of this process alone.
        _, status, usage = os.wait4(process.pid, 0)
        took = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(call)}: {said.read().decode()}")
    return took, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _free() -> None:
    """Let go of what former ways held on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- report ---------------------------------------------------------------------------------------


def step_table(preset: str, rows: Sequence[Row]) -> Table:
    """Lay out how long a preset's steps take in each way."""
    title = f"{preset}, ms a member-step (in all: members x steps, extrapolated)"
    columns = ("way", "median", "p20 to p80", "of floor", "in all", "warm-up", "pays after", "peak MiB")
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        own = row.of_steps
        assert own is not None
        table.add_row(
            row.implementation,
            f"{row.median_ms:.4g}",
            f"{row.p20_ms:.4g} to {row.p80_ms:.4g}",
            f"{own.times_floor:.2f} x",
            f"{own.extrapolated_s:.0f} s",
            f"{own.warmup_s:.1f} s",
            _pays(row),
            f"{row.peak_mib:.0f}" if row.peak_mib else "",
        )
    return table


def _pays(row: Row) -> str:
    """Say where what a way costs to begin with is made good, in member-steps."""
    if "pays_after_member_steps" not in row.extra:
        return ""
    after = row.extra["pays_after_member_steps"]
    return "never" if after is None else f"{after}"


def stage_table(preset: str, rows: Sequence[Row]) -> Table | None:
    """Lay out where the time goes, if that was looked at."""
    looked = {row.implementation: own.stages_ms for row in rows if (own := row.of_steps) and own.stages_ms}
    if not looked:
        return None
    table = Table(f"{preset}, ms a member-step", *looked)
    for stage in next(iter(looked.values())):
        table.add_row(stage, *(f"{found[stage]:.4g}" for found in looked.values()))
    return table


def by_preset(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Group the rows on steps by benchmark, preset and device."""
    grouped: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.of_steps is not None:
            grouped.setdefault((row.benchmark, row.of_steps.preset, row.device), []).append(row)
    return grouped


def targets(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    """Yield each target that was measured at its real size and whether it holds."""
    real = [row for row in rows if row.benchmark == "refine" and not row.extra.get("tiny")]
    for row in real:
        if row.case == "command":
            yield _at_most(row.implementation, row.median_ms / 1e3, COMMAND_SECONDS, "s")
            yield _at_most(row.implementation, _gigabytes(row), COMMAND_GB, "GB")
        if row.implementation == f"within {VRAM}":
            yield _at_most(row.implementation, _gigabytes(row), 8, "GB")
    for (_, preset, _), own in by_preset(real).items():
        ways = {row.implementation: row for row in own if _gigabytes(row) <= MOST_GB}
        best = min(ways.values(), key=lambda row: row.median_ms)
        assert best.of_steps is not None
        what = f"{preset}, {best.implementation}"
        if preset in MOST_SECONDS:
            seconds = best.of_steps.extrapolated_s
            yield _at_most(f"{what}, extrapolated", seconds, MOST_SECONDS[preset], "s")
        for over, least in SPEEDUPS.get(preset, {}).items():
            if over in ways:
                gain = ways[over].median_ms / best.median_ms
                yield f"{what}: {gain:.2f} times {over} (at least {least:g})", gain >= least


def _at_most(what: str, found: float, most: float, unit: str) -> tuple[str, bool]:
    return f"{what}: {found:.3g} {unit} (at most {most:g})", found <= most


def _gigabytes(row: Row) -> float:
    return (row.peak_mib or 0.0) * 2**20 / 1e9


def report(rows: Sequence[Row]) -> None:
    """Print tables and targets."""
    for (_, preset, _), own in by_preset(rows).items():
        console.print(step_table(preset, own))
        if (inside := stage_table(preset, own)) is not None:
            console.print(inside)
    for row in rows:
        if row.of_steps is None:
            memory = f", {row.peak_mib:.0f} MiB" if row.peak_mib else ""
            what = f"{row.case}, {row.implementation}: {row.median_ms / 1e3:.3g} s{memory}"
            console.print(what, highlight=False)
    verdicts = list(targets(rows))
    for text, holds in verdicts:
        console.print(f"{'holds ' if holds else 'MISSED'} {text}", highlight=False)
    if not verdicts:
        console.print("no target was measured: they are for real sizes")


# --- command line ---------------------------------------------------------------------------------


def chosen_parts(only: Sequence[str] | None, device: torch.device, tiny: bool) -> tuple[str, ...]:
    """Return the parts to measure: those asked for, else all that this machine can."""
    if unknown := set(only or ()) - set(PARTS):
        raise typer.BadParameter(f"no {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    if only:
        return tuple(only)
    if tiny or device.type == "cuda":
        return PARTS
    console.print("paper and sweep are left out: their networks need a GPU (or --only paper, and patience)")
    return ("embedded", "command")


def chosen_effort(device: torch.device, tiny: bool, warmup: int | None, steps: int | None) -> Effort:
    """Return how long to measure: what was asked for, else what suits the device."""
    usual = Effort(1, 2, 1) if tiny else Effort(5, 20, 1) if device.type == "cuda" else Effort(2, 8, 3)
    return Effort(usual.warmup if warmup is None else warmup, steps or usual.steps, usual.rounds)


@app.command()
def main(
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; may be repeated.")] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help=f"Of part paper; may be repeated. By default {PAPER} and {FAST}.")
    ] = None,
    micro_batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Members together in part paper; may be repeated.")
    ] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Steps before those that count.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Steps that count.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time to spend on the matrix product.")] = 0.5,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Narrow networks: to see that everything runs.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the rows.")] = None,
) -> None:
    """Measure, print tables and targets, and store the rows, a file for each device."""
    keep_freed_memory()  # as the command does, whose steps these are
    on, cpu = choose_device(device), torch.device("cpu")
    if not known(PLAIN):
        console.print(f"there is no {PERFORMANCE} here: its options are left out", highlight=False)
    parts = chosen_parts(only, on, tiny)
    together = micro_batch or ([1, 2] if tiny else [1, 2, 5, 10])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        effort = chosen_effort(on, tiny, warmup, steps)
        if {"paper", "sweep"} & set(parts):
            random_models.write(folder, SMALL if tiny else REAL, on)
        if "paper" in parts:
            for name in preset or [name for name in (PAPER, FAST) if name in preset_names()]:
                rows += paper(Bench.of(Subject(name, on, folder, tiny), effort, seconds), together)
        if "sweep" in parts:
            rows += sweep(Bench.of(Subject(PAPER, on, folder, tiny), effort, seconds), max(together))
    if "embedded" in parts:
        effort = chosen_effort(cpu, tiny, warmup, steps)
        rows += embedded(Bench.of(Subject(EMBEDDED, cpu, tiny=tiny), effort, seconds))
    if "command" in parts:
        rows.append(command("smoke" if tiny else EMBEDDED, tiny))
    report(rows)
    target = out or (Path("out") if tiny else RESULTS)
    for where in dict.fromkeys((on, cpu)):
        if own := [row for row in rows if row.device == device_name(where)]:
            path = target / result_path(None, "refine", where).name
            save(path, own)
            console.print(f"wrote {path}")


if __name__ == "__main__":
    app()
