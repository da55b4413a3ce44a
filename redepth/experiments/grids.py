"""The experiments: each with its question, its arms (changes of the preset) and its scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redepth import priors, renderers
from redepth.config import Component, Preset
from redepth.errors import ConfigError, RedepthError, nearest
from redepth.experiments.adapt_arms import PER_PHOTO, adapt_arms
from redepth.experiments.arms import (
    NO_PRIOR,
    RANDOM_WEIGHTS,
    TRUE_ALBEDO,
    Arm,
    foreign_checkpoint,
    has_option,
    no_random_weights,
)
from redepth.experiments.generic import RE_LIGHTING, generic_arms
from redepth.experiments.known_points import COUNTS
from redepth.experiments.unlabelled import KEPT_SPLIT
from redepth.optim.objectives import GUIDE_WEIGHTS
from redepth.registry import options_schema

GUIDE = "optim.objectives.anchors"

Plot = Literal["arms", "scenes", "members", "factors", "points", "photos"]


@dataclass(frozen=True)
class Experiment:
    """One study.

    Attributes:
        name: its name on the command line.
        question: the question that it answers.
        arms: returns the arms for a resolved preset.
        reference: the arm that the others are compared with, image by image; empty compares none.
        splits: splits of the synthetic scenes.
        strengths: strengths of their shifts.
        plot: the rows or axis of the plot: ``arms``, ``scenes``, the number of ``members``, a panel for
            each of the ``factors``, the number of ``points``, or the number of ``photos``.
        columns: columns of the table besides those of every experiment; keys of `summary.COLUMNS`.
        pictures: whether sheets of a few scenes are drawn.
        by_scene: whether all arms of a scene run before the next scene, so that the first are complete.
        besides: a split that every arm is measured on besides, in the table a column; empty for none.
        captioned: whether the prompt of a photo is the caption that its data set has.
    """

    name: str
    question: str
    arms: Callable[[Preset], list[Arm]]
    reference: str = ""
    splits: tuple[str, ...] = ("relief",)
    strengths: tuple[float, ...] = (1.0,)
    plot: Plot = "arms"
    columns: tuple[str, ...] = ()
    pictures: bool = False
    by_scene: bool = False
    besides: str = ""
    captioned: bool = False


def experiment(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        ConfigError: for an unknown name, with the nearest valid one.
    """
    if name not in EXPERIMENTS:
        valid = ", ".join(EXPERIMENTS)
        raise ConfigError(f"unknown experiment '{name}'{nearest(name, EXPERIMENTS)} (valid: {valid})")
    return EXPERIMENTS[name]


def preset_values(preset: Preset, factor: str) -> Any:
    """Return a preset's value of one of `FACTORS`; None if it has no such setting."""
    return FACTORS[factor](preset)


# --- the targets ----------------------------------------------------------------------------------

TARGETS = {
    "embeddings+decoder": ("embeddings", "decoder"),
    "embeddings": ("embeddings",),
    "decoder": ("decoder",),
    "full": ("encoder", "decoder"),
    "depth": ("depth",),
}
"""Parameterization -> the parameter groups whose learning rates it uses."""


RATE_FACTORS = (1, 0.1, 10)


def _targets(preset: Preset) -> list[Arm]:
    """Return an arm for each target; extra arms multiply its learning rates by `RATE_FACTORS`."""
    return [_target_arm(preset, target, factor) for factor in RATE_FACTORS for target in TARGETS]


def _target_arm(preset: Preset, target: str, factor: float) -> Arm:
    changes = []
    for group in TARGETS[target]:
        rate = min(1.0, factor * _rate(preset, group))
        changes.append(f"optim.learning_rates.{group}={rate:.3g}")
    name = target if factor == 1 else f"{target}, rates x {factor:g}"
    return Arm(name, (f"optim.parameterization={target}", *changes), extra=factor != 1)


def _rate(preset: Preset, group: str) -> float:
    """Return a group's learning rate.

    A group that the preset does not set keeps the paper's ratio to the rate of the embeddings.
    """
    rates = preset.optim.learning_rates
    if group in rates.model_fields_set:
        return float(getattr(rates, group))
    paper = type(rates)()
    return float(getattr(paper, group)) * (rates.embeddings / paper.embeddings)


# --- the ensemble ---------------------------------------------------------------------------------

SIZES = (1, 2, 3, 5, 10, 20)


def _ensemble(preset: Preset) -> list[Arm]:
    return [Arm("members", (f"optim.members={max(SIZES)}",), parts=SIZES)]


# --- the prior ------------------------------------------------------------------------------------


