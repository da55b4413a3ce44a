"""The mixture that the pair for photos is trained on: half relief, half rooms, streets and terrain."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.synthetic import Domain, Scenes, scenes
from redepth.ops.camera import Camera

CAMERA = Camera(field_of_view=55.0)
"""The camera that the pair's renderer takes: a pinhole with the default field of view."""

RELIEF_SCALE = math.tan(math.radians(55.0 / 2))
"""Half of the width that `CAMERA` sees at depth 1, where the camera of relief sees half a width of 1."""


def mixture(count: int, generator: Generator, *, height: int = 96, width: int = 96, domain: Domain = "broad") -> Scenes:
    """Draw relief and rooms in equal parts, and all of them once more as mirror images.

    Relief is scaled as a whole such that `CAMERA` sees as much of it at z = 1 as its own camera does, so that
    its slopes stay what they are. The true fields of view of rooms differ: their depth is what is learned,
    and a wrong field of view stretches a scene along the optical axis and keeps planes plane.

    Args:
        count: number of scenes, a multiple of 4.
        generator: of the CPU.
        height: in pixels.
        width: in pixels.
        domain: of the relief.
    """
    relief = scenes(count // 4, domain, generator, height=height, width=width)
    rooms = room_scenes(count // 4, generator, height=height, width=width)
    both = Scenes(
        torch.cat([relief.image, rooms.image]), torch.cat([1 + RELIEF_SCALE * (relief.depth - 1), rooms.depth])
    )
    flip: Callable[[Tensor], Tensor] = lambda x: torch.cat([x, x.flip(-1)])  # noqa: E731
    depth = flip(both.depth)
    return Scenes(flip(both.image), depth, torch.isinf(depth))
