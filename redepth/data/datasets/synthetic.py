"""Procedural scenes as a data set: exact depth, normals and sky, no files."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from redepth.data.datasets.base import Missing, Sample, unknown_name
from redepth.data.scenes.captions import RELIEF, RELIEF_WORDS, upcoming_relief, upcoming_room
from redepth.data.scenes.path_traced import ASSET, path_traced
from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import Scenes, Split, benchmark_scenes, scenes
from redepth.errors import InputError
from redepth.io.assets import SOURCE, find_asset
from redepth.literals import MAX_SEED
from redepth.ops.camera import ORTHOGRAPHIC, Camera

UNSHIFTED = ("in-domain", "broad", "rooms", "unseen-rooms", "path-traced")
"""Splits without a shift, and so without a strength."""

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
            no model is trained on), or ``path-traced`` (relief and shapes rendered by another renderer: 24
            stored scenes of 96 x 96, which have no strength, size or seed).
        strength: strength of the shift, 0 to 1; only 1 where there is none (`UNSHIFTED`).
        count: number of scenes; at most 24 of ``path-traced``.
        size: side in pixels.
        seed: seed of the first scene; the others have the next seeds.
    """

    def __init__(
        self,
        split: Split | Literal["broad", "rooms", "unseen-rooms", "path-traced"] = "relief",
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
        if self.split != "path-traced":
            return []
        try:
            find_asset(ASSET)
        except InputError:
            return [Missing(ASSET, SOURCE)]
        return []

    def names(self) -> list[str]:
        """Return a name for each seed, or for each stored scene."""
        if self.split == "path-traced":
            return [f"{self.split}-{i:02}" for i in range(min(self.count, len(path_traced().image)))]
        shift = "" if self.strength == 1 else f"-{self.strength:g}"
        return [f"{self.split}{shift}-{self.seed + i}" for i in range(self.count)]

    def load(self, name: str) -> Sample:
        """Draw one scene."""
        names = self.names()
        if name not in names:
            raise unknown_name(name, names)
        index, split = names.index(name), self.split
        if split == "rooms" or split == "unseen-rooms":
            return self._room(name, index)
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
        eight_bits = (drawn.image[0] * 255).round().float() / 255
        return Sample(
            name,
            photo=eight_bits.permute(1, 2, 0).contiguous().numpy(),
            truth=drawn.depth[0, 0].float().numpy(),
            unit="relative",
            normals=drawn.normals[0].permute(1, 2, 0).float().contiguous().numpy(),
            sky=drawn.sky[0, 0].numpy(),
            camera=Camera(field_of_view=float(drawn.field_of_view[0])),
            albedo=drawn.albedo[0].permute(1, 2, 0).float().contiguous().numpy(),
            caption=caption,
        )

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
            stored = path_traced()
            return Scenes(stored.image[index : index + 1], stored.depth[index : index + 1])
        generator = self._generator(index)
        if split == "broad":
            return scenes(1, "broad", generator, height=self.size, width=self.size)
        return benchmark_scenes(
            1, split, generator, strength=self.strength, height=self.size, width=self.size
        )