def _prior(preset: Preset) -> list[Arm]:
    name = preset.prior.name
    no_random = no_random_weights(name)
    no_condition, foreign = "", foreign_checkpoint(name)
    if not has_option(priors.REGISTRY, name, "condition_on"):
        no_condition = f"the prior '{name}' is conditioned on neither photo nor light"
    other = ("prior.checkpoint=embedded:smooth-relighting-prior", "prior.revision=null")
    generic = ("prior.checkpoint=embedded:relief-prior", "prior.revision=null", "prior.guidance_scale=1")
    return [
        Arm("trained"),
        Arm("random weights", RANDOM_WEIGHTS, obstacle=no_random),
        Arm("of another domain", other, obstacle=foreign),
        Arm("unconditional", generic, obstacle=foreign),
        Arm("smoothness only", NO_PRIOR),
        Arm("oracle", teacher=1.0),
        Arm("imperfect teacher", teacher=0.5),
        Arm("told the photo only", ("prior.condition_on=photo",), extra=True, obstacle=no_condition),
        Arm("told nothing", ("prior.condition_on=nothing",), extra=True, obstacle=no_condition),
        Arm("no guidance", ("prior.guidance_scale=1",), extra=True),
    ]


# --- the albedo -----------------------------------------------------------------------------------

ALBEDOS = {"photo": ("renderer.albedo=photo",), "grey": ("renderer.albedo=grey",), "true albedo": TRUE_ALBEDO}


def _albedo(preset: Preset) -> list[Arm]:
    return [Arm(name, overrides) for name, overrides in ALBEDOS.items()]


# --- the renderer ---------------------------------------------------------------------------------

REFERENCE_RENDERER = "blinn-phong, told the light"


def _renderer(preset: Preset) -> list[Arm]:
    """Return an arm for each renderer, with a prior that is conditioned on the photo and not on the light.

    The prior's light condition is trained on Blinn-Phong's lights; the lights of other renderers may have
    another meaning.
    """
    if has_option(priors.REGISTRY, preset.prior.name, "condition_on"):
        photo_only, obstacle = ["prior.condition_on=photo"], ""
    else:
        photo_only, obstacle = [], f"the prior '{preset.prior.name}' is not conditioned on the light"
    reference = (*_as_renderer(preset.renderer, "blinn-phong"), "prior.condition_on=photo+light")
    arms = [Arm(REFERENCE_RENDERER, reference, obstacle=obstacle)]
    for name in renderers.REGISTRY.entries():
        try:
            arms.append(Arm(name, (*_as_renderer(preset.renderer, name), *photo_only)))
        except RedepthError as error:
            arms.append(Arm(name, obstacle=str(error)))
    return arms


def _as_renderer(component: Component, name: str) -> tuple[str, ...]:
    """Return the overrides that replace a renderer by another and keep the options that both have."""
    known = options_schema(renderers.REGISTRY.get(name)).model_fields
    kept = {key: value for key, value in component.options.items() if key in known}
    return (f"renderer.name={name}", *(f"renderer.{k}={json.dumps(v)}" for k, v in kept.items()))


# --- the shift ------------------------------------------------------------------------------------

SHIFTED = ("relief", "shapes", "lighting", "texture", "degraded", "sky")


def _shift(preset: Preset) -> list[Arm]:
    return [Arm("preset")]


# --- the cost -------------------------------------------------------------------------------------

FACTORS: Mapping[str, Callable[[Preset], Any]] = {
    "steps": lambda p: p.optim.steps,
    "lights a step": lambda p: p.renderer.options.get("lights"),
    "members": lambda p: p.optim.members,
    "noise levels t": lambda p: _noise_levels(p.prior.options),
    "guidance": lambda p: p.prior.options.get("guidance_scale"),
    "smoothness": lambda p: _smoothness_weight(p),
}
"""The settings that `cost` varies, one at a time -> how to read each in a resolved preset."""

NOISE_LEVELS = ((0.02, 0.5), (0.3, 0.7), (0.75, 0.98), (0.02, 0.98))


def _noise_levels(options: Mapping[str, Any]) -> str | None:
    """Return the range of a prior's noise levels, as ``0.02-0.5``; None if it has none."""
    if "t_min" not in options or "t_max" not in options:
        return None
    return f"{options['t_min']:g}-{options['t_max']:g}"


def _smoothness_weight(preset: Preset) -> float | None:
    term = preset.optim.objectives.get("smoothness")
    return None if term is None else term.weight


