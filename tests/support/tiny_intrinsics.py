"""A tiny checkpoint of Marigold's intrinsic image decomposition, of the real class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.tiny_depth_models import marigold_intrinsics

APPEARANCE: dict[str, Any] = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}
LIGHTING: dict[str, Any] = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}


def save_intrinsics(folder: Path, properties: dict[str, Any] | None = None) -> Path:
    """Save a pipeline of a few channels; by default of the appearance model's targets."""
    return marigold_intrinsics(folder, APPEARANCE if properties is None else properties)
