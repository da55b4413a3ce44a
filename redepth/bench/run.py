"""Run a benchmark: refine and measure every image under every preset, one row file an image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from redepth import io
from redepth.bench.answers import depth_model_of
from redepth.bench.identity import identities
from redepth.bench.photo_files import check_photo_files
from redepth.bench.records import RUN_FILE, RUN_KIND, Result, Row, Run
from redepth.bench.report import write_report
from redepth.bench.tables import results_of, write_tables
from redepth.bench.together import preparations
from redepth.bench.worker import Kept, Prompts, make_worker
from redepth.components import build, captioner_of
from redepth.config import Preset
from redepth.data.datasets import Dataset, Sample
from redepth.data.datasets.base import Array, OtherKindError
from redepth.protocols import EvaluationProtocol, check_unit, difference, prepare
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Task, claim, done_rows, read_rows, row_path, run_tasks

log = logging.getLogger(__name__)

OnDone = Callable[[Done[Task, Row], int, int], None]
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
        ConfigError: the folder holds another run, with the differences; or a preset reads one file for
            several images.
        InputError: an image has no file of those that a preset reads for each.
        WeightsError: weights that an image needs are missing and unreachable.
    """
    tasks = run.tasks()
    check_photo_files(run.presets, run.images, renders=not run.initial_only)
    _check_kind(run, max_pixels)
    if not (folder / RUN_FILE).is_file():  # a run that cannot start must not claim the folder
        _check_weights(run, tasks, device, resources)
    claim(folder / RUN_FILE, run, differences, RUN_KIND, fresh=fresh)
    identity = identities(run.reader().load, run.presets)
    with io.pixel_limit(max_pixels):
        finished = _with_all_protocols(run, done_rows(folder, tasks, Row, lambda task: identity(*task)))
        left = [task for task in tasks if task not in finished]
        _check_weights(run, left, device, resources)
        prompts = _prompts(run, left, device)
    make = partial(make_worker, run, folder, device, Kept(keep_arrays, keep_views), max_pixels, prompts)
    failures = run_tasks(make, left, finished, resources, on_done)
    rows = [finished[task] for task in tasks if task in finished]
    if rows:
        summaries = write_tables(run, rows, folder)
        row_paths = {(row.preset, row.image): row_path(folder, (row.preset, row.image)) for row in rows}
        write_report(run, rows, summaries, row_paths, folder / "report.html")
    return results_of(run, rows), failures


def _with_all_protocols(run: Run, rows: dict[Task, Row]) -> dict[Task, Row]:
    """Return the rows that have every protocol of the run; log which of the others are measured again."""
    whole = {}
    for task, row in rows.items():
        if missing := row.lacks(run.protocols):
            log.warning(
                "%s (%s): measured again: not measured by %s yet", task[1], task[0], ", ".join(missing)
            )
        else:
            whole[task] = row
    return whole


def _check_kind(run: Run, max_pixels: int) -> None:
    """Refuse a ground truth that is wrong for every image, as the first one tells if it can be read.

    Raises:
        InputError: it is of another kind than the one asked for, or of another unit than a protocol needs.
    """
    try:
        with io.pixel_limit(max_pixels):
            first = run.reader().load(run.images[0])
    except OtherKindError:
        raise
    except Exception:  # its worker reports the reason
        return
    for protocol in run.protocols:
        check_unit(protocol, first)


def _check_weights(run: Run, tasks: Sequence[Task], device: str, resources: Resources) -> None:
    """Look for the weights of each preset that has work left, so that not every image fails for them."""
    if resources.kind == "ray":  # whose machines may have weights that are not here
        return
    for name in dict.fromkeys(preset for preset, _ in tasks):
        if run.initial_only:
            depth_model_of(run.presets[name])
        else:
            build(run.presets[name], choose_device(device))


def finished_rows(run: Run, folder: Path) -> list[Result]:
    """Return the results of a run that its folder holds, protocol by protocol."""
    return results_of(run, list(read_rows(folder, run.tasks(), Row).values()))


def differences(a: Run, b: Run) -> list[str]:
    """Return in words each difference between two runs; none where b only adds presets or protocols to a."""
    words = _protocol_differences(a.protocols, b.protocols)
    for name in ("dataset", "options", "prompt", "seed", "camera"):
        if getattr(a, name) != getattr(b, name):
            words.append(f"{name} {getattr(a, name)!r} and {getattr(b, name)!r}")
    if a.initial_only != b.initial_only:
        kinds = ("nothing is refined", "photos are refined")
        words.append(" and ".join(kinds if a.initial_only else reversed(kinds)))
    if a.images != b.images and not words:
        words.append(f"{len(a.images)} and {len(b.images)} images")
    for name in sorted(set(a.presets) & set(b.presets)):
        if a.presets[name] != b.presets[name]:
            words.append(f"preset {name} has other settings")
    missing = set(a.presets) - set(b.presets)
    return [*words, *(f"preset {name} is left out" for name in sorted(missing))]


def _protocol_differences(
    stored: Sequence[EvaluationProtocol], wanted: Sequence[EvaluationProtocol]
) -> list[str]:
    if len(stored) == len(wanted) == 1:
        return difference(stored[0], wanted[0])
    new = {protocol.name: protocol for protocol in wanted}
    words = []
    for protocol in stored:
        if protocol.name in new:
            words += difference(protocol, new[protocol.name])
        else:
            words.append(f"protocol {protocol.name} is left out")
    return words


# --- prompts --------------------------------------------------------------------------------------


def _prompts(run: Run, tasks: Sequence[Task], device: str) -> Prompts:
    """Return the prompts of each task."""
    groups = preparations(run.protocols)
    if run.initial_only or run.prompt is not None:
        return dict.fromkeys(tasks, [run.prompt or ""] * len(groups))
    reader = run.reader()
    prompts = {task: [""] * len(groups) for task in tasks}
    for name, preset in run.presets.items():
        images = [image for variant, image in tasks if variant == name]
        for number, group in enumerate(groups):
            texts = captions(preset, images, partial(_prepared, group[0], reader), device)
            for image, text in texts.items():
                prompts[name, image][number] = text
    return prompts


def _prepared(protocol: EvaluationProtocol, reader: Dataset, image: str) -> Sample:
    return prepare(protocol, reader.load(image))


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
