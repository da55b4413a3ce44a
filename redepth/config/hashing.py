"""The hash of a preset, by which stored results say which settings they were measured with."""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from redepth.config import Preset

NOT_HASHED: dict[str, Any] = {"name": True, "description": True, "optim": {"performance"}}
"""The settings that decide no number: names, and how the same mathematics is computed (rounding alone)."""


def preset_sha256(preset: Preset) -> str:
    """Return the SHA-256 of a preset's YAML, without `NOT_HASHED` and with sorted keys.

    Resolve the preset first (`redepth.components.resolve`): a default that is written out and one that is not
    give different hashes.
    """
    content = preset.model_dump(mode="json", exclude=NOT_HASHED)
    text = yaml.safe_dump(content, sort_keys=True, allow_unicode=True)
    return hashlib.sha256(text.encode()).hexdigest()
