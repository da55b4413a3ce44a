"""The path-traced scenes: relief photographed by another renderer, stored in the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth.data.scenes.synthetic import Scenes
from redepth.io.assets import find_asset

ASSET = "data/path_traced.npz"
"""The stored scenes, as `redepth.io.assets.find_asset` finds them; the wheel does not have them."""

DEPTH_STEP = 2.0**-15
"""One step of the stored 16-bit depth: z < 2 in steps of 0.00003, exact in float32."""


def path_traced(file: Path | None = None) -> Scenes:
    """Return the 24 scenes that ``training/path_trace.py`` rendered, 96 x 96.

    Mitsuba 3 rendered the photos: light is reflected between slopes, a lamp or sun of finite size casts
    shadows, and the surface is rough plastic. Reading them does not need Mitsuba. The depth is exact,
    z = 1 - h at the pixel centres, seen by `redepth.ops.camera.ORTHOGRAPHIC`.

    Args:
        file: the stored arrays; by default the repository's.

    Raises:
        InputError: this installation does not have the repository's file.
    """
    with np.load(file or find_asset(ASSET), allow_pickle=False) as stored:
        return as_scenes(stored)


def as_scenes(stored: Mapping[str, NDArray[Any]]) -> Scenes:
    """Convert the stored arrays: image (B, H, W, 3) of 8 bits, depth (B, 1, H, W) of 16 bits."""
    image = torch.from_numpy(stored["image"]).permute(0, 3, 1, 2).contiguous()
    return Scenes(image.float() / 255, torch.from_numpy(stored["depth"].astype(np.float32)) * DEPTH_STEP)
