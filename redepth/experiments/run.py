"""Run an experiment: each arm on each scene, one row file a task, by any executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from redepth import io
from redepth.bench import captions, measure_both, require_whole
from redepth.data.datasets import Sample
from redepth.experiments.study import ArmRun, Scene, Study, differences
from redepth.experiments.teacher import Teacher
from redepth.ops import geometry
from redepth.pipeline import Pipeline
from redepth.protocols import Measurement
from redepth.refinement import Refinement
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Task, claim, read_rows, row_path, run_tasks

IDENTITY, KIND = "experiment.json", "experiment"
PICTURED = 4
"""Scenes of the first set whose maps are kept for pictures."""


class ArmResult(BaseModel):
    """What one arm did to one image.

    Attributes:
        experiment: its name.
        arm: likewise.
        split: of the image.
        strength: of the split's shift, if it has one.
        image: its name.
        seed: of the random streams.
        draw: which disjoint part of the ensemble this is, where several were measured.
        members: that the answer is the mean of.
        before: metrics of the initial depth under the protocol, name -> value.
        after: those of the refined one.
        clipped: share of its pixels whose aligned depth had to be clipped.
        diagnostics: failure signatures, name -> value; None where one cannot be measured.
        flagged: those above their thresholds.
        seconds: of the refinement of all members.
        memory_mib: peak memory meanwhile, as `PeakMemory` says.
        hardware: what it ran on.
        prompt: what the prior was told.
        protocol: its name.
        protocol_sha256: its hash; rows of two hashes are not comparable.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    experiment: str
    arm: str
    split: str
    strength: float | None
    image: str
    seed: int
    draw: int = 0
    members: int
    before: dict[str, float]
    after: dict[str, float]
    clipped: float
    diagnostics: dict[str, float | None]
    flagged: list[str]
    seconds: float
    memory_mib: float | None
    hardware: str = ""
    prompt: str = ""
    protocol: str
    protocol_sha256: str


class StoredResults(BaseModel):
    """The rows of one task: one, or one for each part of the ensemble, the largest last."""

    rows: list[ArmResult]

    @property
    def silog(self) -> tuple[float, float]:
        """SI-log before and after, of the last row."""
        last = self.rows[-1]
        return last.before["silog"], last.after["silog"]


OnDone = Callable[[Done[Task, StoredResults], int, int], None]


def run_study(
    study: Study,
    folder: Path,
    resources: Resources,
    *,
    device: str = "auto",
    fresh: bool = False,
    on_done: OnDone = lambda done, ended, total: None,
) -> tuple[list[ArmResult], dict[Task, str]]:
    """Do what is not done yet; return all rows, and why tasks (arm, scene) failed.

    Args:
        study: what to do.
        folder: of the experiment; one that was killed goes on in it.
        resources: where the work runs; metrics do not depend on it, time and memory do.
        device: of each worker.
        fresh: forget what the folder holds.
        on_done: called after each task with its outcome, how many have ended, and how many there are.

    Raises:
        ConfigError: the folder holds another experiment, with the differences.
    """
    claim(folder / IDENTITY, study, lambda a, b: list(differences(a, b)), KIND, fresh=fresh)
    tasks = study.tasks()
    finished = read_rows(folder, tasks, StoredResults)
    left = [task for task in tasks if task not in finished]
    make = partial(_make_worker, study.model_dump_json(), str(folder), device, _prompts(study, left, device))
    failures = run_tasks(make, left, finished, resources, on_done)
    return [row for task in tasks if task in finished for row in finished[task].rows], failures


def _prompts(study: Study, tasks: list[Task], device: str) -> dict[str, str]:
    """Return what the prior is told of each scene that is left: the same for all arms."""
    scenes = {scene.name: scene for scene in study.scenes()}

    def load(name: str) -> Sample:
        scene = scenes[name]
        return study.protocol.prepare(study.reader(scene.scenes).load(scene.image))

    return captions(study.base, list(dict.fromkeys(name for _, name in tasks)), load, device)


def _make_worker(
    study: str, folder: str, device: str, prompts: Mapping[str, str]
) -> Callable[[Task], StoredResults]:
    """Make what runs one arm on one scene; an arm's models are loaded when its first scene comes."""
    return _Worker(Study.model_validate_json(study), Path(folder), device, prompts)


