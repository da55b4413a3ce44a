"""An experiment made ready: its arms as resolved presets, its scenes by name, its protocol; all checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from redepth import checkpoints, depth_models, priors, renderers
from redepth.components import captioner_of, resolve
from redepth.config import Preset, load_preset
from redepth.contracts import HasNeeds
from redepth.data.datasets import REGISTRY, Dataset
from redepth.errors import ConfigError, InputError, RedepthError, nearest
from redepth.experiments.grids import UNSHIFTED, Arm, Experiment, experiment
from redepth.optim.parameterizations import check_supported
from redepth.protocols import (
    Protocol,
    Split,
    difference,
    load_protocol,
    open_dataset,
    protocol_for,
    select,
)
from redepth.runtime.device import choose_device
from redepth.runtime.resume import Task

SYNTHETIC = "synthetic"
EVALUATION_SEED, TUNING_SEED = 60_000, 10_000
"""First seeds of the scenes that are reported, and of those that settings are tuned on.

No model is trained or validated on either."""

SEED_STRIDE = 1_000_000
"""Between the seeds of two runs; the images of one have the numbers between."""


class SceneSet(BaseModel):
    """Images that share a split and a strength.

    Attributes:
        split: of the synthetic scenes; for other data the data set's name.
        strength: of the shift; None where there is none.
        options: of the reader.
        images: names, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    strength: float | None = None
    options: dict[str, Any] = {}
    images: list[str]

    @property
    def label(self) -> str:
        """What tables call it."""
        return scenes_label(self.split, self.strength)


class ArmRun(BaseModel):
    """An arm as it runs: see `grids.Arm`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset
    teacher: float | None = None
    parts: tuple[int, ...] = ()
    factor: str = ""


class Scene(NamedTuple):
    """One image of a study: the set it belongs to, its name there, its place in the set."""

    scenes: SceneSet
    image: str
    number: int

    @property
    def name(self) -> str:
        """A name that no other image of the study has."""
        return f"{self.scenes.label}/{self.image}"


class Study(BaseModel):
    """What decides an experiment's numbers; two in one folder must agree on it.

    Attributes:
        experiment: its name.
        dataset: name of the data set.
        sets: its scenes.
        protocol: pinned to them.
        base: the preset, resolved, that each arm is a change of.
        arms: name -> what runs.
        skipped: what does not run -> why; of no account to whether two are the same.
        tuning: whether these are the images that settings are tuned on.
        seed: of all random streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    dataset: str
    sets: list[SceneSet]
    protocol: Protocol
    base: Preset
    arms: dict[str, ArmRun]
    skipped: dict[str, str] = {}
    tuning: bool = False
    seed: int = 0

    @property
    def grid(self) -> Experiment:
        """The experiment that this is."""
        return experiment(self.experiment)

    def scenes(self) -> Iterator[Scene]:
        """Yield every image."""
        for found in self.sets:
            for number, image in enumerate(found.images):
                yield Scene(found, image, number)

    def tasks(self) -> list[Task]:
        """Return every arm with every image's name, arm by arm."""
        return [(arm, scene.name) for arm in self.arms for scene in self.scenes()]

    def reader(self, scenes: SceneSet) -> Dataset:
        """Return the data set that a set's images are read from."""
        if self.dataset == SYNTHETIC:
            return open_scenes(**scenes.options)
        return open_dataset(self.protocol, self.dataset, scenes.options)

    def image_seed(self, scene: Scene) -> int:
        """Return the seed of an image's random streams, the same for all arms."""
        return self.seed * SEED_STRIDE + scene.number


def scenes_label(split: str, strength: float | None) -> str:
    """Return what tables and plots call scenes: the split, and a strength that is not the full one."""
    return split if strength in (None, 1.0) else f"{split} at {strength:g}"


