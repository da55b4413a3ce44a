"""Adapt a depth model to photos: check, refine, train, write."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redepth import components, depth_models, io
from redepth.adaptation import photos as photo_files
from redepth.adaptation.learned import check_adaptable
from redepth.adaptation.methods import (
    Material,
    captioned,
    check_method,
    lessons_of,
    load_depth_model,
    validation_of,
)
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
    job_sha256,
)
from redepth.adaptation.result import write_pages, write_preset, write_result
from redepth.adaptation.state import STATE_FILE
from redepth.adaptation.targets import TargetRow, make_targets, require_trusted, stored_targets
from redepth.adaptation.training import Trained, TrainingReport, train
from redepth.config import Overrides, Preset, load_preset, merged_overrides
from redepth.config.units import seconds
from redepth.errors import ConfigError, InputError, RedepthError, cut, one_line
from redepth.optim.limits import Deadline
from redepth.registry import require
from redepth.runtime.executors import Done
from redepth.runtime.output import results_folder
from redepth.runtime.resume import Identity, Task, claim, load_identity, read_record

FEW = 4
"""Fewer held-out photos than these say little about when to stop."""

FEW_HELD_OUT = "few held-out photos decide when to stop (%d): give more photos, or a larger adapt.held_out"

HELD_OUT_CURE = (
    "; or hold out other photos by another --seed, or more by adapt.held_out, or none by adapt.held_out=0"
)

log = logging.getLogger(__name__)

Photos = str | Path | Sequence[str | Path]
"""Files, folders or patterns."""


def adapt(
    photos: Photos,
    preset: str | Path | Mapping[str, Any] | Preset,
    out: str | Path,
    *,
    keep: Photos = (),
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
        photos: one or several files, folders or patterns.
        preset: name, YAML file, mapping or `Preset`; its section ``adapt`` says how.
        out: folder of the result: ``checkpoint/``, ``report.html`` and `record.Adapted` as ``summary.json``.
        keep: photos on which the model shall stay as it is: files, folders or patterns.
        refined: folder of the refined photos, which adaptations may share; by default in ``out``.
        overrides: of the preset, as for `redepth.refine`.
        seed: the same seed gives the same result.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        budget: limit of the time of this call, such as ``30m``; the result is then the best so far, and a
            further call continues. Before the training there is no result: ConfigError.
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
    found, kept = photo_files.find(_listed(photos)), photo_files.find(_listed(keep)) if keep else []
    folder = Path(out)
    _check_places(folder, [*found, *kept])
    _check_start(folder, resolved)
    _check_refined(folder, refined)
    _check_keep(kept, resolved)
    _check_apart(found, kept)
    components.check_albedos_apart(resolved, [photo.path for photo in found])
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
    with results_folder(folder) if processes.first else nullcontext():
        if processes.first and refined is None:
            io.remove_leftovers(call.refined)
        result = call.run(found, kept, vram, fresh)
    processes.close()
    return result


# --- options --------------------------------------------------------------------------------------


def _listed(photos: Photos) -> Sequence[str | Path]:
    return [photos] if isinstance(photos, str | Path) else photos


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
    check_method(preset)
    if preset.adapt.learns == "low-rank":
        require("peft", "adapt")


def _check_places(out: Path, photos: Sequence[PhotoFile]) -> None:
    """Refuse a folder of results that holds photos: the next call would find pictures of the result."""
    for photo in photos:
        if _is_in(photo.path, out):
            raise InputError(
                f"{photo.path}: this photo is inside the folder of the results; choose another --out"
            )


def _check_start(out: Path, preset: Preset) -> None:
    """Refuse a start that the result would replace."""
    start = preset.depth_model.options.get("checkpoint")
    if isinstance(start, str) and os.path.isdir(start) and _is_in(Path(start), out):
        raise ConfigError(
            f"depth_model.checkpoint {start} is inside the folder of the results, which would replace it; "
            "choose another --out"
        )


def _check_refined(out: Path, refined: str | Path | None) -> None:
    """Refuse a folder of refined photos that holds that of the results, or that cannot be written to."""
    if refined is None:
        return
    folder = Path(refined)
    if _is_in(out, folder):
        raise ConfigError(
            f"--refined {folder} is the folder of the results, or around it; choose another one"
        )
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise ConfigError(f"--refined {folder}: {there} is no folder; choose another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--refined {folder}: {there} cannot be written to; choose another one")


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or inside it."""
    place, around = (Path(io.as_text(each)).resolve() for each in (path, folder))
    return around in (place, *place.parents)


