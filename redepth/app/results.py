"""The files that the app shows and offers of a result."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth import io, viz
from redepth.exports import RECORD
from redepth.exports.pictures import disparity_of
from redepth.literals import VIEW_FILE
from redepth.refinement import Refinement

PICTURE_SIDE = 1280
"""Longer side in pixels of the pictures that are compared, at most."""

PAIRS: Mapping[str, tuple[str, str]] = {
    "Depth, initial and refined": ("initial", "refined"),
    "Normals, before and after": ("normals_before", "normals_after"),
    "Photo and refined depth": ("photo", "refined"),
    "Photo and normals after": ("photo", "normals_after"),
}
"""The pictures that can be compared: title -> names, left and right."""

FIRST_PAIR = next(iter(PAIRS))


@dataclass(frozen=True)
class Shown:
    """The files of a result.

    Attributes:
        folder: of all of them.
        pictures: name -> picture, all of one size.
        files: what `Refinement.save` wrote.
        archive: the same in one zip.
        page: the viewer, `redepth.exports.viewer`.
        record: what ``run.json`` holds.
    """

    folder: Path
    pictures: Mapping[str, Path]
    files: list[Path]
    archive: Path
    page: Path
    record: Mapping[str, object]

    def pair(self, title: str) -> tuple[Path, Path]:
        """Return the two pictures of a comparison."""
        left, right = PAIRS[title if title in PAIRS else FIRST_PAIR]
        return self.pictures[left], self.pictures[right]


def write_result(result: Refinement, folder: Path) -> Shown:
    """Write what is shown of a result to an empty folder."""
    saved = result.save(folder / "result")
    files = sorted(saved.iterdir())
    archive = folder / "redepth.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            packed.write(path, path.name)
    return Shown(
        folder,
        {name: _saved(picture, folder / f"{name}.png") for name, picture in pictures_of(result).items()},
        files,
        archive,
        saved / VIEW_FILE,
        json.loads((saved / RECORD).read_text(encoding="utf-8")),
    )


def pictures_of(result: Refinement) -> dict[str, NDArray[np.uint8]]:
    """Draw the pictures that can be compared, all of one size: near is bright, one colour range for both."""
    factor = viz.reduction(*result.photo.shape[:2])
    photo = io.to_uint8(viz.reduced_photo(result.photo, factor))
    maps = {
        "initial": disparity_of(result, "initial", factor),
        "refined": disparity_of(result, "refined", factor),
    }
    low, high = viz.display_range(*maps.values())
    coloured = {name: viz.colorize(values, lo=low, hi=high) for name, values in maps.items()}
    closed = result.camera.closed
    normals = {
        f"normals_{when}": viz.normals_picture(values, *photo.shape[:2], closed=closed)
        for when, values in (("before", result.normals_before), ("after", result.normals_after))
    }
    return {"photo": photo, **coloured, **normals}


def _saved(picture: NDArray[np.uint8], path: Path) -> Path:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    io.save_png(path, image)
    return path