def open_scenes(split: str, strength: float | None, count: int, size: int, seed: int) -> Dataset:
    """Return synthetic scenes.

    Args:
        split: one of the data set's.
        strength: of its shift, in [0, 1]; None for a split without one.
        count: how many.
        size: side in pixels.
        seed: of the first; the next have the next seeds.

    Raises:
        ConfigError: for an unknown split or a value out of range.
    """
    options: dict[str, Any] = {"split": split, "count": count, "size": size, "seed": seed}
    if strength is not None:
        options["strength"] = strength
    dataset: Dataset = REGISTRY.build(SYNTHETIC, options)
    return dataset


def plan(
    name: str,
    preset: str = "embedded",
    overrides: Sequence[str] = (),
    *,
    images: int = 16,
    arms: Sequence[str] = (),
    splits: Sequence[str] = (),
    strengths: Sequence[float] = (),
    size: int = 96,
    dataset: str = SYNTHETIC,
    options: Mapping[str, Any] | None = None,
    tuning: bool = False,
    seed: int = 0,
) -> Study:
    """Check everything about an experiment before an image is read or a weight is loaded.

    Arms, and synthetic splits, that cannot run here are left out and their reasons kept.

    Args:
        name: of the experiment.
        preset: name or YAML file.
        overrides: of the preset, for all arms.
        images: how many of each set; all where there are fewer.
        arms: only these, and those that run by name alone; all others without it.
        splits: of the synthetic scenes, instead of the experiment's.
        strengths: of their shifts, instead of the experiment's.
        size: side of the synthetic scenes; a preset with embedded weights sees them at this size.
        dataset: name of the data set.
        options: of its reader, as JSON can hold them; synthetic scenes have none beside those above.
        tuning: take the images that settings are tuned on: synthetic scenes by other seeds, of other data
            the last images instead of the first.
        seed: of all random streams.

    Raises:
        ConfigError: an unknown experiment, arm, split or preset, a wrong option, nothing that could run.
        InputError: a data set without images.
        WeightsError: the preset's own weights cannot be had.
    """
    grid = experiment(name)
    if images < 1:
        raise ConfigError(f"--images {images}: give at least 1")
    synthetic = dataset == SYNTHETIC
    if synthetic and options:
        raise ConfigError(f"the data set {SYNTHETIC} takes --split, --strength and --size, and no --option")
    if synthetic and not any(o.partition("=")[0].strip() == "depth_model.longer_side" for o in overrides):
        overrides = [*_native(preset, size), *overrides]
    base = resolve(load_preset(preset, overrides))
    wanted = _wanted(grid, base, arms)
    skipped: dict[str, str] = {}
    if synthetic:
        first = TUNING_SEED if tuning else EVALUATION_SEED
        sets = _scene_sets(grid, splits, strengths, images, size, first, skipped)
        protocol = load_protocol(SYNTHETIC)
        protocol = protocol.model_copy(update={"split": Split(name="procedural scenes")})
    else:
        protocol, found = _other_images(grid, dataset, options or {}, splits, strengths, images, tuning)
        sets = [found]
    runs: dict[str, ArmRun] = {}
    _check_runnable(base)
    if (captioner := captioner_of(base, choose_device())) is not None:
        captioner.ensure_available()
    for arm in wanted:
        try:
            runs[arm.name] = _arm_run(arm, base, synthetic)
        except RedepthError as error:
            skipped[arm.name] = str(error)
    if not runs:
        raise ConfigError(f"no arm of {name} can run: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()))
    study = Study(
        experiment=name,
        dataset=dataset,
        sets=sets,
        protocol=protocol,
        base=base,
        arms=runs,
        skipped=skipped,
        tuning=tuning,
        seed=seed,
    )
    return study.model_copy(update={"protocol": protocol.pinned([s.name for s in study.scenes()])})


def differences(there: Study, here: Study) -> Iterator[str]:
    """Say in words why one study cannot go on in another's folder; other arms of a preset are no reason."""
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


def _native(preset: str, size: int) -> list[str]:
    """Return the override by which an embedded depth model sees scenes at their own size."""
    checkpoint = str(load_preset(preset).depth_model.options.get("checkpoint", ""))
    return [f"depth_model.longer_side={size}"] if checkpoint.startswith(checkpoints.EMBEDDED) else []


def _wanted(grid: Experiment, base: Preset, names: Sequence[str]) -> list[Arm]:
    arms = grid.arms(base)
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"experiment {grid.name} has no arm '{name}'{nearest(name, known)} "
                f"(valid: {', '.join(known)})"
            )
    return [arm for arm in arms if (arm.name in names if names else not arm.extra)]


