"""Short captions of procedural scenes: what they show, in words that the captioned priors know."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from redepth.data.scenes.canvas import Canvas
from redepth.data.scenes.relief import BROAD, broad_parts
from redepth.data.scenes.rooms.layouts import Layout

RELIEF = "relief"
"""What is said of a height field of an unknown family."""

RELIEF_WORDS: dict[str, str] = {
    "smooth": "smooth",
    "gaussians": "bumps",
    "domes": "domes",
    "ridges": "ridges",
    "tiles": "tiles",
    "carved": "carved",
    "discs": "discs",
    "pebbles": "pebbles",
    "craters": "craters",
    "fractal": "rough",
    "heads": "head",
}
"""The word for each family of `relief.BROAD`."""

ROOM_CAPTIONS: dict[str, str] = {
    "furnished": "room with furniture",
    "still-life": "room with table",
    "close-up": "things",
    "street": "street with houses",
    "corridor": "hall, corridor",
    "stacks": "room with stacks",
    "heap": "things, heap",
    "rows": "things in rows",
    "hills": "landscape with hills",
    "cloth": "room with cloth",
    "columns": "hall with columns",
    # No model is trained on these: they are described by the nearest words.
    "stairs": "hall",
    "shelves": "room with furniture",
    "arches": "street",
    "dining": "room with furniture, table",
    "canyon": "landscape",
}
"""The caption of each family of `rooms.layouts.TRAINING` and `rooms.unseen.UNSEEN`."""

SECOND_SHARE = 0.2
"""Least share of a second family of relief that is named."""


def relief_captions(parts: list[tuple[Tensor, Tensor]]) -> list[str]:
    """Return the caption of each scene of broad relief, from its families and their shares."""
    names = list(BROAD)
    captions = [RELIEF] * len(parts[0][0])
    for family, share in parts:
        for row, (index, part) in enumerate(zip(family.tolist(), share.flatten().tolist(), strict=True)):
            if part > SECOND_SHARE:
                captions[row] += f", {RELIEF_WORDS[names[index]]}"
    return captions


def upcoming_relief(count: int, generator: Generator) -> list[str]:
    """Return the captions of the scenes that ``synthetic.scenes(count, "broad", generator)`` will draw next.

    The generator stays as it is.
    """
    ahead = Generator().set_state(generator.get_state())
    return relief_captions(broad_parts(Canvas(count, 2, 2, ahead)))


def upcoming_room(families: Mapping[str, Layout], generator: Generator) -> str:
    """Return the caption of the scene that ``rooms.scene.room_scenes`` will draw next, likewise."""
    ahead = Generator().set_state(generator.get_state())
    return ROOM_CAPTIONS[list(families)[int(torch.randint(len(families), (), generator=ahead))]]
