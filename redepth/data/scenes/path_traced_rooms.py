"""The path-traced rooms: photographed by another renderer, stored in the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth.data.scenes.rooms.scene import RoomScenes, mean_disparity
from redepth.io.assets import find_asset
from redepth.ops.color import srgb_to_linear

ASSET = "data/path_traced_rooms.npz"
"""The stored scenes, as `redepth.io.assets.find_asset` finds them; the wheel does not have them."""

NORMAL_STEPS = 127
"""The stored normals are whole numbers, this many to 1: a third of a degree."""


def path_traced_rooms(file: Path | None = None) -> RoomScenes:
    """Return the 24 scenes that ``training/path_trace_rooms.py`` rendered, 160 x 160.

    Mitsuba 3 rendered the photos, by path tracing: lamps, windows or sun and sky, light reflected between
    things, micro-facet materials. Depth, normals and albedo are those of one ray through each pixel's centre.
    Nobody trained on these scenes. Reading them does not need Mitsuba.

    Args:
        file: the stored arrays; by default the repository's.

    Raises:
        InputError: this installation does not have the repository's file.
    """
    with np.load(file or find_asset(ASSET), allow_pickle=False) as stored:
        return as_rooms(stored)


def as_rooms(stored: Mapping[str, NDArray[Any]]) -> RoomScenes:
    """Convert the stored arrays.

    Args:
        stored: image (B, H, W, 3) of 8 bits; depth (B, H, W) in metres, 0 in the sky; normals (B, H, W, 3),
            `NORMAL_STEPS` to 1; albedo (B, H, W, 3) of 8 bits, to the power of 1 / 2.2; field_of_view (B,) in
            degrees.
    """
    image = torch.from_numpy(stored["image"]).permute(0, 3, 1, 2).contiguous().float() / 255
    metres = torch.from_numpy(stored["depth"])
    sky = metres == 0
    depth = torch.where(sky, torch.inf, metres)
    depth = depth * mean_disparity(depth.flatten(1))[:, None, None]
    normals = torch.from_numpy(stored["normals"]).permute(0, 3, 1, 2).float()
    albedo = torch.from_numpy(stored["albedo"]).permute(0, 3, 1, 2).float() / 255
    return RoomScenes(
        image,
        depth[:, None],
        torch.nn.functional.normalize(normals, dim=1),
        torch.from_numpy(stored["field_of_view"]),
        srgb_to_linear(torch.where(sky[:, None], image, albedo)),
    )


def room_names(file: Path | None = None) -> list[str]:
    """Return the names of the stored scenes: layout and number. Raises InputError as `path_traced_rooms`."""
    with np.load(file or find_asset(ASSET), allow_pickle=False) as stored:
        return [str(name) for name in stored["name"]]
