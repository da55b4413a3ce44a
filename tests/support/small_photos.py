"""Photos of a few pixels, quick to refine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    """Write a smooth random picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path, format="PNG")
    return path


def write_depth(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    """Write a smooth random depth map of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).uniform(1, 2, (5, 6)).astype(np.float32)
    np.save(path, np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)))
    return path