def _cost(preset: Preset) -> list[Arm]:
    """Return the preset, and arms that change one setting each."""
    steps, members = preset.optim.steps, preset.optim.members
    levels = {
        f"{low:g}-{high:g}": [f"prior.t_min={low}", f"prior.t_max={high}"] for low, high in NOISE_LEVELS
    }
    guidance = preset_values(preset, "guidance") or 0.0
    weight = preset_values(preset, "smoothness") or 0.0
    smoothness_key = "optim.objectives.smoothness.weight"
    return [
        Arm("preset"),
        *_vary(preset, "steps", {n: [f"optim.steps={n}"] for n in _times(steps, (0.25, 0.5, 2))}),
        *_vary(preset, "lights a step", {n: [f"renderer.lights={n}"] for n in (1, 2, 4)}),
        *_vary(
            preset,
            "members",
            {n: [f"optim.members={n}"] for n in sorted({1, 3, *_times(members, (2,))})},
        ),
        *_vary(preset, "noise levels t", levels),
        *_vary(
            preset,
            "guidance",
            {scale: [f"prior.guidance_scale={scale:g}"] for scale in (guidance / 2, guidance * 2.0)},
        ),
        *_vary(
            preset,
            "smoothness",
            {w: [f"{smoothness_key}={w:g}"] for w in (0.0, weight / 10, 10.0 * weight)},
        ),
    ]


def _vary(preset: Preset, factor: str, changes: Mapping[Any, Sequence[str]]) -> list[Arm]:
    """Return an arm for each value of a factor (value -> overrides) that differs from the preset's."""
    current = preset_values(preset, factor)
    if current is None:
        return [Arm(factor, factor=factor, obstacle="the preset has no such setting")]
    arms = []
    for value, overrides in changes.items():
        if value != current:
            label = f"{value:g}" if isinstance(value, float) else value
            arms.append(Arm(f"{factor} {label}", tuple(overrides), factor=factor))
    return arms


def _times(value: int, factors: Sequence[float]) -> list[int]:
    return [max(1, round(factor * value)) for factor in factors]


# --- known points ---------------------------------------------------------------------------------


def _anchors(preset: Preset) -> list[Arm]:
    """Return an arm for each number of points, all with the same preset."""
    guide = () if "anchors" in preset.optim.objectives else (f"{GUIDE}.weight={GUIDE_WEIGHTS['anchors']:g}",)
    return [Arm(points_name(count), guide, points=count) for count in COUNTS]


def points_name(count: int) -> str:
    """Return the name of the arm with so many points."""
    return f"{count} points"


_EXPERIMENTS = (
    Experiment(
        "targets",
        "What should be learned at test time: embeddings and decoder, either, everything, the depth map?",
        _targets,
        reference="embeddings+decoder",
        columns=("collapse", "edges"),
        pictures=True,
    ),
    Experiment(
        "ensemble",
        "How many members does the ensemble need, and how much does its answer depend on the draws?",
        _ensemble,
        reference=f"N = {max(SIZES)}",
        plot="members",
        columns=("spread",),
    ),
    Experiment(
        "prior",
        "Does the gain come from what the prior has learned?",
        _prior,
        reference="trained",
        pictures=True,
    ),
    Experiment(
        "generic",
        "Does a generic prior refine depth, which is told a caption and not the photo?",
        generic_arms,
        reference=RE_LIGHTING,
        splits=("relief", "shapes"),
        captioned=True,
    ),
    Experiment(
        "renderer",
        "How much does it matter by which shading model the photo is re-lit?",
        _renderer,
        reference=REFERENCE_RENDERER,
    ),
    Experiment(
        "albedo",
        "How much does it matter that the photo, with its own light in it, stands for the albedo?",
        _albedo,
        reference="photo",
        splits=("relief", "texture"),
    ),
    Experiment(
        "shift",
        "Where does refinement help, and where does it hurt?",
        _shift,
        splits=("in-domain", *SHIFTED, "broad", "path-traced"),
        strengths=(0.5, 1.0),
        plot="scenes",
        columns=("flagged",),
    ),
    Experiment(
        "cost",
        "What do time and memory buy: steps, lights, members, noise levels, guidance, smoothness?",
        _cost,
        reference="preset",
        plot="factors",
        columns=("memory",),
    ),
    Experiment(
        "anchors",
        "What do known points add, against the initial depth aligned to the same points?",
        _anchors,
        splits=("relief", "shapes"),
        plot="points",
        columns=("abs_rel",),
        by_scene=True,
    ),
    Experiment(
        "adapt",
        "Can the depth model learn from many photos at once, without labels, so that none has to be refined?",
        adapt_arms,
        reference=PER_PHOTO,
        splits=("relief", "shapes"),
        plot="photos",
        columns=("besides", "adaptation"),
        besides=KEPT_SPLIT,
    ),
)

EXPERIMENTS = {grid.name: grid for grid in _EXPERIMENTS}
"""The experiments by name."""
