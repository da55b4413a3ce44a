"""The training loop of the embedded models."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from redepth.errors import ConfigError, InputError, RedepthError

WARM_UP_STEPS, LOG_STEPS, CHECKPOINT_STEPS, VALIDATION_STEPS = 200, 100, 500, 1000
MATRIX_RATE = 4e-3
CHECKPOINT_SECONDS = 240.0
"""A checkpoint is written at the latest after these seconds, on a slow machine."""


class Training:
    """The loop: AdamW or Muon under `rate_factor`, an exponential moving average, checkpoints.

    A finished training continues if more cycles are given.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        *,
        rate: float,
        cycles: Sequence[int],
        batch: int,
        validate: Callable[[nn.Module], dict[str, Any]],
        validation_steps: int = VALIDATION_STEPS,
        matrices: Sequence[nn.Parameter] = (),
        keep: Sequence[int] = (),
    ) -> None:
        """Prepare a training; it starts with `run`.

        Args:
            model: the network.
            folder: of checkpoints and log.
            rate: the largest learning rate of AdamW.
            cycles: samples of each cycle of the learning rate.
            batch: samples of a step.
            validate: measures the averaged weights.
            validation_steps: steps between two of these.
            matrices: parameters that Muon moves (Jordan et al., 2024), at `MATRIX_RATE`; AdamW has
                the others.
            keep: the averaged weights after these samples are kept, `snapshot_file`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.validate, self.validation_steps = validate, validation_steps
        # Convolutions of few channels run about twice as fast on the CPU in this layout.
        self.model = model.to(memory_format=torch.channels_last)
        self.folder, self.log = folder, folder / "log.jsonl"
        self.cycles, self.batch = [samples // batch for samples in cycles], batch
        self.total = sum(self.cycles)
        self.kept = {samples // batch: samples for samples in keep}
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        taken = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in taken]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, weight_decay=1e-4)]
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            )
            self.optimizers.append(muon)
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate_factor) for optimizer in self.optimizers
        ]
        self.generator = torch.Generator()
        self.step = 0

    def rate_factor(self, step: int) -> float:
        """Return the learning rate's factor: 200 steps of warm-up, then a cosine to 2 % in each cycle.

        Every cycle starts at 0.7 of the rate that the one before it started at (after Loshchilov and Hutter,
        arXiv 1608.03983).
        """
        warm_up = min((step + 1) / WARM_UP_STEPS, 1)
        number = 0
        while step >= self.cycles[number] and number < len(self.cycles) - 1:
            step -= self.cycles[number]
            number += 1
        return warm_up * 0.7**number * (0.02 + 0.98 * cosine(min(step / self.cycles[number], 1)))

    def run(
        self, make_step: Callable[[Generator], Callable[[], Tensor]], seed: int, until: int | None = None
    ) -> None:
        """Train from the last checkpoint, if there is one, to the end or to the step ``until``.

        Raises:
            ConfigError: if the checkpoint is of a training of another length, whose learning rates differ.
            RedepthError: if a gradient is not finite; the network is then as it was before the step.
        """
        self.generator.manual_seed(seed)
        self._resume()
        step = make_step(self.generator)
        losses: list[float] = []
        started = saved = time.monotonic()
        end = min(until or self.total, self.total)
        for _ in track(self.step, end):
            loss = step()
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            if not torch.isfinite(norm):
                raise RedepthError(
                    f"{self.folder}: the gradient of step {self.step + 1} is not finite "
                    f"(loss {loss.item():g}); the last checkpoint is from before it"
                )
            for mover in (*self.optimizers, *self.schedulers):
                mover.step()
            self.step += 1
            self._update_average()
            if self.step in self.kept:
                self._keep(snapshot_file(self.folder, self.kept[self.step]))
            losses.append(loss.item())
            if self.step % LOG_STEPS == 0 or self.step == end:
                due = self.step % self.validation_steps == 0 or self.step == end
                more = self._validated() if due else {}
                self._log(sum(losses) / len(losses), time.monotonic() - started, more)
                losses.clear()
            late = time.monotonic() - saved > CHECKPOINT_SECONDS
            if late or self.step % CHECKPOINT_STEPS == 0 or self.step == end:
                self.save()
                saved = time.monotonic()

    def _keep(self, file: Path) -> None:
        partial = file.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in self.average.items()}, partial)
        os.replace(partial, file)

    def _update_average(self) -> None:
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value.detach(), 1 - decay)

    def _validated(self) -> dict[str, Any]:
        """Validate the averaged weights, in float32 and eval mode."""
        average = deepcopy(self.model).eval()
        average.load_state_dict(self.average)
        return {"validation": self.validate(average)}

    def _log(self, loss: float, seconds: float, more: dict[str, Any]) -> None:
        row = {
            "step": self.step,
            "samples": self.step * self.batch,
            "loss": loss,
            "seconds": seconds,
            **more,
        }
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save(self) -> None:
        """Write a checkpoint, atomically."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "generator": self.generator.get_state(),
            "step": self.step,
            "cycles": self.cycles,
        }
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")

    def _resume(self) -> None:
        if not (self.folder / "state.pt").is_file():
            return
        state = torch.load(self.folder / "state.pt", weights_only=True)
        done, wanted = state["cycles"], self.cycles
        if done != wanted[: len(done)]:
            raise ConfigError(
                f"{self.folder} holds a training of {done} steps, and {wanted} are requested, with other "
                "learning rates: give the same --samples, or another --runs"
            )
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for name, movers in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            for mover, kept in zip(movers, state[name], strict=True):
                mover.load_state_dict(kept)
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        # Rows after the checkpoint belong to steps that are now taken again.
        rows = self.log.read_text().splitlines(keepends=True) if self.log.is_file() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        self.log.write_text("".join(kept))


def cosine(progress: float) -> float:
    """Return the half cosine that falls from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def track(start: int, total: int) -> Iterator[int]:
    """Count steps under a progress bar."""
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=total, completed=start)
        for index in range(start, total):
            yield index
            progress.advance(task)


def json_lines(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines, as a log is."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def averaged(folder: Path) -> dict[str, Tensor]:
    """Return the moving average of a run's last checkpoint."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    return state["average"]


def snapshot_file(folder: Path, samples: int) -> Path:
    """Return the file of a run's moving average after so many samples."""
    return folder / f"average-{samples}.safetensors"


def snapshot(folder: Path, samples: int) -> dict[str, Tensor]:
    """Return the moving average that a run kept after so many samples.

    Raises:
        InputError: if it kept none then.
    """
    file = snapshot_file(folder, samples)
    if not file.is_file():
        there = ", ".join(sorted(p.stem.removeprefix("average-") for p in folder.glob("average-*")))
        raise InputError(f"{file}: no such snapshot; kept are those after {there or 'no'} samples")
    return load_file(file)
