"""The five example photos: those of scikit-image where it is installed, else rendered relief."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from redepth import io
from redepth.data.scenes.synthetic import Split, benchmark_scenes

PHOTOS = ("brick", "coins", "gravel", "moon", "motorcycle_left")
"""Photos inside scikit-image's wheel."""

SCENES: dict[str, tuple[Split, int]] = {
    "folds": ("relief", 4),
    "rods": ("shapes", 5),
    "domes": ("texture", 7),
    "cracks": ("relief", 8),
    "cones": ("shapes", 9),
}
"""Name -> split and seed of a scene that is rendered (`redepth.data.scenes.synthetic`)."""

HEIGHT, WIDTH = 384, 512
THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class Example:
    """An example photo.

    Attributes:
        title: for people.
        path: of the photo.
        thumbnail: of a small picture of it.
    """

    title: str
    path: Path
    thumbnail: Path


def make_examples(folder: Path) -> list[Example]:
    """Write the example photos and their thumbnails to a folder."""
    photos = _copied_photos(folder) or _rendered_scenes(folder)
    return [Example(_title(path), path, _thumbnail(path)) for path in photos]


def _copied_photos(folder: Path) -> Sequence[Path]:
    """Copy scikit-image's photos; return none unless all are there."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return []
    sources = [Path(spec.origin).parent / "data" / f"{name}.png" for name in PHOTOS]
    if not all(source.is_file() for source in sources):
        return []
    return [Path(shutil.copyfile(source, folder / source.name)) for source in sources]


def _rendered_scenes(folder: Path) -> Sequence[Path]:
    paths = []
    for name, (split, seed) in SCENES.items():
        generator = torch.Generator().manual_seed(seed)
        scene = benchmark_scenes(1, split, generator, height=HEIGHT, width=WIDTH)
        path = folder / f"{name}.png"
        io.save_png(path, io.to_uint8(scene.image[0].permute(1, 2, 0).numpy()))
        paths.append(path)
    return paths


def _title(path: Path) -> str:
    return path.stem.partition("_")[0].capitalize()


def _thumbnail(path: Path) -> Path:
    thumbnail = path.with_name(f"{path.stem}-small.jpg")
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    io.save_jpeg(thumbnail, small)
    return thumbnail
