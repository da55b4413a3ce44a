"""Ways to compute the same steps: a preset on loaded networks, the times of its steps, and their rows."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import skimage
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import random_models, stages
from benchmarks.speed.random_models import REAL, SMALL, Shapes
from benchmarks.speed.records import Row, Steps, circumstances, matrix_rate, timing
from redepth import io
from redepth.config import Preset, load_preset
from redepth.depth_models.depth_anything import DepthAnything
from redepth.optim.parameterizations import Parameterization
from redepth.optim.refiner import Refiner
from redepth.pipeline import Pipeline

PHOTO = Path(skimage.__file__).parent / "data" / "gravel.png"
TINY_SIDE = 96
RUNS = 3
"""Number of timed runs of slow operations other than steps: loading a model, a whole command."""

EMBEDDED = "embedded-relief"
ALONE, THEIRS = "one at a time", "authors' way"
PERFORMANCE = "optim.performance"
PLAIN: tuple[tuple[str, Any], ...] = (
    ("channels_last", False),
    ("compile", "off"),
    ("cuda_graphs", "off"),
    ("checkpointing", False),
    ("read_losses_every", 1),
    ("cudnn_benchmark", False),
    ("fused_kernels", "off"),
    ("vae_attention", "sdpa"),
    ("shared_prefix", False),
    ("decoders", "loop"),
)
"""The step without optimisations for speed, except TF32, which both the preset and the authors use."""

console = Console(width=120)


# --- what is timed --------------------------------------------------------------------------------


@dataclass
class Kept:
    """Components that stay loaded for several ways; each way only tunes them again."""

    key: str = ""
    pipeline: Pipeline | None = None


@dataclass(frozen=True)
class Subject:
    """A preset on one device: on a photo with its own weights, or on noise with random weights.

    Attributes:
        name: name of the preset.
        device: device that it runs on.
        folder: folder of `random_models`; None for the preset's own weights.
        tiny: whether the sizes are too small for real use.
        kept: the components that `refiner` has loaded.
    """

    name: str
    device: torch.device
    folder: Path | None = None
    tiny: bool = False
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def shapes(self) -> Shapes:
        """The shapes of random networks."""
        return SMALL if self.tiny else REAL

    def preset(self, overrides: dict[str, Any] | None = None) -> Preset:
        """Return the preset under overrides, without early stopping, which would end the timing."""
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

    def refiner(self, overrides: dict[str, Any]) -> Refiner:
        """Return a refiner under overrides on components that are loaded once and tuned for it.

        They are loaded again if one of their options differs, or if the prior has changed its precision.
        """
        preset = self.preset(overrides)
        key = preset.model_dump_json(exclude={"optim"})
        loaded = self.kept.pipeline
        if loaded is None or key != self.kept.key or _precision(loaded.refiner) != _chosen_precision(loaded):
            loaded = self.kept.pipeline = None
            free()
            self.kept.key, loaded = key, Pipeline(preset, device=str(self.device))
            self.kept.pipeline = loaded
        own = loaded.refiner
        optim = preset.optim
        return Refiner(own.depth_model, own.renderer, own.prior, optim, own.objectives, own.device)

    def photo(self) -> Tensor:
        """Return the photo that is refined."""
        if self.folder is None:
            return torch.from_numpy(io.load_photo(PHOTO)).permute(2, 0, 1)[None]
        side = self.shapes.photo
        return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def _precision(refiner: Refiner) -> str:
    return str(refiner.prior.describe()["dtype"])


def _chosen_precision(pipeline: Pipeline) -> str:
    """Return the precision that the prior had when it was loaded."""
    return str(pipeline.components["prior"]["dtype"])


@dataclass(frozen=True)
class Way:
    """One way to compute the same steps.

    Attributes:
        name: its name in tables.
        micro_batch: number of members that advance together.
        settings: settings that differ from the preset, by dotted key.
        reloads: whether each member loads the depth model again, as in the authors' implementation.
    """

    name: str
    micro_batch: int
    settings: dict[str, Any] = field(default_factory=dict)
    reloads: bool = False


@dataclass(frozen=True)
class Effort:
    """How long to measure: steps that are not counted, steps that are, and rounds of all ways."""

    warmup: int
    steps: int
    rounds: int


@dataclass
class Measured:
    """The measurements of one way."""

    steps_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    warmup_s: float = 0.0
    reload_ms: float = 0.0
    peak_mib: float | None = None
    reserved_mib: float | None = None
    together: int = 0


def take(refiner: Refiner, photo: Tensor, effort: Effort, measured: Measured) -> None:
    """Refine once and add the times of the steps."""
    on_gpu = refiner.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(refiner.device)
    with stages.whole(refiner) as marks:
        measured.together = refiner.run(photo).members_per_batch
    taken = [sum(step.values()) for step in marks.steps()]
    first, counted = taken[: -effort.steps], taken[-effort.steps :]
    if not measured.steps_ms:
        measured.warmup_s = max(0.0, sum(first) - len(first) * median(counted)) / 1e3
    measured.steps_ms += counted
    if on_gpu:
        measured.peak_mib = torch.cuda.max_memory_allocated(refiner.device) / 2**20
        measured.reserved_mib = torch.cuda.max_memory_reserved(refiner.device) / 2**20


def look_inside(refiner: Refiner, photo: Tensor, effort: Effort) -> dict[str, float]:
    """Refine once more with every stage marked; return the median milliseconds of each."""
    with stages.split(refiner) as marks:
        refiner.run(photo)
    counted = marks.steps()[-effort.steps :]
    return {name: median(step.get(name, 0.0) for step in counted) for name in stages.names(refiner)}


def reload_ms(subject: Subject, photo: Tensor) -> list[float]:
    """Time the work of the authors' implementation for each member: loading the depth model, its encoder."""
    took = []
    options = subject.preset().depth_model.options
    for _ in range(RUNS):
        start = perf_counter()
        model = DepthAnything(**options).load(subject.device)
        # Reading a number synchronises with the device.
        float(model.encode(model.prepare(photo.to(subject.device))).maps[0].sum())
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


