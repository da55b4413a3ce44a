"""A benchmark run: images of a data set under presets and a protocol, resumable, by any executor.

A run's folder::

    bench.json                       what the run is: data set, images, protocol, presets, seed
    images/PRESET/IMAGE.json         the row of an image, written as it ends; a killed run goes on here
    images/PRESET/IMAGE.*.jpg        its pictures;  IMAGE.npz its arrays, if asked for
    rows.jsonl  rows.csv  summary.json  report.html     made of the rows at the end
"""

from __future__ import annotations

import csv
import io as text_io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from redepth import io
from redepth.bench.report import image_pictures, write_report
from redepth.components import captioner_of
from redepth.config import Preset
from redepth.data.datasets import Dataset, Sample
from redepth.data.datasets.base import Array
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.metrics import bootstrap_interval, win_rate
from redepth.optim.outcome import Outcome
from redepth.pipeline import Pipeline
from redepth.protocols import ImageMetrics, Measurement, Protocol, difference, load_protocol, open_dataset
from redepth.refinement import Refinement
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Task, claim, load_identity, read_rows, row_path, run_tasks

HIGHER_IS_BETTER = re.compile(r"a[123]|boundary_.*|normals_[0-9.]+")
PICTURE_WIDTH = 480
RESAMPLES_SEED = 0
IDENTITY, KIND = "bench.json", "benchmark run"


class Run(BaseModel):
    """What decides a run's numbers; two runs in one folder must agree on it.

    Attributes:
        dataset: name of the data set.
        options: of its reader.
        images: names, in order.
        protocol: pinned to these images.
        presets: name -> resolved preset.
        prompt: what a text-conditioned prior is told about every photo; None is what the preset's captioner
            says of each.
        seed: of all random streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    options: dict[str, Any]
    images: list[str]
    protocol: Protocol
    presets: dict[str, Preset]
    prompt: str | None = None
    seed: int = 0

    def reader(self) -> Dataset:
        """Return the data set."""
        return open_dataset(self.protocol, self.dataset, self.options)


class Result(BaseModel):
    """The row of one image under one preset.

    Attributes:
        image: its name.
        preset: name of the preset.
        initial: the frozen model's row, a `protocols.ImageMetrics` as JSON.
        refined: that after refinement.
        prompt: what the prior was told about the photo.
        diagnostics: failure signatures that were flagged, by name.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: str
    preset: str
    initial: dict[str, Any]
    refined: dict[str, Any]
    prompt: str = ""
    diagnostics: list[str] = []

    @property
    def silog(self) -> tuple[float, float]:
        """SI-log before and after."""
        before, after = (side["metrics"]["silog"] for side in (self.initial, self.refined))
        return before, after

    def change(self, metric: str) -> float:
        """Return the relative change of a metric in percent."""
        before, after = self.initial["metrics"][metric], self.refined["metrics"][metric]
        return 100 * (after / before - 1) if before else 0.0


@dataclass(frozen=True)
class Summary:
    """One metric of one preset over all images.

    Attributes:
        metric: its name.
        initial: average before.
        refined: average after.
        change: relative change of the mean over images, in percent.
        low: lower end of its 95 % interval (bootstrap over images).
        high: upper end.
        wins: share of images that improved.
        images: how many have the metric.
    """

    metric: str
    initial: float
    refined: float
    change: float
    low: float
    high: float
    wins: float
    images: int


# --- running --------------------------------------------------------------------------------------


def run_benchmark(
    run: Run,
    folder: Path,
    resources: Resources,
    *,
    device: str = "auto",
    fresh: bool = False,
    keep_arrays: bool = False,
    on_done: Callable[[Done[Task, Result], int, int], None] = lambda done, ended, total: None,
) -> tuple[list[Result], dict[Task, str]]:
    """Refine and measure what is not done yet, write everything, and return rows and failures.

    Args:
        run: what to measure.
        folder: of the run; a run that was killed goes on in it.
        resources: where the work runs; the rows do not depend on it.
        device: of each worker.
        fresh: forget what the folder holds.
        keep_arrays: also write each image's maps.
        on_done: called after each image with its outcome, how many have ended, and how many there are.

    Raises:
        ConfigError: the folder holds another run, with the differences.
    """
    claim(folder / IDENTITY, run, differences, KIND, fresh=fresh)
    tasks = [(preset, image) for preset in run.presets for image in run.images]
    finished = read_rows(folder, tasks, Result)
    left = [task for task in tasks if task not in finished]
    prompts = _prompts(run, left, device)
    make = partial(_make_worker, run.model_dump_json(), str(folder), device, keep_arrays, prompts)
    failures = run_tasks(make, left, finished, resources, on_done)
    results = [finished[task] for task in tasks if task in finished]
    if results:
        write_tables(run, results, folder)
    return results, failures


