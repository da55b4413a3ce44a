"""The refinements that a model is distilled from, and that held-out photos are validated against.

The ordinary pipeline of the preset makes them. Each photo has a row, ``images/refined/NAME.json``, with
its maps beside it. A row holds numbers only. What is trusted is decided from them by the settings, when they
are read: other settings of `adapt.trust` or of the diagnostics need no new refinement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from redepth import components, io
from redepth.adaptation.photos import PhotoFile, decoded
from redepth.adaptation.prompts import prompts_of
from redepth.config import Preset
from redepth.config.hashing import preset_sha256
from redepth.errors import ConfigError, InputError
from redepth.io.arrays import read_numpy
from redepth.metrics.diagnostics import Measured
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.statistics import deviation_weight
from redepth.optim.outcome import Outcome
from redepth.pipeline import Pipeline
from redepth.priors.prompts import Prompt
from redepth.refinement import Refinement
from redepth.runtime.executors import Done, Resources
from redepth.runtime.lock import locked
from redepth.runtime.resume import (
    Identity,
    Task,
    begin_row,
    done_rows,
    finish_row,
    row_path,
    run_tasks,
)

VARIANT = "refined"
MAPS = ("initial", "refined", "deviation")
"""The arrays of a target's file, (H, W) float32 each."""


@dataclass(frozen=True)
class Target:
    """The refinement of a photo, at network size, in raw units of the depth model.

    Attributes:
        initial: (1,1,H,W) raw output of the starting model.
        refined: (1,1,H,W) raw output of the refinement, blended as the preset says.
        trust: (1,1,H,W) in [0, 1], how far the members agree at each pixel: `deviation_weight` of
            `deviation_of`. 1 everywhere for a single member.
        unit: what raw outputs are divided by before they become relative depth (`Outcome.unit`).
        camera: of the photo.
    """

    initial: Tensor
    refined: Tensor
    trust: Tensor
    unit: float = 1.0
    camera: Camera = ORTHOGRAPHIC

    def to(self, device: torch.device | str) -> Target:
        """Return the target with its maps on a device."""
        initial, refined, trust = (m.to(device) for m in (self.initial, self.refined, self.trust))
        return replace(self, initial=initial, refined=refined, trust=trust)


