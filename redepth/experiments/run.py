"""Run an experiment: every arm on every scene, one row file a task, by any executor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, field_validator

from redepth import io
from redepth.bench import captions, identify, identities, known_part, measure_both
from redepth.data.datasets import Sample
from redepth.experiments.adapting import (
    OnAdapt,
    adapt_models,
    adapted_of,
    ignore,
    measured_preset,
    seconds_of,
)
from redepth.experiments.arms import lights_true_albedo
from redepth.experiments.feed_forward import predict
from redepth.experiments.known_points import draw_points, measure_aligned
from redepth.experiments.study import SYNTHETIC, ArmRun, Scene, Study, differences
from redepth.experiments.teacher import Teacher, surface_between
from redepth.experiments.unlabelled import Adaptation
from redepth.guidance import Anchors
from redepth.pipeline import Pipeline
from redepth.protocols import Measurement, prepare
from redepth.refinement import Refinement
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Identity, Task, begin_row, claim, done_rows, finish_row, run_tasks

IDENTITY, KIND = "experiment.json", "experiment"
PICTURED = 4
"""Number of scenes of the first set whose maps are kept for pictures."""


class ArmResult(BaseModel):
    """The row of one image refined by one arm.

    Attributes:
        experiment: name of the experiment.
        arm: name of the arm.
        split: split of the image.
        strength: strength of the split's shift, if it has one.
        image: name of the image.
        seed: seed of the random streams.
        draw: number of the disjoint part of the ensemble, if several were measured.
        members: number of members that the answer is the mean of.
        before: metrics of the initial depth under the protocol, name -> value.
        after: metrics of the refined depth.
        clipped: share of its pixels whose aligned depth was clipped.
        diagnostics: failure signatures, name -> value; None if a signature cannot be measured.
        flagged: names of the signatures above their thresholds.
        seconds: time of the refinement of all members.
        memory_mib: peak memory during the refinement; see `PeakMemory`.
        hardware: the processor or GPU that it ran on.
        prompt: the prompt that the prior was conditioned on.
        protocol: name of the protocol.
        protocol_sha256: its hash; rows with different hashes are not comparable.
        adapted_to: the scenes that the arm's depth model was adapted to; empty if it was not. ``before`` is
            of the starting model's prediction, ``after`` of the adapted one's or of a refinement of it, and
            ``seconds`` the time of that prediction or refinement.
        adapt_seconds: time of that adaptation; see `adapting.seconds_of`.
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
    adapted_to: str = ""
    adapt_seconds: float | None = None

    @field_validator("before", "after")
    @classmethod
    def _has_silog(cls, metrics: dict[str, float]) -> dict[str, float]:
        # A row without it is damaged: it counts as none, and its task runs again.
        if not math.isfinite(metrics.get("silog", math.nan)):
            raise ValueError("not a result row: it has no silog")
        return metrics


class StoredResults(BaseModel):
    """The rows of one task: one, or one for each part of the ensemble, the largest last."""

    rows: list[ArmResult]

    @property
    def silog(self) -> tuple[float, float]:
        """SI-log before and after, of the last row."""
        last = self.rows[-1]
        return last.before["silog"], last.after["silog"]


OnDone = Callable[[Done[Task, StoredResults], int, int], None]
"""Called after each task with its outcome, the number of tasks that have ended, and the number of all."""


def run_study(
    study: Study,
    folder: Path,
    resources: Resources,
    *,
    device: str = "auto",
    fresh: bool = False,
    max_pixels: int = io.MAX_PIXELS,
    on_done: OnDone = lambda done, ended, total: None,
    on_adapt: OnAdapt = ignore,
) -> tuple[list[ArmResult], dict[Task, str]]:
    """Run the tasks that are left; return all rows, and the tasks (arm, scene) that failed with the reasons.

    Args:
        study: what to run.
        folder: folder of the experiment; an experiment that was killed resumes there.
        resources: where the work runs; metrics do not depend on it, time and memory do.
        device: device of each worker.
        fresh: discard what the folder holds.
        max_pixels: refuse files of the data set with more pixels; it is no part of the study.
        on_done: called after each task.
        on_adapt: called as the models of the arms are adapted, before the first task.

    Raises:
        ConfigError: the folder holds another experiment, with the differences.
    """
    claim(folder / IDENTITY, study, lambda a, b: list(differences(a, b)), KIND, fresh=fresh)
    unadapted = adapt_models(
        study, folder, resources, device=device, fresh=fresh, max_pixels=max_pixels, on_adapt=on_adapt
    )
    failures = {task: unadapted[task[0]] for task in study.tasks() if task[0] in unadapted}
    tasks = [task for task in study.tasks() if task not in failures]
    with io.pixel_limit(max_pixels):
        finished = done_rows(folder, tasks, StoredResults, _identify(study, folder))
        left = [task for task in tasks if task not in finished]
        prompts = _prompts(study, left, device)
    make = partial(_make_worker, study, folder, device, max_pixels, prompts)
    failures |= run_tasks(make, left, finished, resources, on_done)
    return [row for task in tasks if task in finished for row in finished[task].rows], failures


