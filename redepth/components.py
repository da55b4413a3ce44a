"""The component families: what there is, whether a preset's choices hold, and building them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch

from redepth import depth_models, priors, renderers
from redepth.config import Component, Preset, Term, load_preset, preset_names
from redepth.contracts import DepthModel, HasNeeds, Objective, Prior, Renderer
from redepth.data import datasets
from redepth.errors import ConfigError
from redepth.optim import objectives
from redepth.priors.prompts import Captioner
from redepth.protocols import load_protocol, protocol_names
from redepth.registry import Registry

FAMILIES: dict[str, Registry] = {
    "depth-models": depth_models.REGISTRY,
    "renderers": renderers.REGISTRY,
    "priors": priors.REGISTRY,
    "objectives": objectives.REGISTRY,
}


def list_components(family: str) -> dict[str, str]:
    """Return name -> one-line summary of a family's components, third-party ones included.

    ``family`` is ``presets``, ``depth-models``, ``renderers``, ``priors``, ``objectives``, ``datasets`` or
    ``protocols``.

    Raises:
        ConfigError: for another family.
    """
    if family == "presets":
        return {name: load_preset(name).description for name in preset_names()}
    if family == "protocols":
        return {name: load_protocol(name).description for name in protocol_names()}
    registries = {**FAMILIES, "datasets": datasets.REGISTRY}
    if family not in registries:
        raise ConfigError(f"unknown family '{family}' (valid: presets, {', '.join(registries)}, protocols)")
    return {name: entry.summary for name, entry in registries[family].entries().items()}


def resolve(preset: Preset) -> Preset:
    """Check every component's options and write its defaults out.

    Raises:
        ConfigError: naming the key, what is wrong with it and the nearest valid one.
        MissingDependencyError: if a component needs a package that is not installed.
    """

    def checked(registry: Registry, component: Component) -> Component:
        options = registry.check(component.name, component.options, also=("name",))
        return Component.model_validate({"name": component.name, **options})

    terms = {}
    for name, term in preset.optim.objectives.items():
        where = f"optim.objectives.{name}"
        options = objectives.REGISTRY.check(name, term.options, where=where, also=("weight",))
        terms[name] = Term.model_validate({"weight": term.weight, **options})
    if not preset.optim.prior_weight and not terms:
        raise ConfigError(
            "optim.prior_weight is 0 and optim.objectives is empty: nothing is left to optimise; add "
            "optim.objectives.smoothness.weight, or give the prior a weight"
        )
    return preset.model_copy(
        update={
            "depth_model": checked(depth_models.REGISTRY, preset.depth_model),
            "renderer": checked(renderers.REGISTRY, preset.renderer),
            "prior": checked(priors.REGISTRY, preset.prior),
            "optim": preset.optim.model_copy(update={"objectives": terms}),
        }
    )


class Components(NamedTuple):
    """What a preset names, built and loaded.

    Attributes:
        depth_model: on the device.
        renderer: needs no device.
        prior: on the device.
        objectives: name -> (weight, objective).
        captioner: writes prompts, not loaded; none where the preset has none.
    """

    depth_model: DepthModel
    renderer: Renderer
    prior: Prior
    objectives: dict[str, tuple[float, Objective]]
    captioner: Captioner | None


def build(preset: Preset, device: torch.device) -> Components:
    """Build and load the components of a resolved preset.

    Raises:
        WeightsError: weights are missing and unreachable, before anything is loaded.
    """
    depth_model = _built(depth_models.REGISTRY, preset.depth_model)
    renderer = _built(renderers.REGISTRY, preset.renderer)
    prior = _built(priors.REGISTRY, preset.prior)
    for component in (depth_model, renderer, prior):
        if isinstance(component, HasNeeds):
            component.ensure_available()
    captioner = captioner_of(preset, device)
    if captioner is not None:
        captioner.ensure_available()
    weighted = {
        name: (term.weight, objectives.REGISTRY.build(name, term.options))
        for name, term in preset.optim.objectives.items()
    }
    return Components(depth_model.load(device), renderer, prior.load(device), weighted, captioner)


def captioner_of(preset: Preset, device: torch.device) -> Captioner | None:
    """Return the captioner that a preset names, not loaded."""
    chosen = preset.prompt
    if chosen.captioner == "none":
        return None
    return Captioner(
        chosen.captioner,
        device,
        checkpoint=chosen.checkpoint,
        revision=chosen.revision,
        local_files_only=chosen.local_files_only,
        dtype=chosen.dtype,
        fallback=chosen.fallback,
    )


def _built(registry: Registry, component: Component) -> Any:
    # The preset is resolved: its options have been checked and their defaults written out.
    return registry.get(component.name)(**component.options)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("redepth", "torch", "numpy", "transformers", "diffusers", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
