"""The path-traced reliefs: photographed by another renderer, stored in the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from redepth.data.scenes.synthetic import Scenes, Split, benchmark_scenes
from redepth.io import load_photo
from redepth.io.assets import find_asset
from redepth.ops.color import linear_to_srgb, srgb_to_linear

ASSET = "data/path_traced.npz"
"""The stored scenes, as `redepth.io.assets.find_asset` finds them; the wheel does not have them."""

DEPTH_STEP = 2.0**-15
"""One step of the stored 16-bit depth: z < 2 in steps of 0.00003, exact in float32."""


LARGE_ASSET = "data/path_traced_large"
"""The folder of the scenes at the size of photos: a JPEG each, and `RECORD`."""

RECORD = "scenes.json"
LARGE_SIZE, LARGE_SEED = 384, 64_000
LARGE_SIZES = (192, LARGE_SIZE)


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


def large_names(folder: Path | None = None) -> list[str]:
    """Return the names of the stored scenes at the size of photos, in the order in which they were rendered.

    Raises:
        InputError: this installation does not have the repository's folder.
    """
    rows = json.loads(((folder or find_asset(LARGE_ASSET)) / RECORD).read_text(encoding="utf-8"))
    return [row["name"] for row in rows]


def large_name(index: int) -> str:
    """Return the name of a scene, its split and seed: two reliefs, two shapes, and so on.

    Even seeds are outdoors, so that either split has both lights.
    """
    return f"{'shapes' if index // 2 % 2 else 'relief'}-{LARGE_SEED + index}"


def large_depth(index: int) -> Tensor:
    """Draw the depth of a scene, (1, 384, 384); it is not stored."""
    split: Split = "shapes" if index // 2 % 2 else "relief"
    generator = Generator().manual_seed(LARGE_SEED + index)
    return benchmark_scenes(1, split, generator, height=LARGE_SIZE, width=LARGE_SIZE).depth[0]


def path_traced_large(index: int, size: int = LARGE_SIZE, folder: Path | None = None) -> Scenes:
    """Return one of the scenes that ``training/path_trace_large.py`` rendered, (1, ., size, size).

    At 192 the photo and the depth are means over 2 x 2 pixels, the photo's in linear light. Relief drawn at
    192 would be another one: its slope is scaled by what its own pixels see, and its outermost pixels are
    centred on the border of the same view, half a pixel further out.

    Args:
        index: number of the scene, from 0.
        size: side in pixels, one of `LARGE_SIZES`.
        folder: of the stored photos; by default the repository's.

    Raises:
        InputError: this installation does not have the repository's folder, or a photo is damaged.
    """
    file = (folder or find_asset(LARGE_ASSET)) / f"{large_name(index)}.jpg"
    image = torch.from_numpy(load_photo(file)).permute(2, 0, 1)[None].float()
    depth = large_depth(index)[None]
    if size == LARGE_SIZE:
        return Scenes(image, depth)
    factor = LARGE_SIZE // size
    linear = F.avg_pool2d(srgb_to_linear(image), factor)
    return Scenes(linear_to_srgb(linear, floor=0.0), F.avg_pool2d(depth, factor))
