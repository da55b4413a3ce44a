"""ETH3D, the high-resolution multi-view training scenes."""

from __future__ import annotations

from pathlib import Path

from redepth import io
from redepth.data.datasets.base import (
    Array,
    Missing,
    Sample,
    require_file,
    require_some,
    split_name,
)
from redepth.errors import InputError

SOURCE = "SCENE_dslr_jpg.7z and SCENE_dslr_depth.7z of the training scenes: https://www.eth3d.net/datasets"
EXAMPLE = "courtyard/DSC_0286"
SCENES = {
    "courtyard": 38,
    "delivery_area": 44,
    "electro": 45,
    "facade": 76,
    "kicker": 31,
    "meadow": 15,
    "office": 26,
    "pipes": 14,
    "playground": 38,
    "relief": 31,
    "relief_2": 31,
    "terrace": 23,
    "terrains": 42,
}
"""The training scenes and their numbers of images, 454 in all."""


class Eth3d:
    """ETH3D's 13 training scenes: DSLR photos of 6048 x 4032 pixels and laser depth (metres).

    ::

        ROOT/courtyard/images/dslr_images/DSC_0286.JPG              the original, distorted photo
        ROOT/courtyard/ground_truth_depth/dslr_images/DSC_0286.JPG  raw float32, row by row

    The depth files end in ``.JPG`` but are raw: 4 x height x width bytes, little-endian, without a header.
    Infinity is unknown. Depth belongs to the pixels as stored, so the photo's EXIF orientation is not
    applied.

    Args:
        root: the folder above.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> list[Missing]:
        """Return the scenes without all photos and depth maps."""
        missing = []
        for scene, expected in SCENES.items():
            found = len(self._scene(scene))
            if found < expected:
                what = f"{self.root / scene}: {found} of {expected} photos with depth"
                missing.append(Missing(what, SOURCE.replace("SCENE", scene)))
        return missing

    def names(self) -> list[str]:
        """Return all photos of the training scenes that have depth."""
        names = [f"{scene}/{stem}" for scene in SCENES for stem in self._scene(scene)]
        return require_some(names, self, self.root)

    def load(self, name: str) -> Sample:
        """Read one photo; depth in metres, infinite where unknown."""
        scene, stem = split_name(name, 2, EXAMPLE)
        source = SOURCE.replace("SCENE", scene)
        photo = io.load_photo(require_file(self._path(scene, "images", stem), source), upright=False)
        path = require_file(self._path(scene, "ground_truth_depth", stem), source)
        return Sample(name, photo, _read_raw(path, photo.shape[0], photo.shape[1]))

    def _scene(self, scene: str) -> list[str]:
        photos = (self.root / scene / "images" / "dslr_images").glob("*.JPG")
        return sorted(p.stem for p in photos if self._path(scene, "ground_truth_depth", p.stem).is_file())

    def _path(self, scene: str, kind: str, stem: str) -> Path:
        return self.root / scene / kind / "dslr_images" / f"{stem}.JPG"


def _read_raw(path: Path, height: int, width: int) -> Array:
    """Read depth, (H, W). Raises InputError if the file has another size."""
    try:
        return io.read_floats(path, height, width)
    except InputError as error:
        raise InputError(f"{error} (it belongs to the original, distorted photo)") from None