def _identify(study: Study, folder: Path) -> Callable[[Task], Identity]:
    """Return the function that gives the identity of a task; it reads each scene once."""
    scenes = {scene.name: scene for scene in study.scenes()}

    def load(name: str) -> Sample:
        return study.reader(scenes[name].scenes).load(scenes[name].image)

    presets = {name: measured_preset(study, folder, arm) for name, arm in study.arms.items()}
    identity = identities(load, presets)
    return lambda task: identity(*task)


def _prompts(study: Study, tasks: list[Task], device: str) -> dict[str, str]:
    """Return the prompt of each scene that is left, the same for all arms."""
    scenes = {scene.name: scene for scene in study.scenes()}

    def load(name: str) -> Sample:
        scene = scenes[name]
        return prepare(study.protocol, study.reader(scene.scenes).load(scene.image))

    names = list(dict.fromkeys(name for _, name in tasks))
    if study.grid.captioned and study.dataset == SYNTHETIC:
        return {name: load(name).caption for name in names}
    return captions(study.base, names, load, device)


def _make_worker(
    study: Study, folder: Path, device: str, max_pixels: int, prompts: Mapping[str, str]
) -> Callable[[Task], StoredResults]:
    """Return a worker that runs one arm on one scene; an arm's models are loaded at its first scene."""
    return io.with_pixel_limit(_Worker(study, folder, device, prompts), max_pixels)


class _Worker:
    def __init__(self, study: Study, folder: Path, device: str, prompts: Mapping[str, str]) -> None:
        self.study, self.folder, self.device, self.prompts = study, folder, device, prompts
        self.scenes = {scene.name: scene for scene in study.scenes()}
        self.readers = {scenes.label: study.reader(scenes) for scenes in study.sets}
        self.loaded: dict[str, Pipeline] = {}
        self.start: Pipeline | None = None

    def __call__(self, task: Task) -> StoredResults:
        name, scene = task[0], self.scenes[task[1]]
        arm = self.study.arms[name]
        stored = self.readers[scene.scenes.label].load(scene.image)
        identity = identify(stored, measured_preset(self.study, self.folder, arm))
        sample = prepare(self.study.protocol, stored)
        if arm.adapt is not None:
            rows = StoredResults(rows=[self._adapted_row(name, arm, arm.adapt, scene, sample)])
            finish_row(begin_row(self.folder, task), rows.model_dump(), identity, [])
            return rows
        points = draw_points(sample, arm.points, self.study.image_seed(scene)) if arm.points else None
        refinement, peak = self._refine(name, arm, scene, sample, points)
        known = known_part(sample, refinement)
        measured = [
            (part, measure_aligned(self.study.protocol, known, part.refinement.outcome, points))
            for part in _parts(name, arm, refinement)
        ]
        rows = StoredResults(rows=[self._row(scene, part, both, peak) for part, both in measured])
        path, files = begin_row(self.folder, task), []
        if self._is_pictured(scene):
            files.append(path.with_suffix(".npz"))
            io.save_npz(files[0], _maps(refinement, measured[0][1]))
        finish_row(path, rows.model_dump(), identity, files)
        return rows

    def _adapted_row(
        self, name: str, arm: ArmRun, adaptation: Adaptation, scene: Scene, sample: Sample
    ) -> ArmResult:
        """Return the row of an adapted model: of its prediction, or of a refinement of it."""
        if self.start is None:
            self.start = Pipeline(self.study.base, device=self.device)
        before = predict(self.start, self.study.protocol, sample).measured
        adapted = adapted_of(self.folder, arm)
        update = {
            "arm": arm.label,
            "adapted_to": adaptation.scenes,
            "adapt_seconds": seconds_of(adapted, arm),
        }
        if adaptation.refine:
            refinement, peak = self._refine(name, arm, scene, sample, None)
            known = known_part(sample, refinement)
            both = measure_both(self.study.protocol, known, refinement.outcome) | {"initial": before}
            return self._row(scene, _Part(name, 0, refinement), both, peak).model_copy(update=update)
        pipeline = self._pipeline(name, arm)
        prediction = predict(pipeline, self.study.protocol, sample)
        row = ArmResult(
            **self._measured(scene, before, prediction.measured),
            arm=name,
            seed=self.study.image_seed(scene),
            members=1,
            diagnostics={},
            flagged=[],
            seconds=prediction.seconds,
            memory_mib=None,
            hardware=_hardware(pipeline.components),
        )
        return row.model_copy(update=update)

    def _refine(
        self, name: str, arm: ArmRun, scene: Scene, sample: Sample, points: Anchors | None
    ) -> tuple[Refinement, float | None]:
        """Return the refinement and its peak memory in MiB."""
        pipeline = self._pipeline(name, arm)
        prior = pipeline.refiner.prior
        if isinstance(prior, Teacher):
            share = 0.0 if arm.teacher is None else arm.teacher
            prior.set_surface(surface_between(pipeline, sample, share))
        memory = PeakMemory(pipeline.device)
        refinement = pipeline.refine(
            sample.pixels(),
            prompt=self.prompts.get(scene.name, ""),
            seed=self.study.image_seed(scene),
            data=() if points is None else (points,),
            albedo=sample.albedo if lights_true_albedo(arm.preset) else None,
        )
        refinement.outcome.check_whole()
        return refinement, memory.mib()

    def _is_pictured(self, scene: Scene) -> bool:
        """Return whether the scene's maps are kept for pictures."""
        in_first_set = scene.scenes == self.study.sets[0]
        return self.study.grid.pictures and in_first_set and scene.number < PICTURED

    def _pipeline(self, name: str, arm: ArmRun) -> Pipeline:
        if name not in self.loaded and self.study.grid.by_scene and arm.teacher is None:
            # Arms of one preset share its components.
            same = (p for p in self.loaded.values() if p.preset == arm.preset)
            if (shared := next(same, None)) is not None:
                self.loaded[name] = shared
        if name not in self.loaded:
            # Only one arm is in memory: all scenes of an arm come before those of the next.
            self.loaded = {}
            pipeline = Pipeline(measured_preset(self.study, self.folder, arm), device=self.device)
            if arm.teacher is not None:
                refiner = pipeline.refiner
                refiner.prior = Teacher(refiner.prior, refiner.renderer)
            self.loaded = {name: pipeline}
        return self.loaded[name]

    def _row(
        self, scene: Scene, part: _Part, both: Mapping[str, Measurement], peak: float | None
    ) -> ArmResult:
        refinement = part.refinement
        return ArmResult(
            **self._measured(scene, both["initial"], both["refined"]),
            arm=part.arm,
            seed=refinement.seed,
            draw=part.draw,
            members=len(refinement.outcome.members),
            diagnostics={name: signature.value for name, signature in refinement.diagnostics.items()},
            flagged=[signature.name for signature in refinement.flagged],
            seconds=refinement.outcome.seconds,
            memory_mib=peak,
            hardware=_hardware(refinement.components),
            prompt=refinement.prompt,
        )

    def _measured(self, scene: Scene, before: Measurement, after: Measurement) -> dict[str, Any]:
        """Return the fields of a row that say which image was measured, how, and what came out."""
        return {
            "experiment": self.study.experiment,
            "split": scene.scenes.split,
            "strength": scene.scenes.strength,
            "image": scene.image,
            "before": before.row.metrics,
            "after": after.row.metrics,
            "clipped": after.row.clipped,
            "protocol": after.row.protocol,
            "protocol_sha256": after.row.protocol_sha256,
        }