class TargetRow(BaseModel):
    """What is known of the refinement of a photo.

    Attributes:
        name: of the photo.
        sha256: of the photo.
        seed: of the refinement.
        prompt: of the refinement.
        members: of the ensemble.
        change: mean absolute change of the raw output over the range of the initial one.
        agreement: mean trust over the pixels, in [0, 1]; 1 for a single member.
        tolerance: `Trust.tolerance` that the agreement is for.
        diagnostics: name of each failure signature -> its record.
        unit: as `Target.unit`.
        camera: as `Target.camera`.
        seconds: of the optimisation.
        files: the file of the maps, with its hash.
        flagged: failure signatures above their thresholds, name -> value; decided when the row is read.
        reasons: why the photo is not learned from, in words; decided when the row is read.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    sha256: str
    seed: int
    prompt: str
    members: int
    change: float
    agreement: float
    tolerance: float
    diagnostics: dict[str, dict[str, Any]]
    unit: float
    camera: Camera
    seconds: float
    files: dict[str, dict[str, int | str]]
    flagged: dict[str, float] = Field(default_factory=dict, exclude=True)
    reasons: list[str] = Field(default_factory=list, exclude=True)

    @property
    def trusted(self) -> bool:
        """Whether the photo is learned from."""
        return not self.reasons


OnDone = Callable[[Done[Task, TargetRow], int, int], None]
"""Called after each photo with its outcome, how many of the share have ended, and how many there are."""


def make_targets(
    photos: Sequence[PhotoFile],
    preset: Preset,
    folder: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
    max_pixels: int = io.MAX_PIXELS,
    on_done: OnDone = lambda done, ended, total: None,
) -> tuple[dict[str, TargetRow], dict[str, str]]:
    """Refine the photos that are left, and return the rows of all of them and why some failed, by name.

    A photo that fails is left out; the others go on. A row counts as done if it was made from the same photo,
    preset, files, versions and seed. So a killed call resumes, and several adaptations may share a folder.
    A photo's numbers depend on its content, the preset and the seed, not on the other photos.

    Args:
        photos: each name once.
        preset: resolved.
        folder: of the rows.
        device: as for `redepth.refine`.
        seed: of the adaptation; a photo's own is `photo_seed`.
        share: (i, n): refine every n-th photo, from number i on. With one process for each i, all are done;
            `stored_targets` then has the rows of all.
        max_pixels: refuse photos with more pixels.
        on_done: called after each refinement.

    Raises:
        ConfigError: another process refines photos into the folder.
        WeightsError: weights are missing.
        KeyboardInterrupt: after Ctrl-C; finished rows are kept.
    """
    first, step = share
    mine = {(VARIANT, photo.name): photo for photo in photos[first::step]}
    identify = partial(_identify, mine, preset, seed)
    finished = done_rows(folder, mine, TargetRow, identify)
    left = {task: photo for task, photo in mine.items() if task not in finished}
    # One of the processes that share the photos holds the lock for all.
    with _writing(folder) if left and first == 0 else nullcontext():
        prompts, failures = prompts_of([*left.values()], preset, device, max_pixels)
        ready = {task: photo for task, photo in left.items() if photo.name in prompts}
        make = partial(_Worker, preset, folder, device, seed, max_pixels, ready, prompts)
        failed = run_tasks(make, list(ready), finished, Resources(), on_done)
    rows = {task: finished[task] for task in mine if task in finished}
    return _judged(rows, folder, preset), failures | {name: why for (_, name), why in failed.items()}


def stored_targets(
    photos: Sequence[PhotoFile], preset: Preset, folder: Path, *, seed: int = 0
) -> dict[str, TargetRow]:
    """Return the rows of those photos that are refined; the arguments are those of `make_targets`."""
    tasks = {(VARIANT, photo.name): photo for photo in photos}
    rows = done_rows(folder, tasks, TargetRow, partial(_identify, tasks, preset, seed))
    return _judged(rows, folder, preset)


def load_target(folder: Path, row: TargetRow, tolerance: float | None = None) -> Target:
    """Read the maps of a row, on the CPU.

    Args:
        folder: of the rows.
        row: as `make_targets` returns it.
        tolerance: `Trust.tolerance`; without one that of the row.

    Raises:
        InputError: they are missing, damaged, or not those of the row: another adaptation with other photos
            of the same names may have replaced them.
    """
    initial, refined, deviation = _read(folder, row)
    trust = deviation_weight(initial, deviation, row.tolerance if tolerance is None else tolerance)
    return Target(initial, refined, trust, row.unit, row.camera)


def require_trusted(rows: Mapping[str, TargetRow], what: str = "photos") -> dict[str, TargetRow]:
    """Return the rows that are trusted.

    Args:
        rows: by name.
        what: what they are of, for the message.

    Raises:
        InputError: none is.
    """
    trusted = {name: row for name, row in rows.items() if row.trusted}
    if not trusted:
        counts = Counter(kind for row in rows.values() for kind in _kinds(row))
        listed = ", ".join(f"{kind}: {count}" for kind, count in counts.most_common())
        raise InputError(
            f"none of {len(rows)} refined {what} can be trusted ({listed or 'all failed'}): look at some of "
            "them with redepth refine, then change the preset or its diagnostics.thresholds, or accept them "
            "with adapt.trust.flagged=true or a lower adapt.trust.least"
        )
    return trusted


def photo_seed(seed: int, sha256: str) -> int:
    """Return the seed of a photo's refinement: the adaptation's, moved by the photo's content."""
    return (seed + int(sha256[:8], 16)) % 2**32


# --- the work -------------------------------------------------------------------------------------


def _identify(photos: Mapping[Task, PhotoFile], preset: Preset, seed: int, task: Task) -> Identity:
    """Return what the refinement of a photo depends on."""
    photo = photos[task]
    # How much memory may be used decides how maps are computed, not what they are.
    optim = preset.optim.model_copy(update={"vram": None, "members_per_batch": "auto"})
    settings = preset_sha256(preset.model_copy(update={"optim": optim}))
    inputs = {"the photo": photo.sha256, "the preset": settings, "the seed": str(seed)}
    files = components.named_files(preset, photo.path)
    return Identity.of(files, components.component_versions(preset), **inputs)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder. Raises ConfigError: another process does, or it cannot be made."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder, "--refined"))
        except OSError as error:
            raise ConfigError(
                f"--refined {folder}: cannot be written to ({io.reason(error)}); choose another one"
            ) from None
        yield


