"""The components of a preset that may need weights or packages, each with what builds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.config import Preset


def parts_of(preset: Preset) -> dict[str, Callable[[], object]]:
    """Return the role of each component of a preset -> a function that checks its options and builds it.

    The captioner is one of them: it fails without its weights, whatever the preset's fallback is.
    """
    from redepth.components import FAMILIES, normals_of

    chosen = {
        "depth model": (FAMILIES["depth-models"], preset.depth_model),
        "renderer": (FAMILIES["renderers"], preset.renderer),
        "prior": (FAMILIES["priors"], preset.prior),
    }
    parts: dict[str, Callable[[], object]] = {
        role: partial(registry.build, component.name, component.options)
        for role, (registry, component) in chosen.items()
    }
    for name, term in preset.optim.objectives.items():
        parts[f"objective {name}"] = partial(FAMILIES["objectives"].build, name, term.options)
    if normals_of(preset) is not None:
        parts["normals"] = partial(normals_of, preset)
    if preset.prompt.captioner != "none":
        parts["captioner"] = partial(_captioner, preset)
    return parts


def _captioner(preset: Preset) -> object:
    from redepth.components import captioner_of
    from redepth.runtime.device import choose_device

    strict = preset.prompt.model_copy(update={"fallback": "error"})
    return captioner_of(preset.model_copy(update={"prompt": strict}), choose_device())
