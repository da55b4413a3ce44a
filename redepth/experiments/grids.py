"""What each experiment asks and compares: its arms, each a change of the preset, and its scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redepth import priors, renderers
from redepth.config import Component, Preset
from redepth.errors import ConfigError, RedepthError, nearest
from redepth.registry import Registry, options_schema

Plot = Literal["arms", "scenes", "members", "factors"]


@dataclass(frozen=True)
class Arm:
    """One variant of a comparison.

    Attributes:
        name: what tables and plots call it.
        overrides: of the preset, ``key.path=value``.
        teacher: how far the surface that a `Teacher` in the prior's place is told lies from the initial
            prediction (0) to the truth (1); None is the preset's prior.
        parts: sizes of disjoint parts of the ensemble; each is an arm of its own, called ``N = size``.
        factor: which of `FACTORS` it varies.
        extra: whether it runs only if it is asked for by name.
        obstacle: why the preset cannot have it; empty if it can.
    """

    name: str
    overrides: tuple[str, ...] = ()
    teacher: float | None = None
    parts: tuple[int, ...] = ()
    factor: str = ""
    extra: bool = False
    obstacle: str = ""


@dataclass(frozen=True)
class Experiment:
    """One study.

    Attributes:
        name: on the command line.
        question: what it answers.
        arms: from a resolved preset to what is compared.
        reference: the arm that each other is compared with, image by image; empty compares none.
        splits: of the synthetic scenes.
        strengths: of the shifts.
        plot: what the plot shows: ``arms`` one below the other, ``scenes`` likewise, the number of
            ``members``, or a panel for each of the ``factors``.
        columns: of the table beside those of every experiment; keys of `summary.COLUMNS`.
        pictures: whether sheets of a few scenes are drawn.
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