def differences(a: Run, b: Run) -> list[str]:
    """Return in words what differs between two runs."""
    found = difference(a.protocol, b.protocol)
    for name in ("dataset", "options", "prompt", "seed"):
        if getattr(a, name) != getattr(b, name):
            found.append(f"{name} {getattr(a, name)!r} and {getattr(b, name)!r}")
    if a.images != b.images and not found:
        found.append(f"{len(a.images)} and {len(b.images)} images")
    for name in sorted(set(a.presets) & set(b.presets)):
        if a.presets[name] != b.presets[name]:
            found.append(f"preset {name} has other settings")
    missing = set(a.presets) - set(b.presets)
    return [*found, *(f"preset {name} is left out" for name in sorted(missing))]


def _make_worker(
    run: str, folder: str, device: str, keep_arrays: bool, prompts: Mapping[Task, str]
) -> Callable[[Task], Result]:
    """Make what refines one image; each preset is loaded when its first image comes."""
    return _Worker(Run.model_validate_json(run), Path(folder), device, keep_arrays, prompts)


def _prompts(run: Run, tasks: Sequence[Task], device: str) -> dict[Task, str]:
    """Return what the prior is told in each task."""
    if run.prompt is not None:
        return dict.fromkeys(tasks, run.prompt)
    reader = run.reader()
    found = dict.fromkeys(tasks, "")
    for name, preset in run.presets.items():
        images = [image for variant, image in tasks if variant == name]
        told = captions(preset, images, lambda image: run.protocol.prepare(reader.load(image)), device)
        found |= {(name, image): text for image, text in told.items()}
    return found


def captions(
    preset: Preset, images: Sequence[str], load: Callable[[str], Sample], device: str
) -> dict[str, str]:
    """Return what a preset's captioner, loaded once, says of each image that can be read; {} without one."""
    captioner = captioner_of(preset, choose_device(device))
    if captioner is None:
        return {}
    readable: list[str] = []
    told = captioner.captions(_readable(images, load, readable))
    return {image: prompt.text for image, prompt in zip(readable, told, strict=True)}


def _readable(images: Sequence[str], load: Callable[[str], Sample], readable: list[str]) -> Iterator[Array]:
    """Yield photos one by one, noting whose they are; a worker will say why one cannot be read."""
    for image in images:
        try:
            pixels = load(image).pixels()
        except RedepthError:
            continue
        readable.append(image)
        yield pixels


def require_whole(refinement: Refinement) -> Refinement:
    """Return a refinement that took all its steps: a part of one is no result.

    Raises:
        KeyboardInterrupt: if Ctrl-C ended it.
        RedepthError: if something else did, saying what.
    """
    if refinement.outcome.reason == "interrupted":
        raise KeyboardInterrupt
    if refinement.partial:
        raise RedepthError(refinement.outcome.reason)
    return refinement


def measure_both(protocol: Protocol, sample: Sample, outcome: Outcome) -> dict[str, Measurement]:
    """Measure the ``initial`` and the ``refined`` output of one prepared image."""
    return {
        when: protocol.measure(raw[0, 0], sample, predicts=outcome.predicts, invariance=outcome.invariance)
        for when, raw in (("initial", outcome.initial), ("refined", outcome.refined))
    }


class _Worker:
    def __init__(
        self, run: Run, folder: Path, device: str, keep_arrays: bool, prompts: Mapping[Task, str]
    ) -> None:
        self.prompts = prompts
        self.run, self.folder, self.device, self.keep_arrays = run, folder, device, keep_arrays
        self.dataset = run.reader()
        self.pipelines: dict[str, Pipeline] = {}

    def __call__(self, task: Task) -> Result:
        preset, image = task
        started = time.perf_counter()
        sample = self.run.protocol.prepare(self.dataset.load(image))
        if preset not in self.pipelines:
            # One preset at a time is in memory: the images of one come before those of the next.
            self.pipelines = {preset: Pipeline(self.run.presets[preset], device=self.device)}
        refinement = require_whole(
            self.pipelines[preset].refine(sample.pixels(), prompt=self.prompts[task], seed=self.run.seed)
        )
        measured = measure_both(self.run.protocol, sample, refinement.outcome)
        result = Result(
            image=image,
            preset=preset,
            initial=measured["initial"].row.record(),
            refined=measured["refined"].row.record(),
            prompt=self.prompts[task],
            diagnostics=[signature.name for signature in refinement.flagged],
        )
        self._write(task, result, refinement, measured, time.perf_counter() - started)
        return result

    def _write(
        self,
        task: Task,
        result: Result,
        refinement: Refinement,
        measured: Mapping[str, Measurement],
        seconds: float,
    ) -> None:
        path = row_path(self.folder, task)
        for name, picture in image_pictures(refinement, measured, PICTURE_WIDTH).items():
            io.save_jpeg(path.with_suffix(f".{name}.jpg"), picture)
        if self.keep_arrays:
            maps = {f"{when}_depth": m.depth.float().numpy() for when, m in measured.items()}
            truth = {"truth": measured["initial"].truth.float().numpy()}
            raw = {"initial_raw": refinement.outcome.initial, "members_raw": refinement.outcome.members}
            io.save_npz(path.with_suffix(".npz"), {**maps, **truth, **{k: v.numpy() for k, v in raw.items()}})
        # The row comes last: where it stands, all else of the image does.
        io.save_json(path, {**result.model_dump(), "seconds": seconds, "components": refinement.components})


