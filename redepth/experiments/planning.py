"""Plan an experiment: resolve its arms, choose its scenes, and check everything before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from redepth import depth_models, priors, renderers
from redepth.adaptation.learned import check_adaptable
from redepth.checkpoints import EMBEDDED
from redepth.components import captioner_of, lit_albedo, resolve
from redepth.config import Preset, load_preset
from redepth.contracts import HasNeeds
from redepth.data.datasets.synthetic import STORED, UNSHIFTED, WITHOUT_ALBEDO
from redepth.errors import ConfigError, InputError, RedepthError, nearest
from redepth.experiments.arms import Arm, lights_true_albedo
from redepth.experiments.grids import Experiment, experiment
from redepth.experiments.study import (
    EVALUATION_SEED,
    SYNTHETIC,
    TUNING_SEED,
    ArmRun,
    SceneSet,
    Study,
    open_scenes,
)
from redepth.literals import AlbedoName
from redepth.optim import objectives
from redepth.optim.parameterizations import check_supported
from redepth.protocols import (
    EvaluationProtocol,
    Split,
    load_protocol,
    open_dataset,
    protocol_for,
    select,
)
from redepth.runtime.device import choose_device

DEFAULT_SIZE = 96
"""Side of the synthetic scenes in pixels."""


def plan(
    name: str,
    preset: str = "embedded-relief",
    overrides: Sequence[str] = (),
    *,
    images: int = 16,
    arms: Sequence[str] = (),
    splits: Sequence[str] = (),
    strengths: Sequence[float] = (),
    size: int = DEFAULT_SIZE,
    dataset: str = SYNTHETIC,
    options: Mapping[str, Any] | None = None,
    tuning: bool = False,
    seed: int = 0,
) -> Study:
    """Check everything about an experiment before an image is read or a weight is loaded.

    Arms and synthetic splits that cannot run here are left out, and their reasons are kept.

    Args:
        name: name of the experiment.
        preset: name or YAML file.
        overrides: overrides of the preset, for all arms.
        images: number of images of each set; all images of a set that has fewer.
        arms: only these arms, extra arms included; all arms that are not extra without it.
        splits: splits of the synthetic scenes, instead of the experiment's.
        strengths: strengths of their shifts, instead of the experiment's.
        size: side of the synthetic scenes; a preset with embedded weights refines them at this size.
        dataset: name of the data set.
        options: options of its reader, as JSON can hold them; synthetic scenes take only the options above.
        tuning: take the images that settings are tuned on: synthetic scenes with other seeds, of other data
            the last images instead of the first.
        seed: seed of all random streams.

    Raises:
        ConfigError: an unknown experiment, arm, split or preset, a wrong option, no arm that can run.
        InputError: a data set without images.
        WeightsError: the weights of the preset are unavailable.
    """
    grid = experiment(name)
    if images < 1:
        raise ConfigError(f"--images {images}: give at least 1")
    synthetic = dataset == SYNTHETIC
    if synthetic and options:
        raise ConfigError(f"the data set {SYNTHETIC} takes --split, --strength and --size, and no --option")
    base = base_preset(preset, overrides, size=size if synthetic else None)
    chosen_arms = _chosen_arms(grid, base, arms)
    skipped: dict[str, str] = {}
    if synthetic:
        first_seed = TUNING_SEED if tuning else EVALUATION_SEED
        sets = _scene_sets(grid, splits, strengths, images, size, first_seed, skipped)
        protocol = load_protocol(SYNTHETIC)
        protocol = protocol.model_copy(update={"split": Split(name="procedural scenes")})
    else:
        if grid.plot == "scenes" or splits or strengths:
            raise ConfigError(f"splits and strengths are of the data set {SYNTHETIC}; {dataset} has none")
        protocol, images_of_dataset = _dataset_images(dataset, options or {}, images, tuning)
        sets = [images_of_dataset]
    runs = _arm_runs(name, chosen_arms, base, sets if synthetic else [], skipped)
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
    pinned = protocol.pinned([scene.name for scene in study.scenes()])
    return study.model_copy(update={"protocol": pinned})


# --- the preset -----------------------------------------------------------------------------------


def base_preset(preset: str, overrides: Sequence[str] = (), *, size: int | None = DEFAULT_SIZE) -> Preset:
    """Return the resolved preset that the arms of a study change.

    Args:
        preset: name or YAML file.
        overrides: overrides of the preset.
        size: side of the synthetic scenes: a preset with an embedded depth model refines them at this size,
            unless an override sets ``depth_model.longer_side``. None is for other data sets.

    Raises:
        ConfigError: an unknown preset, or a wrong option.
    """
    keys = [override.partition("=")[0].strip() for override in overrides]
    if size is not None and "depth_model.longer_side" not in keys and _is_embedded(preset):
        overrides = [f"depth_model.longer_side={size}", *overrides]
    return resolve(load_preset(preset, overrides))


def _is_embedded(preset: str) -> bool:
    """Return whether the preset's depth model has weights that ship with the package."""
    checkpoint = str(load_preset(preset).depth_model.options.get("checkpoint", ""))
    return checkpoint.startswith(EMBEDDED)


