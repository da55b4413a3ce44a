"""The arms that experiments are made of, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass

from redepth import priors
from redepth.config import Preset
from redepth.experiments.unlabelled import Adaptation
from redepth.registry import Registry, options_schema
from redepth.renderers.albedo import GIVEN_ARRAY

TRUE_ALBEDO = (f"renderer.albedo={GIVEN_ARRAY}",)
"""The overrides of an arm that lights the true albedo of its scenes."""

RANDOM_WEIGHTS, NO_PRIOR = ("prior.weights=random",), ("optim.prior_weight=0",)


@dataclass(frozen=True)
class Arm:
    """One variant of a comparison.

    Attributes:
        name: its name in tables and plots.
        overrides: overrides of the preset, ``key.path=value``.
        teacher: if a `Teacher` replaces the prior, how far its surface lies from the initial prediction (0)
            to the truth (1); None keeps the preset's prior.
        parts: sizes of disjoint parts of the ensemble; each is a separate arm with the name ``N = size``.
        factor: the factor of `FACTORS` that the arm varies.
        extra: whether the arm runs only when it is named on the command line.
        obstacle: why the preset cannot have this arm; empty if it can.
        points: number of known points that pull on the surface and align it; None: the protocol aligns.
        adapt: how its depth model is adapted first, once for each set of scenes; None: it is not.
    """

    name: str
    overrides: tuple[str, ...] = ()
    teacher: float | None = None
    parts: tuple[int, ...] = ()
    factor: str = ""
    extra: bool = False
    obstacle: str = ""
    points: int | None = None
    adapt: Adaptation | None = None


def no_random_weights(prior: str) -> str:
    """Return why a prior cannot have random weights; empty if it can."""
    if has_option(priors.REGISTRY, prior, "weights"):
        return ""
    return f"the prior '{prior}' has no random weights"


EMBEDDED_KIND = "pixel-diffusion"


def foreign_checkpoint(prior: str) -> str:
    """Return why an embedded checkpoint cannot replace a prior's own; empty if it can."""
    if prior == EMBEDDED_KIND:
        return ""
    return f"is a checkpoint for the prior '{EMBEDDED_KIND}', and the preset has '{prior}'"


def has_option(registry: Registry, name: str, option: str) -> bool:
    """Return whether a component has an option."""
    return option in options_schema(registry.get(name)).model_fields


def lights_true_albedo(preset: Preset) -> bool:
    """Return whether a preset's renderer lights the true albedo of the scenes."""
    return preset.renderer.options.get("albedo") == GIVEN_ARRAY
