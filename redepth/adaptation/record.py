"""The records of an adaptation: what decides its result, what happens meanwhile, and the result.

Layout of its folder::

    adapt.json         what decides the result; a killed adaptation continues if it is the same
    images/refined/    the refined photos, unless --refined names another folder
    state.pt  log.jsonl     the training
    checkpoint/        the adapted model
    summary.json       the result, written last
    report.html        the result for people
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from redepth.components import StoredPreset
from redepth.runtime.resume import Identity

ADAPT_FILE, ADAPT_KIND = "adapt.json", "adaptation"
SUMMARY_FILE, REPORT_FILE, CHECKPOINT = "summary.json", "report.html", "checkpoint"

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
        folder: of the adaptation.
        steps: that were taken.
        chosen: the step whose averaged weights are the result; 0 is the starting model itself.
        stopped: why the training ended, in words.
        validations: in the order of the steps, with the starting model first.
        training: number of photos that were learned from.
        held_out: names of the photos that were not learned from.
        left_out: name of a photo that was left out -> why.
        keep: number of photos on which the model was kept as it is.
        learned: number of learned weights, and of all.
        seconds: stage -> seconds, over all calls that the adaptation took.
        predict_seconds: of one prediction by the adapted model; median over the held-out photos.
        refine_seconds: of one refinement; median over the photos that were refined.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    folder: Path
    steps: int
    chosen: int
    stopped: str
    validations: list[Validated]
    training: int
    held_out: list[str]
    left_out: dict[str, str] = {}
    keep: int = 0
    learned: tuple[int, int] = (0, 0)
    seconds: dict[str, float] = {}
    predict_seconds: float | None = None
    refine_seconds: float | None = None

    @property
    def checkpoint(self) -> Path:
        """The folder for ``depth_model.checkpoint``."""
        return self.folder / CHECKPOINT

    @property
    def before(self) -> float:
        """The distance of the starting model."""
        return self.validations[0].distance

    @property
    def after(self) -> float:
        """The distance of the result."""
        return next(v.distance for v in self.validations if v.step == self.chosen)