# --- the arms -------------------------------------------------------------------------------------


def _chosen_arms(grid: Experiment, base: Preset, names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names; without names, all that are not extra."""
    arms = grid.arms(base)
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"experiment {grid.name} has no arm '{name}'{nearest(name, known)} "
                f"(valid: {', '.join(known)})"
            )
    if names:
        return [arm for arm in arms if arm.name in names]
    return [arm for arm in arms if not arm.extra]


def _arm_runs(
    name: str, arms: Sequence[Arm], base: Preset, scenes: Sequence[SceneSet], skipped: dict[str, str]
) -> dict[str, ArmRun]:
    """Resolve the arms; those that cannot run go to ``skipped`` with their reasons.

    ``scenes`` are the sets of synthetic scenes; empty for other data.

    Raises:
        ConfigError: if no arm can run.
        RedepthError: if the preset itself cannot.
    """
    _check_runnable(base)
    _check_albedo(base)
    captioner = captioner_of(base, choose_device())
    if captioner is not None:
        captioner.ensure_available()
    runs: dict[str, ArmRun] = {}
    for arm in arms:
        try:
            runs[arm.name] = _arm_run(arm, base, [s.split for s in scenes])
        except RedepthError as error:
            skipped[arm.name] = str(error)
    if not runs:
        reasons = "; ".join(f"{skipped_name}: {reason}" for skipped_name, reason in skipped.items())
        raise ConfigError(f"no arm of {name} can run: {reasons}")
    return _for_each_set(runs, [s for s in scenes if s.split != experiment(name).besides])


def _for_each_set(runs: Mapping[str, ArmRun], scenes: Sequence[SceneSet]) -> dict[str, ArmRun]:
    """Return the arms, with those that adapt a model once for each set of scenes."""
    found = {name: run for name, run in runs.items() if run.adapt is None}
    for kind in scenes:
        for name, run in runs.items():
            if run.adapt is not None:
                adapt = run.adapt.model_copy(update={"scenes": kind.label})
                found[f"{name} on {kind.label}"] = run.model_copy(update={"adapt": adapt, "label": name})
    return found


def _arm_run(arm: Arm, base: Preset, splits: Sequence[str]) -> ArmRun:
    """Resolve an arm; ``splits`` are those of synthetic scenes, empty for other data.

    Raises:
        RedepthError: it cannot run here, with the reason.
    """
    synthetic = bool(splits)
    if arm.obstacle:
        raise ConfigError(arm.obstacle)
    if arm.teacher is not None and not synthetic:
        raise ConfigError(f"needs the true surface in the renderer's unit, which only {SYNTHETIC} has")
    if arm.adapt is not None and not synthetic:
        raise ConfigError(f"needs more photos of the same kind, which only {SYNTHETIC} has")
    preset = resolve(load_preset(base.model_dump(), arm.overrides))
    _check_albedo(preset)
    if lights_true_albedo(preset):
        if not synthetic:
            raise ConfigError(f"needs the true albedo, which only {SYNTHETIC} has")
        if without := [split for split in splits if split in WITHOUT_ALBEDO]:
            raise ConfigError(
                f"needs the true albedo, which {' and '.join(dict.fromkeys(without))} does not keep"
            )
    if arm.adapt is not None:
        check_adaptable(depth_models.REGISTRY.get(preset.depth_model.name))
    _check_runnable(preset)
    return ArmRun(
        preset=preset,
        teacher=arm.teacher,
        parts=arm.parts,
        factor=arm.factor,
        points=arm.points,
        adapt=arm.adapt,
    )


def _check_albedo(preset: Preset) -> None:
    """Raise ConfigError if the renderer lights an albedo from files, which belong to one photo each."""
    albedo = lit_albedo(preset)
    if albedo not in get_args(AlbedoName) and not lights_true_albedo(preset):
        raise ConfigError(
            f"renderer.albedo={albedo}: the scenes of an experiment have no files of albedos; choose one of "
            f"{', '.join(get_args(AlbedoName))}"
        )


def _check_runnable(preset: Preset) -> None:
    """Raise RedepthError if weights, a package, or a parameterization of its depth model are missing."""
    depth_model = depth_models.REGISTRY.get(preset.depth_model.name)(**preset.depth_model.options)
    components = [
        depth_model,
        renderers.REGISTRY.get(preset.renderer.name)(**preset.renderer.options),
        priors.REGISTRY.get(preset.prior.name)(**preset.prior.options),
        *(objectives.REGISTRY.get(name)(**term.options) for name, term in preset.optim.objectives.items()),
    ]
    for component in components:
        if isinstance(component, HasNeeds):
            component.ensure_available()
    check_supported(preset.optim.parameterization, depth_model)


# --- the scenes -----------------------------------------------------------------------------------


def _scene_sets(
    grid: Experiment,
    splits: Sequence[str],
    strengths: Sequence[float],
    images: int,
    size: int,
    seed: int,
    skipped: dict[str, str],
) -> list[SceneSet]:
    """Return the sets of synthetic scenes; splits that are missing go to ``skipped`` with their reasons."""
    chosen = splits if splits else grid.splits
    if wrong := set(chosen) & _cannot_adapt_to(grid):
        raise ConfigError(f"experiment {grid.name} cannot adapt to {', '.join(sorted(wrong))}: {NO_OTHERS}")
    if strengths and set(chosen) <= set(UNSHIFTED):
        raise ConfigError(f"--strength: no shift to scale in {', '.join(chosen)}")
    shifts = list(dict.fromkeys(strengths if strengths else grid.strengths))
    sets, besides = [], [grid.besides] if grid.besides else []
    for split in dict.fromkeys((*chosen, *besides)):
        for strength in [None] if split in UNSHIFTED else shifts:
            options: dict[str, Any] = {"split": split, "strength": strength, "count": images}
            options |= {"size": size, "seed": seed}
            reader = open_scenes(**options)
            if split in STORED and seed != EVALUATION_SEED:
                skipped[split] = NONE_APART
                continue
            problems = reader.check()
            if problems:
                skipped[split] = str(problems[0])
                continue
            names = reader.names()[:images]
            sets.append(SceneSet(split=split, strength=strength, options=options, images=names))
    if not sets:
        raise InputError("; ".join(f"{split}: {reason}" for split, reason in skipped.items()))
    return sets


NONE_APART = "its scenes are stored: there are none apart to tune on"

NO_OTHERS = "the starting model knows in-domain, and path-traced splits have no further scenes"


def _cannot_adapt_to(grid: Experiment) -> set[str]:
    return {grid.besides, *STORED} if grid.besides else set()


def _dataset_images(
    dataset: str, options: Mapping[str, Any], images: int, tuning: bool
) -> tuple[EvaluationProtocol, SceneSet]:
    """Return the protocol of a data set, and its first images, or its last for tuning."""
    protocol = load_protocol(protocol_for(dataset))
    reader = open_dataset(protocol, dataset, options)
    _, names = select(protocol, reader, partial=True)
    if tuning and len(names) < 2 * images:
        raise ConfigError(
            f"{dataset} has {len(names)} images: tuning on {images} leaves fewer to report; lower --images"
        )
    chosen = names[-images:] if tuning else names[:images]
    return protocol, SceneSet(split=dataset, options=dict(options), images=chosen)
