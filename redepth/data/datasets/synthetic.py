"""Procedural relief scenes as a data set: exact depth and normals, no files."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from redepth.data.datasets.base import Missing, Sample, unknown_name
from redepth.data.synthetic import Domain, scenes
from redepth.ops.geometry import ORTHOGRAPHIC, camera_facing, normals_from_depth

# Seeds that neither the training nor the tuning nor the published tables of the embedded models have used.
FIRST_SEED = 50_000


class Synthetic:
    """Scenes of `redepth.data.synthetic`, each drawn by its own seed: ``broad-50000``, ``broad-50001``, ...

    Relative depth seen by an orthographic camera, exact everywhere.

    Args:
        domain: ``broad`` (ten families of relief) or ``mid`` (smooth bumps).
        count: how many scenes.
        size: side in pixels.
        seed: of the first scene; the next have the next seeds.
    """

    def __init__(
        self,
        domain: Domain = "broad",
        count: Annotated[int, Field(ge=1, le=10_000)] = 64,
        size: Annotated[int, Field(ge=16, le=1024)] = 96,
        seed: Annotated[int, Field(ge=0)] = FIRST_SEED,
    ) -> None:
        self.domain = domain
        self.count = count
        self.size = size
        self.seed = seed

    def check(self) -> list[Missing]:
        """Return nothing: there are no files to miss."""
        return []

    def names(self) -> list[str]:
        """Return a name for each seed."""
        return [f"{self.domain}-{self.seed + i}" for i in range(self.count)]

    def load(self, name: str) -> Sample:
        """Draw one scene."""
        names = self.names()
        if name not in names:
            raise unknown_name(name, names)
        generator = torch.Generator().manual_seed(self.seed + names.index(name))
        scene = scenes(1, self.domain, generator, height=self.size, width=self.size)
        normals = camera_facing(normals_from_depth(scene.depth))[0].permute(1, 2, 0)
        return Sample(
            name,
            photo=scene.image[0].permute(1, 2, 0).contiguous().numpy(),
            truth=scene.depth[0, 0].numpy(),
            unit="relative",
            normals=normals.contiguous().numpy(),
            camera=ORTHOGRAPHIC,
        )
