"""The work on one image: predict or refine it once for each preparation, and measure it by every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from redepth import io
from redepth.bench.answers import Answer, Predictor
from redepth.bench.identity import identify
from redepth.bench.photo_files import photo_file
from redepth.bench.pictures import ERRORS, PICTURES, beside, draw, view_path
from redepth.bench.records import Result, Row, Run
from redepth.bench.together import preparations
from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.exports.viewer import page_of
from redepth.photo_inputs import ChosenCamera, DecodedPhoto
from redepth.pipeline import Pipeline
from redepth.protocols import Measurement, prepare
from redepth.runtime.device import choose_device
from redepth.runtime.resume import Task, begin_row, finish_row

PICTURE_WIDTH = 480

Prompts = Mapping[Task, Sequence[str]]
"""The prompts of each task, one for each preparation of the photo."""


@dataclass(frozen=True)
class Kept:
    """What is written of each image besides its row and its pictures: its maps, its page."""

    arrays: bool = False
    views: bool = False


def make_worker(
    run: Run, folder: Path, device: str, kept: Kept, max_pixels: int, prompts: Prompts
) -> Callable[[Task], Row]:
    """Return a worker that measures one image; a preset's models are loaded at its first image."""
    return io.with_pixel_limit(_Worker(run, folder, device, kept, prompts), max_pixels)


@dataclass(frozen=True)
class _Measured:
    """One image under one protocol.

    Attributes:
        result: the numbers.
        maps: ``initial`` and, after a refinement, ``refined``: what the pictures are drawn from.
        answer: what was measured.
        first: whether it is the first protocol of its preparation.
    """

    result: Result
    maps: Mapping[str, Measurement]
    answer: Answer
    first: bool


class _Worker:
    def __init__(self, run: Run, folder: Path, device: str, kept: Kept, prompts: Prompts) -> None:
        self.prompts = prompts
        self.run, self.folder, self.device, self.kept = run, folder, device, kept
        self.dataset = run.reader()
        self.models: dict[str, Pipeline | Predictor] = {}

    def __call__(self, task: Task) -> Row:
        preset, image = task
        started = time.perf_counter()
        stored = self.dataset.load(image)
        identity = identify(stored, self.run.presets[preset])
        # Decoded once for all protocols; the hash of the file is taken.
        measured = self._measured(task, replace(stored, photo=stored.pixels()))
        row = Row.of([one.result for one in measured])
        record = {
            **row.model_dump(exclude=None if row.further else {"further"}),
            "seconds": time.perf_counter() - started,
            "components": measured[0].answer.components,
        }
        path = begin_row(self.folder, task)
        files = [file for number, one in enumerate(measured) for file in self._write(path, number, one)]
        finish_row(path, record, identity, files)
        return row

    def _measured(self, task: Task, sample: Sample) -> list[_Measured]:
        """Return the image under each protocol, in the order of the run."""
        preset, image = task
        protocols = self.run.protocols
        # All of them first: what a protocol refuses is found before minutes of work.
        samples = {protocol.name: prepare(protocol, sample) for protocol in protocols}
        found = {}
        for prompt, group in zip(self.prompts[task], preparations(protocols), strict=True):
            answer = self._answer(preset, samples[group[0].name], prompt)
            for protocol in group:
                maps = answer.measure(protocol, samples[protocol.name])
                result = Result(
                    image=image,
                    preset=preset,
                    initial=maps["initial"].row.record(),
                    refined=maps["refined"].row.record() if "refined" in maps else None,
                    prompt=prompt,
                    diagnostics=answer.flagged,
                )
                found[protocol.name] = _Measured(result, maps, answer, protocol is group[0])
        return [found[protocol.name] for protocol in protocols]

    def _answer(self, preset: str, sample: Sample, prompt: str) -> Answer:
        camera = self._camera(sample)
        model, source = self._model(preset), photo_file(sample.name)
        if isinstance(model, Predictor):
            return model.predict(sample.pixels(), None if camera is None else sample.camera, source)
        photo = DecodedPhoto(sample.pixels(), source)
        refinement = model.refine(photo, prompt=prompt, seed=self.run.seed, camera=camera)
        refinement.outcome.check_whole()
        return Answer.of(refinement)

    def _camera(self, sample: Sample) -> ChosenCamera | None:
        if self.run.camera == "preset":
            return None
        if sample.camera is None:
            raise InputError("the data set has no camera of this photo: take --camera preset")
        return ChosenCamera(sample.camera, "data set")

    def _model(self, name: str) -> Pipeline | Predictor:
        if name not in self.models:
            preset = self.run.presets[name]
            # Only one preset is in memory: all images of a preset come before those of the next.
            self.models = {}
            if self.run.initial_only:
                self.models[name] = Predictor(preset, choose_device(self.device))
            else:
                self.models[name] = Pipeline(preset, device=self.device)
        return self.models[name]

    def _write(self, row: Path, number: int, measured: _Measured) -> Iterator[Path]:
        """Write the files of a protocol beside a row, and yield their paths."""
        # The other protocols of a preparation have the same photo and, but for the alignment, the same maps.
        shown = PICTURES if measured.first else ERRORS
        for name, picture in draw(measured.answer.photo, measured.maps, shown, PICTURE_WIDTH).items():
            path = beside(row, number, f"{name}.jpg")
            io.save_jpeg(path, picture)
            yield path
        refinement = measured.answer.refinement
        if self.kept.views and measured.first and refinement is not None:
            io.save_text(view_path(row, number), page_of(replace(refinement, source=measured.result.image)))
            yield view_path(row, number)
        if self.kept.arrays:
            path = beside(row, number, "npz")
            io.save_npz(path, _arrays(measured))
            yield path


def _arrays(measured: _Measured) -> dict[str, NDArray[Any]]:
    """Return the aligned maps, the truth, and the raw outputs."""
    arrays: dict[str, NDArray[Any]] = {
        f"{when}_depth": one.depth.float().numpy() for when, one in measured.maps.items()
    }
    arrays["truth"] = measured.maps["initial"].truth.float().numpy()
    arrays["initial_raw"] = measured.answer.outputs["initial"].numpy()
    if measured.answer.refinement is not None:
        arrays["members_raw"] = measured.answer.refinement.outcome.members.numpy()
    return arrays
