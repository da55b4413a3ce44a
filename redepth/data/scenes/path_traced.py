"""The path-traced scenes: relief photographed by another renderer, stored with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth.data.scenes.synthetic import Scenes

FILE = Path(__file__).with_name("path_traced.npz")

DEPTH_STEP = 2.0**-15
"""What one step of the stored 16-bit depth is: z < 2 to 0.00003, exact in float32."""


def path_traced(file: Path = FILE) -> Scenes:
    """Return the 24 scenes that ``training/path_trace.py`` rendered, 96 x 96, from its file.

    Their photos have light that goes from slope to slope, shadows of a lamp or sun of finite size and a rough
    plastic surface, by Mitsuba 3, which is not needed to read them. Their depth is exact, z = 1 - h at the
    centres of the pixels, seen by `redepth.ops.geometry.ORTHOGRAPHIC`.
    """
    with np.load(file, allow_pickle=False) as stored:
        return as_scenes(stored)


def as_scenes(stored: Mapping[str, NDArray[Any]]) -> Scenes:
    """Return what the file's arrays stand for: image (B, H, W, 3) of 8 bits, depth (B, 1, H, W) of 16."""
    image = torch.from_numpy(stored["image"]).permute(0, 3, 1, 2).contiguous()
    return Scenes(image.float() / 255, torch.from_numpy(stored["depth"].astype(np.float32)) * DEPTH_STEP)