class _Worker:
    """Refines one photo after the other and writes their rows."""

    def __init__(
        self,
        preset: Preset,
        folder: Path,
        device: str,
        seed: int,
        max_pixels: int,
        photos: Mapping[Task, PhotoFile],
        prompts: Mapping[str, Prompt],
    ) -> None:
        self.folder, self.seed, self.max_pixels = folder, seed, max_pixels
        self.photos, self.prompts = photos, prompts
        # Before the weights are loaded, whose files may change meanwhile.
        self.identities = {task: _identify(photos, preset, seed, task) for task in photos}
        self.pipeline = Pipeline(preset, device=device)

    def __call__(self, task: Task) -> TargetRow:
        photo = self.photos[task]
        refinement = self.pipeline.refine(
            decoded(photo, self.max_pixels),
            prompt=self.prompts[photo.name],
            seed=photo_seed(self.seed, photo.sha256),
            max_pixels=self.max_pixels,
        )
        refinement.outcome.check_whole()
        outcome = refinement.outcome
        maps = (outcome.initial, outcome.refined, deviation_of(outcome))
        path = begin_row(self.folder, task)
        file = path.with_suffix(".npz")
        io.save_npz(file, {name: m[0, 0].float().numpy() for name, m in zip(MAPS, maps, strict=True)})
        row = _row(photo, refinement, maps[2], file)
        finish_row(path, row.model_dump(mode="json"), self.identities[task], [file])
        return row


def deviation_of(outcome: Outcome) -> Tensor:
    """Return the standard deviation of the refined outputs that single members would give, (1,1,H,W).

    Each is blended as the ensemble's is. So under ``blend: detail``, large forms that the blend removes do
    not count. It is 0 for a single member.
    """
    alone = [replace(outcome, members=member[None]).refined for member in outcome.members]
    return torch.cat(alone).std(dim=0, correction=0, keepdim=True)


def _row(photo: PhotoFile, refinement: Refinement, deviation: Tensor, file: Path) -> TargetRow:
    outcome, tolerance = refinement.outcome, refinement.preset.adapt.trust.tolerance
    trust = deviation_weight(outcome.initial, deviation, tolerance)
    return TargetRow(
        name=photo.name,
        sha256=photo.sha256,
        seed=refinement.seed,
        prompt=refinement.prompt,
        members=len(outcome.members),
        change=refinement.change,
        agreement=float(trust.mean()),
        tolerance=tolerance,
        diagnostics={name: found.record() for name, found in refinement.diagnostics.items()},
        unit=outcome.unit,
        camera=outcome.camera,
        seconds=outcome.seconds,
        files=io.manifest([file]),
    )


def _read(folder: Path, row: TargetRow) -> tuple[Tensor, Tensor, Tensor]:
    """Return initial and refined output and the members' deviation, (1,1,H,W) each."""
    path = row_path(folder, (VARIANT, row.name)).with_suffix(".npz")
    if damage := io.damage(path.parent, row.files):
        raise InputError(
            f"{path.parent}: the refinement of {row.name} is not the one of this adaptation ({damage}): "
            "start the command again, with a --refined of its own if another adaptation refines other photos "
            "of the same names there"
        )
    initial, refined, deviation = (torch.tensor(read_numpy(path, [name]))[None, None] for name in MAPS)
    if not initial.shape == refined.shape == deviation.shape:
        raise InputError(f"{path}: its maps differ in size; delete it, and start the command again")
    return initial, refined, deviation


# --- what is trusted ------------------------------------------------------------------------------


def _judged(rows: Mapping[Task, TargetRow], folder: Path, preset: Preset) -> dict[str, TargetRow]:
    return {name: judged(row, folder, preset) for (_, name), row in rows.items()}


def judged(row: TargetRow, folder: Path, preset: Preset) -> TargetRow:
    """Return a row with what the settings decide: agreement, flagged signatures, and whether to trust it.

    Args:
        row: stored.
        folder: of the rows.
        preset: whose `adapt.trust` and thresholds decide.
    """
    trust, thresholds = preset.adapt.trust, preset.diagnostics.thresholds.model_dump()
    if trust.tolerance != row.tolerance:
        agreement = float(load_target(folder, row, trust.tolerance).trust.mean())
        row = row.model_copy(update={"agreement": agreement, "tolerance": trust.tolerance})
    signatures = [
        Measured.of_record(name, found).signature(thresholds) for name, found in row.diagnostics.items()
    ]
    flagged = [signature for signature in signatures if signature.flagged]
    uncertain = "" if preset.diagnostics.calibrated_for else " (not calibrated for this preset)"
    reasons = [
        f"{s.title}{uncertain}: {s.value:.2g}, above {s.threshold:.2g}" for s in flagged if not trust.flagged
    ]
    if row.agreement < trust.least:
        reasons.append(f"the members disagree: mean trust {row.agreement:.2g}, below {trust.least:.2g}")
    return row.model_copy(update={"flagged": {s.name: s.value for s in flagged}, "reasons": reasons})


def _kinds(row: TargetRow) -> Iterable[str]:
    """Return the reasons of a row without their numbers."""
    return (reason.partition(":")[0] for reason in row.reasons)
