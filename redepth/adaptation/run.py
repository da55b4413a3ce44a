"""Adapt a depth model to photos: check, refine, train, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redepth import components, depth_models, io
from redepth.adaptation import photos as photo_files
from redepth.adaptation.learned import check_adaptable
from redepth.adaptation.methods import Material, lessons_of, load_depth_model, validation_of
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.processes import Processes
from redepth.adaptation.record import (
    ADAPT_FILE,
    ADAPT_KIND,
    REFINED,
    SUMMARY_FILE,
    TRAINING,
    Adapted,
    Event,
    Job,
    OnEvent,
    differences,
)
from redepth.adaptation.result import write_result
from redepth.adaptation.targets import TargetRow, make_targets, require_trusted, stored_targets
from redepth.adaptation.training import Trained, TrainingReport, train
from redepth.config import Overrides, Preset, load_preset, merged_overrides
from redepth.config.units import seconds
from redepth.errors import ConfigError, InputError, RedepthError, cut, one_line
from redepth.optim.limits import Deadline
from redepth.registry import require
from redepth.runtime.executors import Done
from redepth.runtime.resume import Identity, Task, claim, load_identity, read_record


def adapt(
    photos: Sequence[str | Path],
    preset: str | Path | Mapping[str, Any] | Preset,
    out: str | Path,
    *,
    keep: Sequence[str | Path] = (),
    refined: str | Path | None = None,
    overrides: Overrides = (),
    seed: int = 0,
    device: str = "auto",
    budget: str | None = None,
    vram: str | None = None,
    max_pixels: int = io.MAX_PIXELS,
    fresh: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Adapted:
    """Adapt the depth model of a preset to photos without labels, and write the result.

    The same call continues an adaptation that was ended; a finished one is returned as it is.

    Args:
        photos: files, folders or patterns.
        preset: name, YAML file, mapping or `Preset`; its section ``adapt`` says how.
        out: folder of the result: ``checkpoint/``, ``report.html`` and `record.Adapted` as ``summary.json``.
        keep: photos on which the model shall stay as it is: files, folders or patterns.
        refined: folder of the refined photos, which adaptations may share; by default in ``out``.
        overrides: of the preset, as for `redepth.refine`.
        seed: the same seed gives the same result.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        budget: limit of the time of this call, such as ``30m``; the result is then the best so far, and a
            further call continues.
        vram: limit of the GPU memory, such as ``8GB``.
        max_pixels: refuse photos with more pixels.
        fresh: forget the training that the folder holds. Refined photos are kept as far as they still hold.
        on_event: called as work advances, in the first process alone.

    Raises:
        RedepthError: ConfigError, InputError or WeightsError, each with what to do about it.
        KeyboardInterrupt: after Ctrl-C; what is done is kept.
    """
    deadline = _deadline(budget)
    resolved = _resolved(preset, overrides, vram)
    _check_learnable(resolved)
    found, kept = photo_files.find(photos), photo_files.find(keep) if keep else []
    folder = Path(out)
    _check_places(folder, [*found, *kept])
    _check_apart(found, kept)
    photo_files.split(found, resolved.adapt, seed)  # finds that there are too few
    processes = Processes.start(device)
    _check_batch(resolved, processes)
    components.build(resolved, processes.device)  # finds what is missing
    call = _Call(
        resolved,
        folder,
        Path(refined) if refined else folder / REFINED,
        seed,
        processes,
        deadline,
        max_pixels,
    )
    call.on_event = on_event if processes.first else lambda event: None
    result = call.run(found, kept, vram, fresh)
    processes.close()
    return result


# --- options --------------------------------------------------------------------------------------


def _deadline(budget: str | None) -> Deadline:
    try:
        if budget is not None:
            seconds(budget)
    except ValueError as error:
        raise ConfigError(f"the time limit '{cut(str(budget))}' {error}") from None
    return Deadline.start(budget)


def _resolved(
    preset: str | Path | Mapping[str, Any] | Preset, overrides: Overrides, vram: str | None
) -> Preset:
    limit = [] if vram is None else [f"optim.vram={json.dumps(vram)}"]
    changes = merged_overrides(overrides, limit)
    if isinstance(preset, Preset):
        if not changes:
            return components.resolve(preset)
        preset = preset.model_dump()
    return components.resolve(load_preset(preset, changes))


def _check_learnable(preset: Preset) -> None:
    """Find what hinders the training, before any weights are read."""
    check_adaptable(depth_models.REGISTRY.get(preset.depth_model.name))
    if preset.adapt.learns == "low-rank":
        require("peft", "adapt")


def _check_places(out: Path, photos: Sequence[PhotoFile]) -> None:
    """Refuse a folder of results that holds photos: the next call would find pictures of the result."""
    results = Path(io.as_text(out)).resolve()
    for photo in photos:
        if results in photo.path.resolve().parents:
            raise InputError(
                f"{photo.path}: this photo is inside the folder of the results; choose another --out"
            )


def _check_apart(photos: Sequence[PhotoFile], keep: Sequence[PhotoFile]) -> None:
    """Refuse a photo that is learned from and kept as it is."""
    learned = {photo.sha256: photo for photo in photos}
    for photo in keep:
        if photo.sha256 in learned:
            raise InputError(
                f"{photo.path}: the model cannot learn from this photo and stay as it is on it; leave it out "
                "of --keep or of the photos"
            )


def _check_batch(preset: Preset, processes: Processes) -> None:
    batch, world = preset.adapt.batch, processes.world
    if batch % world:
        raise ConfigError(
            f"adapt.batch {batch} is not divisible by {world} processes; set it to a multiple of {world}"
        )


# --- the stages -----------------------------------------------------------------------------------


@dataclass
class _Call:
    """A call of `adapt`, whose options are checked."""

    preset: Preset
    folder: Path
    refined: Path
    seed: int
    processes: Processes
    deadline: Deadline
    max_pixels: int
    on_event: OnEvent = lambda event: None
    left_out: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def run(self, found: list[PhotoFile], kept: list[PhotoFile], vram: str | None, fresh: bool) -> Adapted:
        job = self.claim(found, kept, fresh)
        if (done := finished_result(self.folder)) is not None:
            return done
        usable = [photo for photo in found if photo.name in job.photos]
        kept = [photo for photo in kept if photo.name in job.keep]
        training, held_out = photo_files.split(usable, self.preset.adapt, self.seed)
        material = self.refine(training, held_out, kept)
        model = load_depth_model(self.preset, self.processes.device)
        trained = self.train(material, model, vram)
        if self.processes.first:
            done = self.write(job, material, model, trained)
        self.processes.wait()
        return done or _stored_result(self.folder)

    # --- check ---

    def claim(self, found: Sequence[PhotoFile], keep: Sequence[PhotoFile], fresh: bool) -> Job:
        """Check the photos, and write to the folder what decides the result; return it.

        The first process does, and the others read it.
        """
        path = self.folder / ADAPT_FILE
        if self.processes.first:
            checked = _checked_before(path)
            usable = self.check([*found, *keep], checked)
            job = Job(
                preset=self.preset,
                seed=self.seed,
                photos={photo.name: photo.sha256 for photo in found if photo in usable},
                keep={photo.name: photo.sha256 for photo in keep if photo in usable},
                identity=self.identity(),
            )
            if not job.photos:
                raise InputError("no photo can be used; look at the errors above")
            claim(path, job, differences, ADAPT_KIND, fresh=fresh)
            if fresh:
                _forget(self.folder)
            (self.folder / TRAINING).mkdir(exist_ok=True)
        self.processes.wait()
        return load_identity(path, Job, ADAPT_KIND)

    def identity(self) -> Identity:
        """Return the files that the preset names, and the versions."""
        files = components.named_files(self.preset)
        return Identity.of(files, components.component_versions(self.preset))

    def check(self, photos: Sequence[PhotoFile], checked: set[str]) -> list[PhotoFile]:
        """Decode all photos, except those with these hashes; return those that can be used."""
        left = [photo for photo in photos if photo.sha256 not in checked]
        damaged = set()
        for done, photo in enumerate(left, 1):
            problem = ""
            try:
                photo_files.check([photo], self.max_pixels)
            except Exception as error:  # such as MemoryError
                problem = one_line(error)
                damaged.add(photo.sha256)
                self.leave_out(photo.name, problem, failed=True)
            self.on_event(Event("check", done, len(left), problem or photo.name, bool(problem)))
        return [photo for photo in photos if photo.sha256 not in damaged]

    def leave_out(self, name: str, why: str, *, failed: bool = False) -> None:
        """Note why a photo is not used."""
        self.left_out[name] = why
        if failed:
            self.failed.append(name)

    # --- refine ---

    def refine(self, training: list[PhotoFile], held_out: list[PhotoFile], keep: list[PhotoFile]) -> Material:
        """Refine what the method needs, and leave out what cannot be trusted."""
        distils = self.preset.adapt.method == "distil"
        wanted = [*held_out, *(training if distils else [])]
        failures = self.make_targets(wanted) if wanted else {}
        for others in self.processes.gathered(failures):
            failures |= others
        rows = stored_targets(wanted, self.preset, self.refined, seed=self.seed) if wanted else {}
        for photo in wanted:
            if photo.name not in rows:
                self.leave_out(photo.name, failures.get(photo.name, "its refinement is gone"), failed=True)
        chosen = _trusted(rows, held_out, "held-out photos") if held_out else []
        learned = _trusted(rows, training, "photos") if distils else training
        for name, row in rows.items():
            if not row.trusted:
                self.leave_out(name, "; ".join(row.reasons))
        used = {photo.name for photo in (*chosen, *learned)}
        rows = {name: row for name, row in rows.items() if name in used}
        return Material(self.preset, learned, chosen, keep, self.refined, rows, self.max_pixels)

    def make_targets(self, wanted: Sequence[PhotoFile]) -> dict[str, str]:
        """Refine this process's share of the photos; return why some failed, by name."""

        def on_done(done: Done[Task, TargetRow], ended: int, total: int) -> None:
            name = done.item[1]
            text = name if done.result is None else f"{name} changed by {100 * done.result.change:.1f} %"
            failed = done.result is None
            self.on_event(Event("refine", ended, total, f"{name}: {done.error}" if failed else text, failed))
            if ended < total and self.deadline():
                raise _out_of_time(self.deadline, f"{ended} of {total} photos are refined")

        _, failures = make_targets(
            wanted,
            self.preset,
            self.refined,
            device=str(self.processes.device),
            seed=self.seed,
            share=(self.processes.rank, self.processes.world),
            max_pixels=self.max_pixels,
            on_done=on_done,
        )
        return failures

    # --- train and write ---

    def train(self, material: Material, model: Any, vram: str | None) -> Trained:
        """Train the model in place."""

        def on_report(report: TrainingReport) -> None:
            loss = "" if report.loss is None else f"loss {report.loss:.4g}"
            distance = "" if report.distance is None else f"distance {report.distance:.2f} %"
            text = ", ".join(part for part in (loss, distance) if part)
            self.on_event(Event("train", report.step, report.steps, text))

        return train(
            model,
            lessons_of(material, model, self.processes.device),
            validation_of(material, model),
            self.preset.adapt,
            self.folder / TRAINING,
            seed=self.seed,
            processes=self.processes,
            deadline=self.deadline,
            vram=vram,
            max_pixels=self.max_pixels,
            on_report=on_report,
        )

    def write(self, job: Job, material: Material, model: Any, trained: Trained) -> Adapted:
        """Write the result."""
        return write_result(
            job,
            material,
            model,
            trained,
            self.folder,
            left_out=self.left_out,
            failed=self.failed,
            on_done=lambda done, total: self.on_event(Event("write", done, total)),
        )


