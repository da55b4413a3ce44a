"""Photos without labels for the experiment `adapt`: scenes with other seeds than any that is measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from redepth import io
from redepth.data.datasets import Dataset

ADAPTATION_SEED, KEEP_SEED = 30_000, 40_000
"""First seeds of the photos that a model is adapted to, and of those on which it shall stay as it is.

They are apart from the scenes that are measured or tuned on, and from all training."""

KEPT_SPLIT = "in-domain"
"""The starting model's own domain, where an adapted model shall not become worse."""

PHOTOS, KEPT = 64, 256
"""The number of photos of every arm that does not vary it, and of the photos that are kept."""

FEWER, MORE = (8, 32), (16, 128)
"""The other numbers of photos: of arms that always run, and of extra arms."""


class Adaptation(BaseModel):
    """How the depth model of an arm is adapted; arms with the same name and scenes share the adapted model.

    Attributes:
        name: of the adapted model.
        prior: what the photos are refined with; adaptations with the same one share the refined photos.
        photos: number of photos without labels.
        keep: number of photos of `KEPT_SPLIT` on which the model shall stay as it is.
        refine: whether each measured scene is refined from the adapted model's prediction; else the
            prediction itself is measured.
        scenes: label of the scenes whose kind of photos it is adapted to; empty until the study is planned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    prior: str
    photos: int = PHOTOS
    keep: int = KEPT
    refine: bool = False
    scenes: str = ""


def write_photos(reader: Dataset, count: int, folder: Path) -> list[Path]:
    """Write the first photos of a data set as lossless PNG, and return their paths."""
    paths = []
    for name in reader.names()[:count]:
        path = folder / f"{name}.png"
        io.save_png(path, reader.load(name).pixels())
        paths.append(path)
    return paths
