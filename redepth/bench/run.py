"""Run a benchmark: refine and measure every image under every preset, one row file an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from redepth import io
from redepth.bench.identity import identify, identities
from redepth.bench.pictures import image_pictures, view_path
from redepth.bench.records import RUN_FILE, RUN_KIND, Result, Run
from redepth.bench.tables import write_tables
from redepth.components import captioner_of
from redepth.config import Preset
from redepth.data.datasets import Sample
from redepth.data.datasets.base import Array
from redepth.errors import InputError
from redepth.exports.viewer import page_of
from redepth.optim.outcome import Outcome
from redepth.photo_inputs import ChosenCamera
from redepth.pipeline import Pipeline
from redepth.protocols import EvaluationProtocol, Measurement, difference, measure, prepare
from redepth.refinement import Refinement
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Task, begin_row, claim, done_rows, finish_row, read_rows, run_tasks

PICTURE_WIDTH = 480

OnDone = Callable[[Done[Task, Result], int, int], None]
"""Called after each image with its outcome, the number of images that have ended, and the number of all."""


def run_benchmark(
    run: Run,
    folder: Path,
    resources: Resources,
    *,
    device: str = "auto",
    fresh: bool = False,
    keep_arrays: bool = False,
    keep_views: bool = False,
    max_pixels: int = io.MAX_PIXELS,
    on_done: OnDone = lambda done, ended, total: None,
) -> tuple[list[Result], dict[Task, str]]:
    """Refine and measure the images that are left, write all files, and return rows and failures.

    Args:
        run: what to measure.
        folder: folder of the run; a run that was killed resumes there.
        resources: where the work runs; the rows do not depend on it.
        device: device of each worker.
        fresh: discard what the folder holds.
        keep_arrays: also write each image's maps.
        keep_views: also write each image's page, to which the report links.
        max_pixels: refuse files of the data set with more pixels; it is no part of the run's identity,
            because it changes no row.
        on_done: called after each image.

    Raises:
        ConfigError: the folder holds another run, with the differences.
    """
    claim(folder / RUN_FILE, run, differences, RUN_KIND, fresh=fresh)
    tasks = run.tasks()
    identity = identities(run.reader().load, run.presets)
    with io.pixel_limit(max_pixels):
        finished = done_rows(folder, tasks, Result, lambda task: identity(*task))
        left = [task for task in tasks if task not in finished]
        prompts = _prompts(run, left, device)
    make = partial(_make_worker, run, folder, device, Kept(keep_arrays, keep_views), max_pixels, prompts)
    failures = run_tasks(make, left, finished, resources, on_done)
    results = [finished[task] for task in tasks if task in finished]
    if results:
        write_tables(run, results, folder)
    return results, failures


def finished_rows(run: Run, folder: Path) -> list[Result]:
    """Return the rows of a run that its folder holds."""
    return list(read_rows(folder, run.tasks(), Result).values())


def differences(a: Run, b: Run) -> list[str]:
    """Return in words each difference between two runs."""
    words = difference(a.protocol, b.protocol)
    for name in ("dataset", "options", "prompt", "seed", "camera"):
        if getattr(a, name) != getattr(b, name):
            words.append(f"{name} {getattr(a, name)!r} and {getattr(b, name)!r}")
    if a.images != b.images and not words:
        words.append(f"{len(a.images)} and {len(b.images)} images")
    for name in sorted(set(a.presets) & set(b.presets)):
        if a.presets[name] != b.presets[name]:
            words.append(f"preset {name} has other settings")
    missing = set(a.presets) - set(b.presets)
    return [*words, *(f"preset {name} is left out" for name in sorted(missing))]


# --- prompts --------------------------------------------------------------------------------------


def _prompts(run: Run, tasks: Sequence[Task], device: str) -> dict[Task, str]:
    """Return the prompt of each task."""
    if run.prompt is not None:
        return dict.fromkeys(tasks, run.prompt)
    reader = run.reader()
    prompts = dict.fromkeys(tasks, "")
    for name, preset in run.presets.items():
        images = [image for variant, image in tasks if variant == name]
        texts = captions(preset, images, lambda image: prepare(run.protocol, reader.load(image)), device)
        prompts |= {(name, image): text for image, text in texts.items()}
    return prompts


def captions(
    preset: Preset, images: Sequence[str], load: Callable[[str], Sample], device: str
) -> dict[str, str]:
    """Return the caption of each image that can be read, by the preset's captioner; {} without a captioner.

    The captioner is loaded once for all images.
    """
    captioner = captioner_of(preset, choose_device(device))
    if captioner is None:
        return {}
    readable: list[str] = []
    prompts = captioner.captions(_photos(images, load, readable))
    return {image: prompt.text for image, prompt in zip(readable, prompts, strict=True)}


def _photos(images: Sequence[str], load: Callable[[str], Sample], readable: list[str]) -> Iterator[Array]:
    """Yield photos one by one and append the names of those that can be read to ``readable``.

    An image that cannot be read is skipped: its worker reports the reason.
    """
    for image in images:
        try:
            pixels = load(image).pixels()
        except Exception:
            continue
        readable.append(image)
        yield pixels


@dataclass(frozen=True)
class Kept:
    """What is written of each image besides its row and its pictures: its maps, its page."""

    arrays: bool = False
    views: bool = False


# --- one image ------------------------------------------------------------------------------------


def known_part(sample: Sample, refinement: Refinement) -> Sample:
    """Return a prepared image without the truth at pixels where the refined map had a hole."""
    holes = refinement.unknown_at(*sample.truth.shape[-2:])
    if holes is None:
        return sample
    return replace(sample, mask=~holes if sample.mask is None else sample.mask & ~holes)


def measure_both(protocol: EvaluationProtocol, sample: Sample, outcome: Outcome) -> dict[str, Measurement]:
    """Measure the ``initial`` and the ``refined`` output of one prepared image."""
    outputs = {"initial": outcome.initial, "refined": outcome.refined}
    return {
        when: measure(protocol, raw[0, 0], sample, predicts=outcome.predicts, invariance=outcome.invariance)
        for when, raw in outputs.items()
    }


def _make_worker(
    run: Run, folder: Path, device: str, kept: Kept, max_pixels: int, prompts: Mapping[Task, str]
) -> Callable[[Task], Result]:
    """Return a worker that refines one image; a preset's models are loaded at its first image."""
    return io.with_pixel_limit(_Worker(run, folder, device, kept, prompts), max_pixels)


