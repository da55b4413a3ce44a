"""Test-time refinement of single-photo depth: re-light the surface, let a 2D diffusion prior judge it.

The public names load on first use, so that ``import redepth`` stays light::

    import redepth

    result = redepth.refine("photo.jpg", preset="embedded", seed=0)
    result.save("out/photo")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redepth import depth_models, priors, renderers
    from redepth.adaptation.run import adapt
    from redepth.clips.run import refine_clip
    from redepth.components import import_components, list_components
    from redepth.config import Preset, load_preset
    from redepth.data import datasets
    from redepth.errors import RedepthError
    from redepth.ground_truth import GroundTruth
    from redepth.optim import objectives
    from redepth.optim.outcome import Outcome, StepReport
    from redepth.optim.refiner import Refiner
    from redepth.pipeline import Pipeline, refine
    from redepth.refinement import Refinement

__version__ = "0.1.0"

_HOMES = {
    "GroundTruth": "redepth.ground_truth",
    "Outcome": "redepth.optim.outcome",
    "Pipeline": "redepth.pipeline",
    "Preset": "redepth.config",
    "Refinement": "redepth.refinement",
    "Refiner": "redepth.optim.refiner",
    "RedepthError": "redepth.errors",
    "StepReport": "redepth.optim.outcome",
    "adapt": "redepth.adaptation.run",
    "import_components": "redepth.components",
    "list_components": "redepth.components",
    "load_preset": "redepth.config",
    "refine": "redepth.pipeline",
    "refine_clip": "redepth.clips.run",
}
_MODULES = {
    "datasets": "redepth.data.datasets",
    "depth_models": "redepth.depth_models",
    "objectives": "redepth.optim.objectives",
    "priors": "redepth.priors",
    "renderers": "redepth.renderers",
}

__all__ = [
    "GroundTruth",
    "Outcome",
    "Pipeline",
    "Preset",
    "RedepthError",
    "Refinement",
    "Refiner",
    "StepReport",
    "adapt",
    "datasets",
    "depth_models",
    "import_components",
    "list_components",
    "load_preset",
    "objectives",
    "priors",
    "refine",
    "refine_clip",
    "renderers",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'redepth' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