def _check_keep(kept: Sequence[PhotoFile], preset: Preset) -> None:
    if kept and not preset.adapt.anchor.keep_weight:
        raise ConfigError(
            "adapt.anchor.keep_weight=0 keeps the model as it is on no photo: set it above 0, or leave out "
            "--keep"
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
        if (done := finished_result(self.folder, job)) is not None:
            return self.repaired(job, done)
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
            usable = self.check(found, keep, checked)
            job = Job(
                preset=self.preset,
                seed=self.seed,
                photos={photo.name: photo.sha256 for photo in found if photo in usable},
                keep={photo.name: photo.sha256 for photo in keep if photo in usable},
                identity=self.identity(),
            )
            if not job.photos:
                raise InputError("no photo can be used; look at the errors above")
            # The old result goes first: a kill leaves none beside a job that it is not of.
            if fresh and (path.is_file() or not any(self.folder.glob("images/*/*"))):
                _forget(self.folder)
            claim(path, job, differences, ADAPT_KIND, fresh=fresh)
            (self.folder / TRAINING).mkdir(exist_ok=True)
        self.processes.wait()
        return load_identity(path, Job, ADAPT_KIND)

    def identity(self) -> Identity:
        """Return the files that the preset names, and the versions."""
        files = components.named_files(self.preset)
        return Identity.of(files, components.component_versions(self.preset))

    def repaired(self, job: Job, done: Adapted) -> Adapted:
        """Write those small files of a finished result again that are missing or damaged."""
        if self.processes.first:
            write_preset(job, done)
            if io.damage(self.folder, done.report):
                return write_pages(job, done)
        return done

    def check(
        self, found: Sequence[PhotoFile], keep: Sequence[PhotoFile], checked: set[str]
    ) -> list[PhotoFile]:
        """Decode all photos, except those with these hashes; return those that can be used."""
        photos = [*found, *keep]
        left = [photo for photo in photos if photo.sha256 not in checked]
        damaged = set()
        for done, photo in enumerate(left, 1):
            problem = ""
            try:
                decoded = photo_files.decoded(photo, self.max_pixels)
                if photo in found:  # the others are not re-lit
                    with io.pixel_limit(self.max_pixels):
                        components.check_albedo(self.preset, photo.path, *decoded.size)
            except Exception as error:  # such as MemoryError
                problem = one_line(error)
                damaged.add(photo.sha256)
                # A photo to keep may have the name of one that is learned from.
                name = photo.name if photo in found else f"{photo.name} (--keep)"
                self.leave_out(name, problem, failed=True)
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
        mine = self.processes.mine
        total = len(mine(held_out)) + (len(mine(training)) if distils else 0)
        rows: dict[str, TargetRow] = {}
        # First those that decide: where they cannot be used, no other photo is refined for nothing.
        if held_out:
            rows = self.trusted_rows(held_out, "held-out photos", HELD_OUT_CURE, 0, total)
            decide = [photo for photo in held_out if photo.name in rows]
            if len(decide) < FEW and self.processes.first:
                log.warning(FEW_HELD_OUT, len(decide))
            held_out, before = decide, len(mine(held_out))
        else:
            before = 0
        if distils:
            rows |= self.trusted_rows(training, "photos", "", before, total)
            training = [photo for photo in training if photo.name in rows]
        material = Material(self.preset, training, held_out, keep, self.refined, rows, self.max_pixels)
        material, failures = captioned(material, self.processes)
        for name, why in failures.items():
            self.leave_out(name, why, failed=True)
        return material

    def trusted_rows(
        self, wanted: Sequence[PhotoFile], what: str, cure: str, before: int, total: int
    ) -> dict[str, TargetRow]:
        """Refine photos, and return the rows of those that can be trusted.

        Args:
            wanted: the photos.
            what: they are, for messages.
            cure: what else helps if none can be used.
            before: number of photos that this process has refined already.
            total: number of all that it refines.

        Raises:
            InputError: no photo could be refined, or none can be trusted.
        """
        failures = self.make_targets(wanted, before, total)
        for others in self.processes.gathered(failures):
            failures |= others
        rows = stored_targets(wanted, self.preset, self.refined, seed=self.seed)
        for photo in wanted:
            if photo.name not in rows:
                self.leave_out(photo.name, failures.get(photo.name, "its refinement is gone"), failed=True)
        if not rows:
            first = wanted[0].name
            raise InputError(
                f"none of {len(wanted)} {what} could be refined; {first}: {self.left_out[first]}"
            )
        for name, row in rows.items():
            if not row.trusted:
                self.leave_out(name, "; ".join(row.reasons))
        try:
            return require_trusted(rows, what)
        except InputError as error:
            raise InputError(f"{error}{cure}") from None

    def make_targets(self, wanted: Sequence[PhotoFile], before: int, total: int) -> dict[str, str]:
        """Refine this process's share of the photos; return why some failed, by name."""

        def on_done(done: Done[Task, TargetRow], ended: int, _: int) -> None:
            ended += before
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


def finished_result(folder: Path, job: Job) -> Adapted | None:
    """Return the result of a job in a folder, None if it is not finished or has to be written again.

    A report needs the photos' refinements: it alone is a reason to write all again only while the training
    can be continued, that is, at once.
    """
    try:
        result = _stored_result(folder)
    except InputError:
        return None
    if not result.finished or result.job != job_sha256(job) or io.damage(result.checkpoint, result.files):
        return None
    goes_on = (folder / TRAINING / STATE_FILE).is_file()
    return None if goes_on and io.damage(folder, result.report) else result


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
    """Remove the training in a folder; the checkpoint stays until the next one replaces it.

    A folder in it is not the training's, and stays.
    """
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    for path in (folder / TRAINING).glob("*"):
        if not path.is_dir():
            path.unlink()


def _out_of_time(deadline: Deadline, so_far: str) -> RedepthError:
    return ConfigError(
        f"{deadline()}: {so_far}, and nothing is trained; the same command continues, give it more --budget"
    )
