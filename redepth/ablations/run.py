"""Run an ablation: every photo under every variant, by any executor. What is done already is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from redepth import components, io
from redepth.ablations.records import Row
from redepth.ablations.variants import Variant, refuse
from redepth.batch import (
    Photo,
    Refined,
    Settings,
    check_folder,
    check_photos,
    make_worker,
    why_refine,
    with_prompts,
)
from redepth.errors import InputError, RedepthError, one_line
from redepth.ground_truth import GroundTruth
from redepth.protocols import EvaluationProtocol
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Resources
from redepth.runtime.resume import Task, run_tasks

OnDone = Callable[[Done[Task, Row], int, int], None]
"""Called after each refinement with its outcome, the number of those that have ended, and of all."""

OnAgain = Callable[[Task, str], None]
"""Called with a refinement whose earlier result does not count, and why it does not."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """What is compared on which photos.

    Attributes:
        variants: the combinations.
        photos: their files, each once.
        out: folder of the results.
        device: as for `redepth.refine`.
        seed: of all random streams, the same for all.
        prompt: of all photos; None: the captioner of the preset writes one for each.
        max_pixels: photos and maps with more pixels are refused.
        truths: the ground truth of those photos that have one.
        problems: why photos cannot be used, such as for their ground truth; they fail before any work.
    """

    variants: Sequence[Variant]
    photos: Sequence[Path]
    out: Path
    device: str = "auto"
    seed: int = 0
    prompt: str | None = None
    max_pixels: int = io.MAX_PIXELS
    truths: Mapping[Path, GroundTruth] = field(default_factory=dict)
    problems: Mapping[Path, str] = field(default_factory=dict)

    @property
    def protocol(self) -> EvaluationProtocol | None:
        """The protocol by which photos are measured; None if no photo has ground truth."""
        return next((truth.protocol for truth in self.truths.values()), None)

    @property
    def labels(self) -> dict[Path, str]:
        """Photo -> its name, or its path where two have one name."""
        names = [io.displayed(photo.name) for photo in self.photos]
        return {
            photo: name if names.count(name) == 1 else io.displayed(photo)
            for photo, name in zip(self.photos, names, strict=True)
        }

    def settings(self) -> dict[str, Settings]:
        """Return the settings of each variant by name."""
        return {
            variant.name: Settings(variant.preset, self.device, self.seed, self.prompt, self.max_pixels)
            for variant in self.variants
        }

    def tasks(self) -> dict[Task, Photo]:
        """Return every refinement: variant and label -> photo with the folder of its result."""
        labels = self.labels
        tasks = {}
        for variant in self.variants:
            folders = io.output_folders(self.photos, self.out / variant.name)
            for path, folder in zip(self.photos, folders, strict=True):
                photo = Photo(path, folder, ground_truth=self.truths.get(path))
                tasks[variant.name, labels[path]] = photo
        return tasks


def check(ablation: Ablation) -> None:
    """Find missing packages and weights of all variants before any work.

    Raises:
        ConfigError: some variants cannot run here; the message names them and the reasons.
    """
    device = choose_device(ablation.device)
    problems = {}
    for variant in ablation.variants:
        try:
            components.build(variant.preset, device)
        except RedepthError as error:
            problems[variant.name] = str(error)
    refuse(problems, len(ablation.variants))


def run_ablation(
    ablation: Ablation,
    resources: Resources,
    *,
    fresh: bool = False,
    on_done: OnDone = lambda done, ended, total: None,
    on_again: OnAgain = lambda task, reason: None,
) -> tuple[dict[Task, Row], dict[Task, str]]:
    """Refine what is left, and return the rows and the failures, by variant and photo.

    A result some of whose files could not be written has a row, and is a failure as well.

    Args:
        ablation: what to compare.
        resources: where the work runs; the rows do not depend on it.
        fresh: also refine what is done.
        on_done: called after each refinement.
        on_again: called for each result that does not count as done.

    Raises:
        ConfigError: some variants cannot run here.
        KeyboardInterrupt: after Ctrl-C; what is finished is kept.
    """
    if resources.kind != "ray":  # whose machines may have what this one has not
        check(ablation)
    tasks, settings = ablation.tasks(), ablation.settings()
    for variant in ablation.variants:
        io.recover(ablation.out / variant.name)  # of a killed call
    failures = {task: ablation.problems[p.path] for task, p in tasks.items() if p.path in ablation.problems}
    usable = {task: photo for task, photo in tasks.items() if task not in failures}
    finished = {} if fresh else _finished(usable, settings, on_again)
    left = {task: photo for task, photo in usable.items() if task not in finished}
    ready, unusable = _prepared(left, settings, ablation.max_pixels)
    failures |= unusable
    make = partial(_Worker, settings, ready)
    failures |= run_tasks(make, list(ready), finished, resources, on_done)
    failures |= {task: "; ".join(row.unwritten) for task, row in finished.items() if row.unwritten}
    return {task: finished[task] for task in tasks if task in finished}, failures


def _finished(
    tasks: Mapping[Task, Photo], settings: Mapping[str, Settings], on_again: OnAgain
) -> dict[Task, Row]:
    """Return the rows of what is done already; say why other results do not count."""
    rows = {}
    for (variant, label), photo in tasks.items():
        reason = why_refine(photo, settings[variant])
        if reason is None:
            try:
                rows[variant, label] = _row((variant, label), photo, settings[variant])
                continue
            except InputError as error:
                reason = str(error)
        if reason:
            on_again((variant, label), reason)
    return rows


def _row(task: Task, photo: Photo, settings: Settings) -> Row:
    """Read the row of a result, judged by the thresholds of its variant. Raises InputError if it has none."""
    return Row.read(photo.folder, *task, settings.preset.diagnostics.thresholds.model_dump())


# --- before the work ------------------------------------------------------------------------------


def _prepared(
    tasks: Mapping[Task, Photo], settings: Mapping[str, Settings], max_pixels: int
) -> tuple[dict[Task, Photo], dict[Task, str]]:
    """Decode and check each photo once, and write its prompt once for all variants of one captioner."""
    failures: dict[Task, str] = {}
    by_path = {photo.path: photo for photo in tasks.values()}
    presets = [settings[variant].preset for variant in dict.fromkeys(variant for variant, _ in tasks)]
    checked = {d.item.path: d for d in check_photos(list(by_path.values()), max_pixels, presets)}
    ready = {}
    for task, photo in tasks.items():
        done = checked[photo.path]
        if done.result is None:
            failures[task] = done.error
            continue
        try:
            check_folder(photo.folder)
            ready[task] = replace(done.result, folder=photo.folder)
        except InputError as error:
            failures[task] = one_line(error)
    return _captioned(ready, settings, failures), failures


def _captioned(
    tasks: Mapping[Task, Photo], settings: Mapping[str, Settings], failures: dict[Task, str]
) -> dict[Task, Photo]:
    """Return the photos with their prompts; add those that cannot be captioned to the failures."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(settings[task[0]].preset.prompt.model_dump_json(), []).append(task)
    captioned = {}
    for group in groups.values():
        photos = {tasks[task].path: tasks[task] for task in group}
        outcomes = with_prompts(list(photos.values()), settings[group[0][0]])
        prompts = {done.item.path: done for done in outcomes}
        for task in group:
            done = prompts[tasks[task].path]
            if done.result is None:
                failures[task] = done.error
            else:
                captioned[task] = replace(tasks[task], prompt=done.result.prompt)
    return {task: captioned[task] for task in tasks if task in captioned}


# --- the work -------------------------------------------------------------------------------------


class _Worker:
    """Refines one task after the other. The models of one variant are in memory at a time."""

    def __init__(self, settings: Mapping[str, Settings], photos: Mapping[Task, Photo]) -> None:
        self.settings, self.photos = settings, photos
        self._variant = ""
        self._refine: Callable[[Photo], Refined] | None = None

    def __call__(self, task: Task) -> Row:
        variant, _ = task
        photo = self.photos[task]
        refined = self._worker(variant)(photo)
        if refined.interrupted:
            raise KeyboardInterrupt
        if refined.reason:
            raise RedepthError("; ".join(refined.problems))
        row = _row(task, photo, self.settings[variant])
        return row.model_copy(update={"warnings": refined.warnings, "unwritten": refined.unwritten})

    def _worker(self, variant: str) -> Callable[[Photo], Refined]:
        if self._refine is None or variant != self._variant:
            # The models of the former variant go before those of the next are loaded.
            self._refine = None
            settings = self.settings[variant]
            self._refine, self._variant = make_worker(settings, settings.preset), variant
        return self._refine