class _Worker:
    def __init__(self, study: Study, folder: Path, device: str, prompts: Mapping[str, str]) -> None:
        self.study, self.folder, self.device, self.prompts = study, folder, device, prompts
        self.scenes = {scene.name: scene for scene in study.scenes()}
        self.readers = {found.label: study.reader(found) for found in study.sets}
        self.loaded: dict[str, Pipeline] = {}

    def __call__(self, task: Task) -> StoredResults:
        name, scene = task[0], self.scenes[task[1]]
        arm = self.study.arms[name]
        sample = self.study.protocol.prepare(self.readers[scene.scenes.label].load(scene.image))
        pipeline = self._pipeline(name, arm)
        if isinstance(teacher := pipeline.refiner.prior, Teacher):
            teacher.tell(_surface(pipeline, sample, arm.teacher or 0.0))
        memory = PeakMemory(pipeline.device)
        refinement = require_whole(
            pipeline.refine(
                sample.pixels(),
                prompt=self.prompts.get(scene.name, ""),
                seed=self.study.image_seed(scene),
            )
        )
        peak = memory.mib()
        measured = [
            (part, measure_both(self.study.protocol, sample, part.refinement.outcome))
            for part in _parts(name, arm, refinement)
        ]
        rows = StoredResults(rows=[self._row(scene, part, both, peak) for part, both in measured])
        if self.study.grid.pictures and scene.scenes == self.study.sets[0] and scene.number < PICTURED:
            io.save_npz(row_path(self.folder, task).with_suffix(".npz"), _maps(refinement, measured[0][1]))
        # The rows come last: where they stand, all else of the task does.
        io.save_json(row_path(self.folder, task), rows.model_dump())
        return rows

    def _pipeline(self, name: str, arm: ArmRun) -> Pipeline:
        if name not in self.loaded:
            # One arm at a time is in memory: the scenes of one come before those of the next.
            self.loaded = {}
            pipeline = Pipeline(arm.preset, device=self.device)
            if arm.teacher is not None:
                refiner = pipeline.refiner
                refiner.prior = Teacher(refiner.prior, refiner.renderer)
            self.loaded = {name: pipeline}
        return self.loaded[name]

    def _row(
        self, scene: Scene, part: _Part, both: Mapping[str, Measurement], peak: float | None
    ) -> ArmResult:
        refinement, (before, after) = part.refinement, (both[k].row for k in ("initial", "refined"))
        return ArmResult(
            experiment=self.study.experiment,
            arm=part.arm,
            split=scene.scenes.split,
            strength=scene.scenes.strength,
            image=scene.image,
            seed=refinement.seed,
            draw=part.draw,
            members=len(refinement.outcome.members),
            before=before.metrics,
            after=after.metrics,
            clipped=after.clipped,
            diagnostics={name: found.value for name, found in refinement.diagnostics.items()},
            flagged=[found.name for found in refinement.flagged],
            seconds=refinement.outcome.seconds,
            memory_mib=peak,
            hardware="{name}, {threads} threads".format(**refinement.components["hardware"]),
            prompt=refinement.prompt,
            protocol=after.protocol,
            protocol_sha256=after.protocol_sha256,
        )


@dataclass(frozen=True)
class _Part:
    """Some members of a refinement as an ensemble of their own."""

    arm: str
    draw: int
    refinement: Refinement


def _parts(name: str, arm: ArmRun, refinement: Refinement) -> list[_Part]:
    """Return the whole ensemble, or its disjoint parts of each size: members are independent streams."""
    if not arm.parts:
        return [_Part(name, 0, refinement)]
    outcome, found = refinement.outcome, []
    for size in arm.parts:
        for draw in range(len(outcome.members) // size):
            rows = slice(draw * size, (draw + 1) * size)
            part = replace(outcome, members=outcome.members[rows], member_depths=outcome.member_depths[rows])
            found.append(_Part(part_name(size), draw, replace(refinement, outcome=part)))
    return found


def part_name(size: int) -> str:
    """Return what the arm of an ensemble's parts is called."""
    return f"N = {size}"


def _surface(pipeline: Pipeline, sample: Sample, share: float) -> Tensor:
    """Return the relative depth at network size that lies a share of the way from initial to true."""
    refiner = pipeline.refiner
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None]
    _, _, initial = refiner.predict(photo)
    start = refiner.relative_depth(initial / refiner.unit(initial), 0.0)
    depth = sample.depth()[None, None].to(start)
    size = start.shape[-2:]
    truth = geometry.resize(depth, *size, antialias=True)
    # Where the truth is unknown, as in the sky, the teacher has nothing to say.
    known = geometry.resize((depth > 0).to(start), *size, antialias=True) > 1 - 1e-4
    return torch.where(known, start + share * (truth - start), start)


def _maps(refinement: Refinement, both: Mapping[str, Measurement]) -> dict[str, Any]:
    """Return what pictures of a scene are drawn from."""
    depths = {when: found.depth.float().numpy() for when, found in both.items()}
    return {"photo": io.to_uint8(refinement.photo), "truth": both["initial"].truth.float().numpy(), **depths}


class PeakMemory:
    """The peak memory since it was made, in MiB.

    On CUDA what tensors took on the device. On Linux the resident memory of the whole process: libraries,
    weights, and what the allocator has kept of former work. None elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._status = Path("/proc/self/status") if device.type == "cpu" else None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif self._status is not None:
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM: proc(5)
            except OSError:
                self._status = None

    def mib(self) -> float | None:
        """Return it; None where it is not known."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 2**20, 1)
        if self._status is None:
            return None
        lines = self._status.read_text(encoding="ascii").splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        return None if kib is None else round(int(kib) / 1024, 1)