def _hardware(components: Mapping[str, Any]) -> str:
    return "{name}, {threads} threads".format(**components["hardware"])


@dataclass(frozen=True)
class _Part:
    """Some members of a refinement, as an ensemble."""

    arm: str
    draw: int
    refinement: Refinement


def _parts(name: str, arm: ArmRun, refinement: Refinement) -> list[_Part]:
    """Return the whole ensemble, or its disjoint parts of each size.

    Members have independent random streams, so each part is an ensemble of fewer members.
    """
    if not arm.parts:
        return [_Part(name, 0, refinement)]
    outcome, parts = refinement.outcome, []
    for size in arm.parts:
        for draw in range(len(outcome.members) // size):
            rows = slice(draw * size, (draw + 1) * size)
            part = replace(outcome, members=outcome.members[rows], member_depths=outcome.member_depths[rows])
            parts.append(_Part(part_name(size), draw, replace(refinement, outcome=part)))
    return parts


def part_name(size: int) -> str:
    """Return the name of the arm of an ensemble's parts of a size."""
    return f"N = {size}"


def _maps(refinement: Refinement, both: Mapping[str, Measurement]) -> dict[str, Any]:
    """Return the arrays that the pictures of a scene are drawn from."""
    depths = {when: measured.depth.float().numpy() for when, measured in both.items()}
    return {"photo": io.to_uint8(refinement.photo), "truth": both["initial"].truth.float().numpy(), **depths}


class PeakMemory:
    """The peak memory since this object was made, in MiB.

    On CUDA: the memory of tensors on the device. On Linux: the resident memory of the whole process, with
    libraries, weights, and memory that the allocator has kept from earlier work. Elsewhere it is unknown.
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
        """Return the peak; None if it is unknown."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 2**20, 1)
        if self._status is None:
            return None
        lines = self._status.read_text(encoding="ascii").splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        return None if kib is None else round(int(kib) / 1024, 1)