class _Worker:
    def __init__(self, run: Run, folder: Path, device: str, kept: Kept, prompts: Mapping[Task, str]) -> None:
        self.prompts = prompts
        self.run, self.folder, self.device, self.kept = run, folder, device, kept
        self.dataset = run.reader()
        self.pipelines: dict[str, Pipeline] = {}

    def __call__(self, task: Task) -> Result:
        preset, image = task
        started = time.perf_counter()
        stored = self.dataset.load(image)
        identity = identify(stored, self.run.presets[preset])
        sample = prepare(self.run.protocol, stored)
        refinement = self._pipeline(preset).refine(
            sample.pixels(),
            prompt=self.prompts[task],
            seed=self.run.seed,
            camera=self._camera(sample),
        )
        refinement.outcome.check_whole()
        known = known_part(sample, refinement)
        measured = measure_both(self.run.protocol, known, refinement.outcome)
        result = Result(
            image=image,
            preset=preset,
            initial=measured["initial"].row.record(),
            refined=measured["refined"].row.record(),
            prompt=self.prompts[task],
            diagnostics=[signature.name for signature in refinement.flagged],
        )
        record = {
            **result.model_dump(),
            "seconds": time.perf_counter() - started,
            "components": refinement.components,
        }
        path = begin_row(self.folder, task)
        finish_row(path, record, identity, self._write(path, refinement, measured, image))
        return result

    def _camera(self, sample: Sample) -> ChosenCamera | None:
        if self.run.camera == "preset":
            return None
        if sample.camera is None:
            raise InputError("the data set has no camera of this photo: take --camera preset")
        return ChosenCamera(sample.camera, "data set")

    def _pipeline(self, preset: str) -> Pipeline:
        if preset not in self.pipelines:
            # Only one preset is in memory: all images of a preset come before those of the next.
            self.pipelines = {preset: Pipeline(self.run.presets[preset], device=self.device)}
        return self.pipelines[preset]

    def _write(
        self, row: Path, refinement: Refinement, measured: Mapping[str, Measurement], image: str
    ) -> list[Path]:
        """Write the files beside a row and return their paths."""
        written = []
        for name, picture in image_pictures(refinement, measured, PICTURE_WIDTH).items():
            written.append(row.with_suffix(f".{name}.jpg"))
            io.save_jpeg(written[-1], picture)
        if self.kept.views:
            written.append(view_path(row))
            io.save_text(written[-1], page_of(replace(refinement, source=image)))
        if self.kept.arrays:
            maps = {f"{when}_depth": m.depth.float().numpy() for when, m in measured.items()}
            truth = {"truth": measured["initial"].truth.float().numpy()}
            raw = {"initial_raw": refinement.outcome.initial, "members_raw": refinement.outcome.members}
            written.append(row.with_suffix(".npz"))
            io.save_npz(written[-1], {**maps, **truth, **{k: v.numpy() for k, v in raw.items()}})
        return written