def experiment(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        ConfigError: for an unknown one, with the nearest.
    """
    if name not in EXPERIMENTS:
        valid = ", ".join(EXPERIMENTS)
        raise ConfigError(f"unknown experiment '{name}'{nearest(name, EXPERIMENTS)} (valid: {valid})")
    return EXPERIMENTS[name]


def preset_values(preset: Preset, factor: str) -> Any:
    """Return what a preset has for one of `FACTORS`; None where it has no such setting."""
    return FACTORS[factor](preset)


# --- what is learned ------------------------------------------------------------------------------

TARGETS = {
    "embeddings+decoder": ("embeddings", "decoder"),
    "embeddings": ("embeddings",),
    "decoder": ("decoder",),
    "full": ("encoder", "decoder"),
    "depth": ("depth",),
}
"""Parameterization -> the groups whose learning rates it uses."""


def _targets(preset: Preset) -> list[Arm]:
    """Each target at the preset's rates; those it does not name keep the paper's ratio to its embeddings'."""
    rates = preset.optim.learning_rates
    paper = type(rates)()
    scale = rates.embeddings / paper.embeddings

    def rate(group: str) -> float:
        named = group in rates.model_fields_set
        return float(getattr(rates if named else paper, group) * (1 if named else scale))

    def arm(target: str, factor: float) -> Arm:
        changes = [f"optim.learning_rates.{g}={min(1.0, factor * rate(g)):.3g}" for g in TARGETS[target]]
        name = target if factor == 1 else f"{target}, rates x {factor:g}"
        return Arm(name, (f"optim.parameterization={target}", *changes), extra=factor != 1)

    return [arm(target, factor) for factor in (1, 0.1, 10) for target in TARGETS]


# --- the ensemble ---------------------------------------------------------------------------------

SIZES = (1, 2, 3, 5, 10, 20)


def _ensemble(preset: Preset) -> list[Arm]:
    return [Arm("members", (f"optim.members={max(SIZES)}",), parts=SIZES)]


# --- the prior ------------------------------------------------------------------------------------

EMBEDDED_KIND = "pixel-diffusion"


def _prior(preset: Preset) -> list[Arm]:
    name = preset.prior.name
    alien = f"is a checkpoint for the prior '{EMBEDDED_KIND}', and the preset has '{name}'"
    no_tell = "" if _has(priors.REGISTRY, name, "tell") else f"the prior '{name}' is told neither"
    no_random = "" if _has(priors.REGISTRY, name, "weights") else f"the prior '{name}' has no random weights"
    foreign = "" if name == EMBEDDED_KIND else alien
    other = ("prior.checkpoint=embedded:smooth-relighting-prior", "prior.revision=null")
    generic = ("prior.checkpoint=embedded:relief-prior", "prior.revision=null", "prior.guidance_scale=1")
    return [
        Arm("trained"),
        Arm("random weights", ("prior.weights=random",), obstacle=no_random),
        Arm("of another domain", other, obstacle=foreign),
        Arm("unconditional", generic, obstacle=foreign),
        Arm("smoothness only", ("optim.prior_weight=0",)),
        Arm("oracle", teacher=1.0),
        Arm("imperfect teacher", teacher=0.5),
        Arm("told the photo only", ("prior.tell=photo",), extra=True, obstacle=no_tell),
        Arm("told nothing", ("prior.tell=nothing",), extra=True, obstacle=no_tell),
        Arm("no guidance", ("prior.guidance_scale=1",), extra=True),
    ]


# --- the renderer ---------------------------------------------------------------------------------

REFERENCE_RENDERER = "blinn-phong, told the light"


def _renderer(preset: Preset) -> list[Arm]:
    """Every renderer at the preset's options, with a prior that is told the photo and not the light.

    The light that a prior is told is Blinn-Phong's; what other renderers draw may mean something else.
    """
    tells = _has(priors.REGISTRY, preset.prior.name, "tell")
    photo = ("prior.tell=photo",) if tells else ()
    obstacle = "" if tells else f"the prior '{preset.prior.name}' is not told the light"
    told = (*_as_renderer(preset.renderer, "blinn-phong"), "prior.tell=photo+light")
    arms = [Arm(REFERENCE_RENDERER, told, obstacle=obstacle)]
    for name in renderers.REGISTRY.entries():
        try:
            arms.append(Arm(name, (*_as_renderer(preset.renderer, name), *photo)))
        except RedepthError as error:
            arms.append(Arm(name, obstacle=str(error)))
    return arms


def _as_renderer(component: Component, name: str) -> tuple[str, ...]:
    """Return the overrides that put another renderer in the place of one, with the options both have."""
    known = options_schema(renderers.REGISTRY.get(name)).model_fields
    kept = {key: value for key, value in component.options.items() if key in known}
    return (f"renderer.name={name}", *(f"renderer.{k}={json.dumps(v)}" for k, v in kept.items()))


# --- the shift ------------------------------------------------------------------------------------

UNSHIFTED = ("in-domain", "broad", "path-traced")
"""Splits without a strength."""

SHIFTED = ("relief", "shapes", "lighting", "texture", "degraded", "sky")


def _shift(preset: Preset) -> list[Arm]:
    return [Arm("preset")]


# --- the cost -------------------------------------------------------------------------------------

FACTORS: Mapping[str, Callable[[Preset], Any]] = {
    "steps": lambda p: p.optim.steps,
    "lights a step": lambda p: p.renderer.options.get("lights"),
    "members": lambda p: p.optim.members,
    "noise levels t": lambda p: _span(p.prior.options),
    "guidance": lambda p: p.prior.options.get("guidance_scale"),
    "smoothness": lambda p: (
        p.optim.objectives["smoothness"].weight if "smoothness" in p.optim.objectives else None
    ),
}
"""What `cost` varies, one at a time -> how to read it in a resolved preset."""

NOISE_LEVELS = ((0.02, 0.5), (0.3, 0.7), (0.75, 0.98), (0.02, 0.98))


def _span(options: Mapping[str, Any]) -> str | None:
    return f"{options['t_min']:g}-{options['t_max']:g}" if {"t_min", "t_max"} <= set(options) else None


def _cost(preset: Preset) -> list[Arm]:
    """The preset, and one setting changed at a time."""
    arms = [Arm("preset")]

    def vary(factor: str, changes: Mapping[Any, Sequence[str]]) -> None:
        own = preset_values(preset, factor)
        if own is None:
            arms.append(Arm(factor, factor=factor, obstacle="the preset has no such setting"))
            return
        for value, overrides in changes.items():
            if value != own:
                label = f"{value:g}" if isinstance(value, float) else value
                arms.append(Arm(f"{factor} {label}", tuple(overrides), factor=factor))

    steps, members = preset.optim.steps, preset.optim.members
    vary("steps", {n: [f"optim.steps={n}"] for n in _times(steps, (0.25, 0.5, 2))})
    vary("lights a step", {n: [f"renderer.lights={n}"] for n in (1, 2, 4)})
    vary("members", {n: [f"optim.members={n}"] for n in sorted({1, 3, *_times(members, (2,))})})
    vary(
        "noise levels t",
        {f"{low:g}-{high:g}": [f"prior.t_min={low}", f"prior.t_max={high}"] for low, high in NOISE_LEVELS},
    )
    guidance = float(preset_values(preset, "guidance") or 0)
    vary("guidance", {g: [f"prior.guidance_scale={g:g}"] for g in (guidance / 2, 2 * guidance)})
    weight = float(preset_values(preset, "smoothness") or 0)
    key = "optim.objectives.smoothness.weight"
    vary("smoothness", {w: [f"{key}={w:g}"] for w in (0.0, weight / 10, 10 * weight)})
    return arms


def _times(value: int, factors: Sequence[float]) -> list[int]:
    return [max(1, round(factor * value)) for factor in factors]


def _has(registry: Registry, name: str, option: str) -> bool:
    return option in options_schema(registry.get(name)).model_fields


EXPERIMENTS = {
    found.name: found
    for found in (
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
            "renderer",
            "How much does it matter by which shading model the photo is re-lit?",
            _renderer,
            reference=REFERENCE_RENDERER,
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
    )
}
"""The experiments by name."""
