"""The records of an adaptation: what decides its result, what happens meanwhile, and the result.

Layout of its folder::

    adapt.json      what decides the result; a killed adaptation continues if it is the same
    refined/        the refined photos, unless --refined names another folder
    training/       the state of the training, by which it continues, and its log
    checkpoint/     the adapted model
    preset.yaml     the preset with the adapted model
    report.html     the result for people
    summary.json    the result, written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from redepth.components import StoredPreset
from redepth.runtime.resume import Identity, first_difference

ADAPT_FILE, ADAPT_KIND = "adapt.json", "adaptation"
REFINED, TRAINING, CHECKPOINT = "refined", "training", "checkpoint"
PRESET_FILE, REPORT_FILE, SUMMARY_FILE = "preset.yaml", "report.html", "summary.json"

NOT_COMPARED: dict[str, Any] = {
    "name": True,
    "description": True,
    "optim": {"performance", "members_per_batch", "vram"},
    "output": True,
    "diagnostics": {"calibrated_for"},
    "adapt": {"loaders"},
    "clip": True,
}
"""The settings of a preset that decide no number of an adaptation, besides its rounding."""

Stage = Literal["check", "refine", "train", "write"]
"""The stages of an adaptation, in order."""


@dataclass(frozen=True)
class Event:
    """The progress of a stage.

    Attributes:
        stage: which one.
        done: how many of its photos or steps have ended.
        total: of how many; 0 where there is nothing to count.
        text: the last one, in words.
        failed: whether the last one failed.
    """

    stage: Stage
    done: int
    total: int
    text: str = ""
    failed: bool = False


OnEvent = Callable[[Event], None]


class Job(BaseModel):
    """Everything that decides the result of an adaptation; what a folder holds must agree on it.

    Attributes:
        preset: resolved.
        seed: of all random streams.
        photos: name -> SHA-256 of each photo.
        keep: the same of the photos on which the model shall stay as it is.
        identity: the files that the preset names, and the versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: StoredPreset
    seed: int
    photos: dict[str, str]
    keep: dict[str, str] = {}
    identity: Identity


class Validated(BaseModel):
    """A validation: how far predictions are from the refinements of the held-out photos.

    Attributes:
        step: after which it took place; 0 is the starting model.
        distance: mean over the photos, in percent.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    distance: float


class Adapted(BaseModel):
    """The result of an adaptation (``summary.json``).

    Attributes:
        job: `job_sha256` of what was adapted, and how.
        folder: of the adaptation.
        steps: that were taken.
        chosen: the step whose averaged weights are the result; 0 is the starting model itself.
        stopped: why the training ended, in words.
        finished: whether it ended by itself, not by the limit of time.
        validations: in the order of the steps, with the starting model first; empty without held-out photos.
        training: number of photos that were learned from.
        held_out: names of the photos that were not learned from and decided when to stop.
        left_out: name of a photo that could not be used -> why.
        failed: names of those that could not be read or refined.
        keep: number of photos on which the model was kept as it is.
        learned: number of learned weights, and of all.
        seconds: ``refine``: of the optimisation of the photos that are used, also by calls that this one
            shares them with; ``train``: of the training, over all calls that it took.
        peak_memory: most bytes of GPU memory in the last call's training; None on other devices.
        predict_seconds: of one prediction by the adapted model; median over photos.
        refine_seconds: of one refinement; median over the photos that were refined.
        scale: ``depth_model.scale`` of the model.
        files: of the checkpoint, with their hashes.
        report: the same of the report.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    job: str = ""
    folder: Path
    steps: int
    chosen: int
    stopped: str
    finished: bool = True
    validations: list[Validated] = []
    training: int
    held_out: list[str] = []
    left_out: dict[str, str] = {}
    failed: list[str] = []
    keep: int = 0
    learned: tuple[int, int] = (0, 0)
    seconds: dict[str, float] = {}
    peak_memory: int | None = None
    predict_seconds: float | None = None
    refine_seconds: float | None = None
    scale: float | str | None = None
    files: dict[str, dict[str, int | str]] = {}
    report: dict[str, dict[str, int | str]] = {}

    @property
    def checkpoint(self) -> Path:
        """The folder for ``depth_model.checkpoint``."""
        return self.folder / CHECKPOINT

    @property
    def before(self) -> float | None:
        """The distance of the starting model; None without held-out photos."""
        return self.validations[0].distance if self.validations else None

    @property
    def after(self) -> float | None:
        """The distance of the result; None without held-out photos."""
        return next((v.distance for v in self.validations if v.step == self.chosen), None)


def differences(a: Job, b: Job) -> Iterator[str]:
    """Yield in words how two adaptations differ; nothing where the second one may continue the first."""
    before, now = map(_compared, (a, b))
    if before != now:
        yield first_difference(before, now)
    if a.seed != b.seed:
        yield f"seed {a.seed} was used, it is {b.seed} now"
    for what, old, new in (("photos", a.photos, b.photos), ("photos to keep", a.keep, b.keep)):
        if sorted(old.values()) != sorted(new.values()):
            common = len(set(old.values()) & set(new.values()))
            yield f"{len(old)} {what} were used, it is {len(new)} now, of which {common} are the same"
    yield from a.identity.changes(b.identity)


def job_sha256(job: Job) -> str:
    """Return a hash that two jobs share if there are no `differences` between them."""
    photos = [sorted(hashes.values()) for hashes in (job.photos, job.keep)]
    content = {
        "preset": _compared(job),
        "seed": job.seed,
        "photos": photos,
        "identity": job.identity.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _compared(job: Job) -> dict[str, Any]:
    return job.preset.model_dump(mode="json", exclude=NOT_COMPARED)
