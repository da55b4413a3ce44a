"""The mixture that the pair for photos is trained on: half relief, half rooms, streets and terrain."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from redepth.data.scenes.synthetic import Scenes, scenes
from redepth.ops.camera import Camera
from training.stored_scenes import StoredScenes

CAMERA = Camera(field_of_view=55.0)
"""The camera that the pair's renderer takes: a pinhole with the default field of view."""

RELIEF_SCALE = math.tan(math.radians(55.0 / 2))
"""Half of the width that `CAMERA` sees at depth 1. The camera of relief sees W / H."""


def mixture(
    count: int, generator: Generator, rooms: StoredScenes, *, height: int = 96, width: int = 96
) -> Scenes:
    """Return the scenes of `mixture_and_families`."""
    return mixture_and_families(count, generator, rooms, height=height, width=width)[0]


def mixture_and_families(
    count: int, generator: Generator, rooms: StoredScenes, *, height: int = 96, width: int = 96
) -> tuple[Scenes, Tensor]:
    """Draw relief of the broad domain and views of stored rooms in equal parts.

    Relief is scaled as a whole such that `CAMERA` sees as much of it at z = 1 as its own camera does, so that
    its slopes stay what they are. The true fields of view of rooms differ: their depth is what is learned,
    and a wrong field of view stretches a scene along the optical axis and keeps planes plane.

    Args:
        count: number of scenes, a multiple of 2.
        generator: of the CPU.
        rooms: the stored rooms.
        height: in pixels.
        width: in pixels.

    Returns:
        The scenes, relief first, and the families of the rooms (count / 2,).
    """
    relief = scenes(count // 2, "broad", generator, height=height, width=width)
    pictures, depths, families = rooms.views(count // 2, generator, height=height, width=width)
    image = torch.cat([relief.image, pictures])
    depth = torch.cat([1 + RELIEF_SCALE * height / width * (relief.depth - 1), depths])
    return Scenes(image, depth, torch.isinf(depth)), families
