"""Presets for tests: the sections that one needs, files, and the message of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redepth.components import resolve
from redepth.config import load_preset
from redepth.errors import ConfigError

PARTS: dict[str, Any] = {
    "depth_model": {"name": "depth-anything", "longer_side": 280},
    "renderer": {"name": "blinn-phong", "lights": 2},
    "prior": {"name": "pixel-diffusion", "guidance_scale": 2.0},
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(source: Any, *overrides: str) -> str:
    """The message that a preset is refused with: always one line."""
    with pytest.raises(ConfigError) as error:
        resolve(load_preset(source, overrides))
    message = str(error.value)
    assert "\n" not in message
    return message