def _scene_sets(
    grid: Experiment,
    splits: Sequence[str],
    strengths: Sequence[float],
    images: int,
    size: int,
    seed: int,
    skipped: dict[str, str],
) -> list[SceneSet]:
    """Return the sets of synthetic scenes; a split that has to be stored may not be there."""
    chosen = splits or grid.splits
    if strengths and set(chosen) <= set(UNSHIFTED):
        raise ConfigError(f"--strength: no shift to scale in {', '.join(chosen)}")
    found = []
    for split in dict.fromkeys(chosen):
        for strength in (None,) if split in UNSHIFTED else dict.fromkeys(strengths or grid.strengths):
            options: dict[str, Any] = {"split": split, "strength": strength, "count": images}
            options |= {"size": size, "seed": seed}
            reader = open_scenes(**options)
            lacking = reader.check()
            if lacking:
                skipped[split] = str(lacking[0])
                continue
            names = reader.names()[:images]
            found.append(SceneSet(split=split, strength=strength, options=options, images=names))
    if not found:
        raise InputError("; ".join(f"{split}: {reason}" for split, reason in skipped.items()))
    return found


def _other_images(
    grid: Experiment,
    dataset: str,
    options: Mapping[str, Any],
    splits: Sequence[str],
    strengths: Sequence[float],
    images: int,
    tuning: bool,
) -> tuple[Protocol, SceneSet]:
    if len(grid.splits) > 1 or splits or strengths:
        raise ConfigError(f"splits and strengths are of the data set {SYNTHETIC}; {dataset} has none")
    protocol = load_protocol(protocol_for(dataset))
    reader = open_dataset(protocol, dataset, options)
    _, names = select(protocol, reader, partial=True)
    if tuning and len(names) < 2 * images:
        raise ConfigError(
            f"{dataset} has {len(names)} images: tuning on {images} leaves fewer to report; lower --images"
        )
    chosen = names[-images:] if tuning else names[:images]
    return protocol, SceneSet(split=dataset, options=dict(options), images=chosen)


def _arm_run(arm: Arm, base: Preset, synthetic: bool) -> ArmRun:
    """Resolve an arm. Raises RedepthError with the reason why it cannot run here."""
    if arm.obstacle:
        raise ConfigError(arm.obstacle)
    if arm.teacher is not None and not synthetic:
        raise ConfigError(f"needs the true surface in the renderer's unit, which only {SYNTHETIC} has")
    preset = resolve(load_preset(base.model_dump(), arm.overrides))
    _check_runnable(preset)
    return ArmRun(preset=preset, teacher=arm.teacher, parts=arm.parts, factor=arm.factor)


def _check_runnable(preset: Preset) -> None:
    """Raise RedepthError if a resolved preset lacks weights, a package, or a target that its model has."""
    chosen = (
        (depth_models.REGISTRY, preset.depth_model),
        (renderers.REGISTRY, preset.renderer),
        (priors.REGISTRY, preset.prior),
    )
    for registry, component in chosen:
        built = registry.get(component.name)(**component.options)
        if isinstance(built, HasNeeds):
            built.ensure_available()
        if registry is depth_models.REGISTRY:
            check_supported(preset.optim.parameterization, built)