def first_gradient(refiner: Refiner, photo: Tensor) -> Tensor:
    """Return the gradient of the first step over all learned parameters, as one vector on the CPU."""
    refiner.optim = refiner.optim.model_copy(update={"steps": 1})
    gradients: list[Tensor] = []
    make = refiner.make_optimizer

    def watched(state: Parameterization) -> torch.optim.Optimizer:
        optimizer = make(state)

        def keep(*_: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients.extend(p.grad.flatten().float().cpu() for p in parameters if p.grad is not None)

        optimizer.register_step_pre_hook(keep)
        return optimizer

    with patch.object(refiner, "make_optimizer", watched):
        refiner.run(photo)
    return torch.cat(gradients)


def dotted(options: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return options of ``optim.performance`` by their keys in a preset."""
    return {f"{PERFORMANCE}.{name}": value for name, value in options}


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Measures ways to compute the steps of one subject and makes rows of them.

    Attributes:
        subject: the preset and its device.
        effort: how long to measure.
        common: fields that are the same in all rows.
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
        plain = {"optim.members": 1, **dotted(PLAIN)}
        refiner, photo = subject.refiner(plain), subject.photo()
        dtype = _precision(refiner)
        common = {
            **circumstances(subject.device),
            "lights": refiner.renderer.lights,
            "extra": {"tiny": True} if subject.tiny else {},
        }
        rate = matrix_rate(subject.device, getattr(torch, dtype), seconds)
        counted = teraflop(refiner, photo)
        console.print(
            f"{subject.name} on {common['device']}: {counted:.3g} TFLOP a member-step, a matrix product runs "
            f"at {rate:.3g} TFLOP/s",
            highlight=False,
        )
        return cls(subject, effort, common, counted, rate)

    def in_turns(self, ways: Sequence[Way]) -> Iterator[Row]:
        """Time ways in turns, each on its own networks, so that a disturbance slows all of them alike."""
        photo = self.subject.photo()
        loaded = [(way, self.subject.pipeline(self.settings(way)).refiner, Measured()) for way in ways]
        for _ in range(self.effort.rounds):
            for _, refiner, measured in loaded:
                take(refiner, photo, self.effort, measured)
        for way, refiner, measured in loaded:
            yield from self.finished(way, refiner, measured, inside=True)

    def one(self, way: Way, *, inside: bool = False) -> Iterator[Row]:
        """Time one way on the networks that are loaded."""
        refiner, measured = self.subject.refiner(self.settings(way)), Measured()
        free()
        for _ in range(self.effort.rounds):
            take(refiner, self.subject.photo(), self.effort, measured)
        yield from self.finished(way, refiner, measured, inside=inside)

    def settings(self, way: Way) -> dict[str, Any]:
        """Return the overrides under which a way is timed."""
        steps = self.effort.warmup + self.effort.steps + 1
        own = {"members": way.micro_batch, "members_per_batch": way.micro_batch, "steps": steps}
        return {f"optim.{k}": v for k, v in own.items()} | way.settings

    def finished(self, way: Way, refiner: Refiner, measured: Measured, *, inside: bool) -> Iterator[Row]:
        """Make rows of the measurements, with the times of the stages if ``inside``."""
        photo = self.subject.photo()
        size = tuple(refiner.depth_model.prepare(photo).shape[-2:])
        # Read after the run: a prior that overflowed has continued in another precision.
        common = {**self.common, "dtype": _precision(refiner)}
        common["extra"] = common["extra"] | {
            "reserved_mib": measured.reserved_mib,
            "execution": refiner.execution,
        }
        if inside:
            measured.stages_ms = look_inside(refiner, photo, self.effort)
        if way.reloads:
            took = timing(reload_ms(self.subject, photo))
            measured.reload_ms = took.median_ms
            yield self._row(way, "reload", shape=(1, *size), **took._asdict(), **common)
        yield self._member_step(way, size, measured, common)

    def _member_step(
        self, way: Way, size: tuple[int, ...], measured: Measured, common: dict[str, Any]
    ) -> Row:
        together, optim = measured.together, self.subject.preset().optim
        took = timing([ms / together for ms in measured.steps_ms])
        own = Steps(
            preset=self.subject.name,
            members=optim.members,
            steps=optim.steps,
            micro_batch=together,
            settings=way.settings,
            warmup_s=measured.warmup_s,
            stages_ms={name: ms / together for name, ms in measured.stages_ms.items()},
            tflop=self.tflop,
            tflop_s=self.tflop_s,
            times_floor=took.median_ms * self.tflop_s / self.tflop / 1e3,
            extrapolated_s=optim.members * (optim.steps * took.median_ms + measured.reload_ms) / 1e3,
        )
        given = {"shape": (together, *size), "peak_mib": measured.peak_mib, "of_steps": own}
        return self._row(way, "member-step", **took._asdict(), **given, **common)

    def _row(self, way: Way, case: str, **given: Any) -> Row:
        return Row(benchmark="refine", case=case, implementation=way.name, **given)


def free() -> None:
    """Release the memory of former ways on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
