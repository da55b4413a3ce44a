"""The runs that the thresholds of the failure signatures are chosen and checked on.

Each run is kept as one file in a folder, so that a calibration that was ended goes on where it stopped, and
another measure of the same runs takes seconds.

There are two halves that share no photo and no scene: ``choosing`` sets the thresholds, ``reporting``
measures how often they are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from benchmarks.accuracy.failures import Case
from redepth import io
from redepth.data.datasets import Sample
from redepth.data.datasets.synthetic import Synthetic
from redepth.data.scenes.synthetic import Split
from redepth.ground_truth import GroundTruth
from redepth.ops import geometry
from redepth.pipeline import Pipeline
from redepth.refinement import Refinement

PRESET = "embedded-relief"

PHOTOS = tuple(
    name if "." in name else f"{name}.png"
    for line in (
        "astronaut brick camera cell chelsea clock_motion coffee coins grass gravel",
        "horse hubble_deep_field.jpg ihc moon motorcycle_left page retina.jpg rocket.jpg text",
    )
    for name in line.split(" ")
)
SPLITS: tuple[Split, ...] = ("in-domain", "relief", "shapes", "sky")
SIDE = 192
"""Side of the scenes: the network's."""

Half = Literal["choosing", "reporting"]
HALVES: tuple[Half, ...] = get_args(Half)
FIRST_SEED: dict[Half, int] = {"choosing": 70_000, "reporting": 80_000}
SCENES = 12
"""Scenes of each split and half."""

BAD_SETTINGS: dict[str, tuple[str, ...]] = {
    "full fine-tuning, rate 1e-3": (
        "optim.parameterization=full",
        "optim.learning_rates.encoder=1e-3",
        "optim.learning_rates.decoder=1e-3",
    ),
    "embeddings, rate 1e-1": (
        "optim.parameterization=embeddings",
        "optim.learning_rates.embeddings=1e-1",
        "optim.schedule=constant",
    ),
    "random prior, rate 5e-2": (
        "prior.weights=random",
        "optim.learning_rates.embeddings=5e-2",
        "optim.schedule=constant",
    ),
}
"""Changes of the preset: rates far too high, and a prior that knows nothing."""
BAD_SPLITS: tuple[Split, ...] = ("in-domain", "relief")
"""The first scene of each half of these is refined with each of the bad settings."""


@dataclass(frozen=True)
class Run:
    """One refinement.

    Attributes:
        image: the photo's file name, or the scene's name.
        half: what it is used for.
        split: of the scene; None for a photo.
        settings: a key of `BAD_SETTINGS`; empty for the preset as it ships.
    """

    image: str
    half: Half
    split: Split | None = None
    settings: str = ""

    @property
    def file(self) -> str:
        """Name of the file that keeps it."""
        return "_".join(re.findall(r"[\w.-]+", f"{self.image} {self.settings}")) + ".npz"


@dataclass(frozen=True)
class Kept:
    """A finished run.

    Attributes:
        case: its maps.
        errors: SI-log of the initial and of the refined depth; None without ground truth.
    """

    case: Case
    errors: tuple[float, float] | None

    @property
    def improved(self) -> bool:
        """Whether the error did not rise, as far as it is known."""
        return self.errors is None or self.errors[1] <= self.errors[0]


def planned() -> list[Run]:
    """Return all runs; the halves and splits alternate, so that an early end has some of each."""
    shipped = [Run(photo, HALVES[index % 2]) for index, photo in enumerate(PHOTOS)]
    scenes = [
        Run(f"{split}-{FIRST_SEED[half] + index}", half, split)
        for index, split, half in product(range(SCENES), SPLITS, HALVES)
    ]
    some = [run for run in scenes[: len(SPLITS) * len(HALVES)] if run.split in BAD_SPLITS]
    bad = [Run(run.image, run.half, run.split, name) for run in some for name in BAD_SETTINGS]
    return [*shipped, *scenes, *bad]


def kept_runs(folder: Path) -> Iterator[tuple[Run, Kept]]:
    """Make the runs that the folder does not hold yet, and yield all of them."""
    for run in planned():
        yield run, kept(folder, run)


def kept(folder: Path, run: Run) -> Kept:
    """Return a run, and make it if the folder does not hold it yet."""
    path = folder / run.file
    if not path.exists():
        _keep(path, _refine(run))
    return _load(path)


def _refine(run: Run) -> Refinement:
    pipeline = _pipeline(run.settings)
    if run.split is None:
        return pipeline.refine(_photo_path(run.image))
    sample = _scene(run)
    truth = np.where(np.isfinite(sample.truth), sample.truth, 0).astype(np.float32)
    return pipeline.refine(sample.pixels(), ground_truth=GroundTruth(truth))


@cache
def _pipeline(settings: str) -> Pipeline:
    overrides = BAD_SETTINGS[settings] if settings else ()
    return Pipeline(PRESET, overrides=overrides, device="cpu")


def _photo_path(name: str) -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / name


def _scene(run: Run) -> Sample:
    assert run.split is not None
    seed = int(run.image.rsplit("-", 1)[1])
    return Synthetic(run.split, count=1, size=SIDE, seed=seed).load(run.image)


def _keep(path: Path, result: Refinement) -> None:
    outcome = result.outcome
    photo = torch.from_numpy(result.photo).permute(2, 0, 1)[None]
    size = outcome.initial.shape[-2:]
    arrays: dict[str, Any] = {
        "photo": geometry.resize(photo, *size, antialias=True).numpy(),
        "initial": outcome.initial.numpy(),
        "members": outcome.members.numpy(),
        "refined": outcome.refined.numpy(),
        "sky": outcome.sky.numpy(),
    }
    if result.evaluations:
        arrays["errors"] = np.array([e.metrics["silog"] for e in result.evaluations.values()])
    io.save_npz(path, arrays)


def _load(path: Path) -> Kept:
    with np.load(path) as stored:
        maps = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "errors"}
        errors = tuple(stored["errors"].tolist()) if "errors" in stored.files else None
    return Kept(Case(**maps), errors)
