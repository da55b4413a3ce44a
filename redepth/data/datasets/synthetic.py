"""Procedural scenes as a data set: exact depth, normals and sky, no files."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
from pydantic import Field

from redepth.data.datasets.base import Missing, Sample, unknown_name
from redepth.data.scenes import path_traced_rooms as traced_rooms
from redepth.data.scenes.captions import RELIEF, RELIEF_WORDS, upcoming_relief, upcoming_room
from redepth.data.scenes.path_traced import (
    ASSET,
    LARGE_ASSET,
    LARGE_SIZES,
    large_names,
    path_traced,
    path_traced_large,
)
from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import RoomScenes, room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import Scenes, Split, benchmark_scenes, scenes
from redepth.errors import InputError
from redepth.io.assets import SOURCE, find_asset
from redepth.literals import MAX_SEED
from redepth.ops.camera import ORTHOGRAPHIC, Camera

Unshifted = Literal["broad", "rooms", "unseen-rooms", "path-traced", "path-traced-rooms"]

UNSHIFTED = ("in-domain", *get_args(Unshifted))
"""Splits without a shift, and so without a strength."""

STORED = ("path-traced", "path-traced-rooms")
"""Splits of stored scenes, the same ones whatever the seed."""

WITHOUT_ALBEDO = ("broad", "path-traced")
"""Splits whose scenes do not keep their albedo."""

# No embedded model's training, tuning or published table uses these seeds.
FIRST_SEED = 50_000


class Synthetic:
    """Scenes of `data.scenes.synthetic`, each drawn by its own seed: ``relief-50000``, ``relief-50001``, ...

    Relative depth, exact everywhere; the sky has no depth. Each has a caption (`data.scenes.captions`). The
    camera of rooms is a pinhole whose field of view each scene draws, that of all others is orthographic.

    Args:
        split: ``in-domain`` (the training domain of the embedded depth model), a shift from it (``relief``,
            ``shapes``, ``lighting``, ``texture``, ``degraded``, ``sky``), ``broad`` (the training domain of
            the embedded priors), ``rooms`` (rooms, streets and terrain), ``unseen-rooms`` (of families that
            no model is trained on), or stored scenes that another renderer photographed, which have no
            strength or seed: ``path-traced`` (relief and shapes: 24 scenes of 96 x 96, or others of 192 or
            384 if that is the size) and ``path-traced-rooms`` (24 rooms and streets of 160 x 160, whatever
            the size).
        strength: strength of the shift, 0 to 1; only 1 where there is none (`UNSHIFTED`).
        count: number of scenes; of stored ones at most all.
        size: side in pixels.
        seed: seed of the first scene; the others have the next seeds.
    """

    def __init__(
        self,
        split: Split | Unshifted = "relief",
        strength: Annotated[float, Field(ge=0, le=1)] = 1.0,
        count: Annotated[int, Field(ge=1, le=10_000)] = 64,
        size: Annotated[int, Field(ge=16, le=1024)] = 96,
        seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = FIRST_SEED,
    ) -> None:
        if strength != 1 and split in UNSHIFTED:
            raise ValueError(f"strength {strength:g}: {split} has no shift to scale; leave it out")
        self.split = split
        self.strength = strength
        self.count = count
        self.size = size
        self.seed = seed

    def check(self) -> list[Missing]:
        """Return the path-traced scenes' file if it is missing; the other scenes need no file."""
        asset = self._asset()
        if asset is None:
            return []
        try:
            find_asset(asset)
        except InputError:
            return [Missing(asset, SOURCE)]
        return []

    def _asset(self) -> str | None:
        """Return the name of the stored scenes; None if they are drawn."""
        if self.split == "path-traced-rooms":
            return traced_rooms.ASSET
        if self.split == "path-traced":
            return LARGE_ASSET if self.size in LARGE_SIZES else ASSET
        return None

    def names(self) -> list[str]:
        """Return a name for each seed, or for each stored scene."""
        if self.split == "path-traced-rooms":
            return traced_rooms.room_names()[: self.count]
        if self.split == "path-traced":
            if self.size in LARGE_SIZES:
                return [f"{self.split}-{self.size}-{name}" for name in large_names()[: self.count]]
            return [f"{self.split}-{i:02}" for i in range(min(self.count, len(path_traced().image)))]
        shift = "" if self.strength == 1 else f"-{self.strength:g}"
        return [f"{self.split}{shift}-{self.seed + i}" for i in range(self.count)]

    def load(self, name: str) -> Sample:
        """Draw or read one scene."""
        names = self.names()
        if name not in names:
            raise unknown_name(name, names)
        index, split = names.index(name), self.split
        if split == "rooms" or split == "unseen-rooms":
            return self._room(name, index)
        if split == "path-traced-rooms":
            return _of_room(name, traced_rooms.path_traced_rooms(), index, "room")
        scene = self._scene(index, split)
        return Sample(
            name,
            photo=scene.image[0].permute(1, 2, 0).contiguous().numpy(),
            truth=scene.depth[0, 0].numpy(),
            unit="relative",
            normals=scene.normals[0].permute(1, 2, 0).contiguous().numpy(),
            sky=None if scene.sky is None else scene.sky[0, 0].numpy(),
            camera=ORTHOGRAPHIC,
            albedo=None if scene.albedo is None else scene.albedo[0].permute(1, 2, 0).contiguous().numpy(),
            caption=self._caption(index),
        )

    def _room(self, name: str, index: int) -> Sample:
        generator = self._generator(index)
        families = TRAINING if self.split == "rooms" else UNSEEN
        caption = upcoming_room(families, generator)
        drawn = room_scenes(
            1, generator, height=self.size, width=self.size, families=families, dtype=torch.float64
        )
        return _of_room(name, drawn, 0, caption)

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + index)

    def _caption(self, index: int) -> str:
        """Return the caption of a relief, with the families that training knows."""
        if self.split == "broad":
            return upcoming_relief(1, self._generator(index))[0]
        known = self.split not in ("relief", "shapes", "path-traced")
        return f"{RELIEF}, {RELIEF_WORDS['smooth']}" if known else RELIEF

    def _scene(self, index: int, split: Split | Literal["broad", "path-traced"]) -> Scenes:
        if split == "path-traced":
            if self.size in LARGE_SIZES:
                return path_traced_large(index, self.size)
            stored = path_traced()
            return Scenes(stored.image[index : index + 1], stored.depth[index : index + 1])
        generator = self._generator(index)
        if split == "broad":
            return scenes(1, "broad", generator, height=self.size, width=self.size)
        return benchmark_scenes(
            1, split, generator, strength=self.strength, height=self.size, width=self.size
        )


def _of_room(name: str, drawn: RoomScenes, index: int, caption: str) -> Sample:
    """Return one of the scenes that a pinhole camera sees; the photo has 8 bits."""
    eight_bits = (drawn.image[index] * 255).round().float() / 255
    return Sample(
        name,
        photo=eight_bits.permute(1, 2, 0).contiguous().numpy(),
        truth=drawn.depth[index, 0].float().numpy(),
        unit="relative",
        normals=drawn.normals[index].permute(1, 2, 0).float().contiguous().numpy(),
        sky=drawn.sky[index, 0].numpy(),
        camera=Camera(field_of_view=float(drawn.field_of_view[index])),
        albedo=drawn.albedo[index].permute(1, 2, 0).float().contiguous().numpy(),
        caption=caption,
    )