def finished_result(folder: Path) -> Adapted | None:
    """Return the result in a folder, None if it is not finished or its checkpoint was changed."""
    try:
        result = _stored_result(folder)
    except InputError:
        return None
    whole = result.finished and not io.damage(result.checkpoint, result.files)
    return result if whole else None


def _stored_result(folder: Path) -> Adapted:
    result = load_identity(folder / SUMMARY_FILE, Adapted, ADAPT_KIND)
    # The folder may have been moved.
    return result.model_copy(update={"folder": folder})


def _checked_before(path: Path) -> set[str]:
    """Return the hashes of the photos that an earlier call has decoded."""
    try:
        stored = read_record(path) or {}
        return {*stored.get("photos", {}).values(), *stored.get("keep", {}).values()}
    except (ValueError, AttributeError, TypeError):
        return set()


def _forget(folder: Path) -> None:
    """Remove the training in a folder; the checkpoint stays until the next one replaces it."""
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    for path in (folder / TRAINING).glob("*"):
        path.unlink()


def _trusted(rows: Mapping[str, TargetRow], photos: Sequence[PhotoFile], what: str) -> list[PhotoFile]:
    of_these = {photo.name: rows[photo.name] for photo in photos if photo.name in rows}
    trusted = require_trusted(of_these, what)
    return [photo for photo in photos if photo.name in trusted]


def _out_of_time(deadline: Deadline, so_far: str) -> RedepthError:
    return ConfigError(
        f"{deadline()}: {so_far}, and nothing is trained; the same command continues, give it more --budget"
    )