# --- tables ---------------------------------------------------------------------------------------


def summarize(protocol: Protocol, results: Sequence[Result]) -> dict[str, list[Summary]]:
    """Return the table of each preset: every metric before and after.

    Averages follow the protocol; interval and wins are over images.
    """
    found: dict[str, list[Summary]] = {}
    for preset in dict.fromkeys(result.preset for result in results):
        own = [result for result in results if result.preset == preset]
        before, after = (
            protocol.average([ImageMetrics.from_record(getattr(r, when)) for r in own])
            for when in ("initial", "refined")
        )
        found[preset] = [_summary(name, before[name], after[name], own) for name in before if name in after]
    return found


def _summary(metric: str, before: float, after: float, results: Sequence[Result]) -> Summary:
    pairs = [
        (r.initial["metrics"][metric], r.refined["metrics"][metric])
        for r in results
        if metric in r.initial["metrics"] and metric in r.refined["metrics"]
    ]
    first, second = ([pair[k] for pair in pairs] for k in (0, 1))
    wins = win_rate(first, second, lower_is_better=not HIGHER_IS_BETTER.fullmatch(metric))
    try:
        interval = bootstrap_interval(first, second, generator=torch.Generator().manual_seed(RESAMPLES_SEED))
    except InputError:  # a mean of 0 before: nothing is relative to it
        nan = float("nan")
        return Summary(metric, before, after, nan, nan, nan, wins, len(pairs))
    return Summary(metric, before, after, interval.change, interval.low, interval.high, wins, len(pairs))


def write_tables(run: Run, results: Sequence[Result], folder: Path) -> None:
    """Write rows (JSON lines, CSV), the summary and the report."""
    io.save_text(folder / "rows.jsonl", "".join(json.dumps(r.model_dump()) + "\n" for r in results))
    io.save_text(folder / "rows.csv", _csv(results))
    summaries = summarize(run.protocol, results)
    table = {preset: [vars(row) for row in rows] for preset, rows in summaries.items()}
    io.save_json(folder / "summary.json", table)
    pictures = {(r.preset, r.image): row_path(folder, (r.preset, r.image)) for r in results}
    write_report(run, results, summaries, pictures, folder / "report.html")


def _csv(results: Sequence[Result]) -> str:
    metrics = list(dict.fromkeys(name for r in results for name in r.initial["metrics"]))
    buffer = text_io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    sides = [f"{name}_{when}" for name in metrics for when in ("initial", "refined")]
    writer.writerow(["image", "preset", "protocol", "protocol_sha256", *sides, "clipped_refined"])
    for r in results:
        values = [side["metrics"].get(name, "") for name in metrics for side in (r.initial, r.refined)]
        protocol = [r.initial["protocol"], r.initial["protocol_sha256"]]
        writer.writerow([r.image, r.preset, *protocol, *values, r.refined["clipped"]])
    return buffer.getvalue()


@dataclass(frozen=True)
class Comparison:
    """How one run's refined metric differs from another's, over the images that both have."""

    preset: str
    other: str
    summaries: list[Summary]


def compare(a: Path, b: Path) -> Iterator[Comparison]:
    """Compare the refined results of two runs, each preset of one with each of the other, image by image.

    Raises:
        ConfigError: their protocols differ, spelled out.
        InputError: a folder holds no run, or they share no image.
    """
    runs = [load_identity(folder / IDENTITY, Run, KIND) for folder in (a, b)]
    if found := difference(runs[0].protocol, runs[1].protocol):
        raise ConfigError(f"{a} and {b} were measured by different protocols: {'; '.join(found)}")
    results = [
        list(read_rows(folder, [(p, image) for p in run.presets for image in run.images], Result).values())
        for run, folder in zip(runs, (a, b), strict=True)
    ]
    pairs = [(p, q) for p in runs[0].presets for q in runs[1].presets]
    for first, second in pairs:
        ours = {r.image: r for r in results[0] if r.preset == first}
        theirs = {r.image: r for r in results[1] if r.preset == second}
        shared = [image for image in ours if image in theirs]
        if not shared:
            raise InputError(f"{a} and {b} have no finished image in common")
        joined = [
            Result(image=i, preset=second, initial=ours[i].refined, refined=theirs[i].refined) for i in shared
        ]
        (summaries,) = summarize(runs[0].protocol, joined).values()
        yield Comparison(first, second, summaries)


def default_protocol(dataset: str) -> Protocol:
    """Return the protocol that belongs to a data set."""
    from redepth.protocols import protocol_for

    return load_protocol(protocol_for(dataset))
