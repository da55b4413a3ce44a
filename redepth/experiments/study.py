"""The record of an experiment: its arms as resolved presets, its scenes by name, its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from redepth.components import StoredPreset
from redepth.config.hashing import preset_sha256
from redepth.data.datasets import REGISTRY, Dataset
from redepth.experiments.grids import Experiment, experiment
from redepth.experiments.unlabelled import Adaptation
from redepth.protocols import EvaluationProtocol, difference, open_dataset
from redepth.runtime.resume import Task

SYNTHETIC = "synthetic"
EVALUATION_SEED, TUNING_SEED = 60_000, 10_000
"""First seeds of the scenes of reported results, and of the scenes that settings are tuned on.

No model is trained or validated on either."""

SEED_STRIDE = 1_000_000
"""Distance between the random seeds of two runs: image k of a run with seed s has the seed s * stride + k."""


class SceneSet(BaseModel):
    """Images that share a split and a strength.

    Attributes:
        split: split of the synthetic scenes; for other data the data set's name.
        strength: strength of the shift; None if the split has no shift.
        options: options of the reader.
        images: image names, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    strength: float | None = None
    options: dict[str, Any] = {}
    images: list[str]

    @property
    def label(self) -> str:
        """The name of the set in tables."""
        return scenes_label(self.split, self.strength)


class ArmRun(BaseModel):
    """An arm with its resolved preset; see `arms.Arm`.

    Attributes:
        label: name of the arm in rows and tables; empty if it is the name in the study. The adaptation of an
            arm to each set of scenes is an arm of the study.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: StoredPreset
    teacher: float | None = None
    parts: tuple[int, ...] = ()
    factor: str = ""
    points: int | None = None
    adapt: Adaptation | None = None
    label: str = ""


class Scene(NamedTuple):
    """One image of a study: the set it belongs to, its name and its number in the set."""

    scenes: SceneSet
    image: str
    number: int

    @property
    def name(self) -> str:
        """A name that is unique within the study."""
        return f"{self.scenes.label}/{self.image}"


class Study(BaseModel):
    """Everything that decides an experiment's numbers; two studies in one folder must agree on it.

    Attributes:
        experiment: name of the experiment.
        dataset: name of the data set.
        sets: its scenes.
        protocol: pinned to these scenes.
        base: the resolved preset that each arm changes.
        arms: name -> arm.
        skipped: name of an arm or split that cannot run -> reason; not compared between studies.
        tuning: whether these are the images that settings are tuned on.
        seed: seed of all random streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    dataset: str
    sets: list[SceneSet]
    protocol: EvaluationProtocol
    base: StoredPreset
    arms: dict[str, ArmRun]
    skipped: dict[str, str] = {}
    tuning: bool = False
    seed: int = 0

    @property
    def grid(self) -> Experiment:
        """The definition of the experiment."""
        return experiment(self.experiment)

    @property
    def preset_sha256(self) -> str:
        """The hash of the preset that the study is measured with; see `redepth.config.hashing`."""
        return preset_sha256(self.base)

    def scenes(self) -> Iterator[Scene]:
        """Yield every image."""
        for scenes in self.sets:
            for number, image in enumerate(scenes.images):
                yield Scene(scenes, image, number)

    def tasks(self) -> list[Task]:
        """Return the pairs of an arm and a scene's name, arm by arm, or as the experiment says."""
        if self.grid.by_scene:
            # Sets of scenes side by side: the first n of each are complete together.
            ordered = sorted(self.scenes(), key=lambda scene: scene.number)
            return [(arm, scene.name) for scene in ordered for arm in self.arms]
        return [
            (name, scene.name)
            for name, arm in self.arms.items()
            for scene in self.scenes()
            if self._measures(arm, scene)
        ]

    def _measures(self, arm: ArmRun, scene: Scene) -> bool:
        """Return whether an arm is measured on a scene: an adapted model not on other kinds of photos."""
        if arm.adapt is None or scene.scenes.label == arm.adapt.scenes:
            return True
        return scene.scenes.split == self.grid.besides and not arm.adapt.refine

    def reader(self, scenes: SceneSet) -> Dataset:
        """Return the data set that the images of a set are read from."""
        if self.dataset == SYNTHETIC:
            return open_scenes(**scenes.options)
        return open_dataset(self.protocol, self.dataset, scenes.options)

    def image_seed(self, scene: Scene) -> int:
        """Return the seed of an image's random streams, the same for all arms."""
        return self.seed * SEED_STRIDE + scene.number


def scenes_label(split: str, strength: float | None) -> str:
    """Return the name of scenes in tables and plots: the split, with its strength unless that is 1."""
    return split if strength in (None, 1.0) else f"{split} at {strength:g}"


def open_scenes(split: str, strength: float | None, count: int, size: int, seed: int) -> Dataset:
    """Return synthetic scenes.

    Args:
        split: one of the data set's splits.
        strength: strength of its shift, in [0, 1]; None for a split without a shift.
        count: number of scenes.
        size: side in pixels.
        seed: seed of the first scene; the others have the next seeds.

    Raises:
        ConfigError: for an unknown split or a value out of range.
    """
    options: dict[str, Any] = {"split": split, "count": count, "size": size, "seed": seed}
    if strength is not None:
        options["strength"] = strength
    dataset: Dataset = REGISTRY.build(SYNTHETIC, options)
    return dataset


def differences(there: Study, here: Study) -> Iterator[str]:
    """Yield the reasons why a study cannot resume in another's folder.

    More or other arms of the same preset are allowed: only arms that both studies have must agree.
    """
    for name in ("experiment", "dataset", "tuning", "seed"):
        if getattr(there, name) != getattr(here, name):
            yield f"{name} {getattr(there, name)} and {getattr(here, name)}"
    if there.base != here.base:
        yield f"presets {there.base.name} and {here.base.name} have other settings"
    labels = [[f"{len(s.images)} of {s.label}" for s in study.sets] for study in (there, here)]
    if labels[0] != labels[1]:
        yield f"images {', '.join(labels[0])} and {', '.join(labels[1])}"
    elif there.sets != here.sets:
        yield "other images"
    else:
        yield from difference(there.protocol, here.protocol)
    for name in sorted(set(there.arms) & set(here.arms)):
        if there.arms[name] != here.arms[name]:
            yield f"arm {name} has other settings"
