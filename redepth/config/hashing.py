"""The hash of a preset, by which stored results say which settings they were measured with."""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from redepth.config import Preset

NOT_HASHED: dict[str, Any] = {
    "name": True,
    "description": True,
    "optim": {"performance"},
    "output": {"write", "max_points", "mesh_faces", "texture_side"},
    "diagnostics": True,
    "adapt": True,
    "clip": True,
}
"""The settings that decide no number of a map: names, how the same mathematics is computed (rounding alone),
what is written, how a result is judged, and what concerns many photos alone."""


def preset_sha256(preset: Preset) -> str:
    """Return the SHA-256 of a preset's YAML, without `NOT_HASHED` and with sorted keys.

    How maps get the photo's size counts unless it is bilinear, as it is in all hashes of earlier versions. A
    limit of the blend's filter counts where there is one, as there was none in earlier versions.

    An albedo that is the photo or a grey counts under the name of earlier versions, ``relight``, likewise.

    Resolve the preset first (`redepth.components.resolve`): a default that is written out and one that is not
    give different hashes.
    """
    content = preset.model_dump(mode="json", exclude=NOT_HASHED)
    if preset.output.upsample == "bilinear":
        del content["output"]
    if preset.optim.blend_pixels is None:
        del content["optim"]["blend_pixels"]
    content["renderer"] = _as_in_earlier_versions(content["renderer"])
    text = yaml.safe_dump(content, sort_keys=True, allow_unicode=True)
    return hashlib.sha256(text.encode()).hexdigest()


_RELIGHT = {"photo": "composite", "grey": "shading-only"}


def _as_in_earlier_versions(renderer: dict[str, Any]) -> dict[str, Any]:
    """Return the renderer's options with the former option of an albedo, where it has the same meaning."""
    relight = _RELIGHT.get(str(renderer.get("albedo")))
    if relight is None:
        return renderer
    unused = ("albedo", "albedo_checkpoint", "albedo_revision", "albedo_steps", "albedo_ensemble")
    return {"relight": relight} | {key: value for key, value in renderer.items() if key not in unused}
