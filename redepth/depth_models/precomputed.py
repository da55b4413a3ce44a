"""A depth map of another tool, which is read from a file and refined."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from typing_extensions import Self

from redepth import io
from redepth.contracts import Invariance
from redepth.depth_models.files import PhotoFile
from redepth.depth_models.whole import WholeModel
from redepth.errors import InputError
from redepth.io.arrays import as_map
from redepth.literals import MapKind
from redepth.ops import filters, panorama

GIVEN_ARRAY = "<array>"
"""The path of maps that are passed as arrays (`redepth.refine`'s ``depth``)."""


@dataclass(kw_only=True, eq=False)
class Precomputed(WholeModel):
    """Disparity or depth from a file, at any resolution of the photo's aspect ratio.

    The raw output is factor * stored number + offset. A 16-bit PNG of redepth is decoded with the scale and
    offset in the file; the numbers of other files are used as they are stored. Pixels that are not finite are
    holes: they are filled for the optimisation, and unknown in the result. The other options are those of
    `WholeModel`.

    Args:
        path: a file (npy, npz, pfm, exr, 16-bit png, tiff), or a folder with one per photo, of
            the photo's name; or ``<array>``: Python passes the map of each photo (`take_map`).
        predicts: content of the file: disparity or depth, both up to scale and shift, or depth in metres.
        factor: multiplies the stored numbers, such as 0.001 for millimetres.
        offset: is added to the product, for maps with values of 0 or below.
    """

    path: str = ""
    predicts: MapKind = "disparity"  # type: ignore[assignment]
    factor: Annotated[float, Field(ge=1e-12, le=1e12)] = 1.0
    offset: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    invariance: Invariance = field(init=False, default="affine")

    def __post_init__(self) -> None:
        if self.predicts == "metric-depth":
            self.predicts, self.invariance = "depth", "metric"
        self._file = PhotoFile(self.path, "map")
        self._array: NDArray[Any] | None = None
        self._holes: Tensor | None = None
        self._beyond = 0.0

    def ensure_available(self) -> None:
        """Raise InputError if there is no such file or folder."""
        if not self.path:
            raise InputError(
                "precomputed needs depth_model.path: the file of the map, or a folder of them "
                "(redepth refine --depth FILE|FOLDER --predicts disparity|depth|metric-depth)"
            )
        if self.path != GIVEN_ARRAY:
            self._file.check()

    def load(self, device: torch.device) -> Self:
        """Load nothing: files are read photo by photo."""
        return self

    def next_photo(self, source: Path | None) -> None:
        """Set the photo whose map is read next. Raises InputError if there is none."""
        if self.path != GIVEN_ARRAY:
            self._file.next_photo(source)

    def take_map(self, values: NDArray[Any] | None) -> None:
        """Set the map of the next photo, (h, w); None where the option ``path`` names its file.

        Raises:
            InputError: the map is neither in a file nor given, or both.
        """
        if values is None and self.path == GIVEN_ARRAY:
            raise InputError(
                f"depth_model.path={GIVEN_ARRAY}: Python passes the map, as depth= of refine; name a file"
            )
        if values is not None and self.path != GIVEN_ARRAY:
            raise InputError(f"depth= is an array, and depth_model.path names {self.path}; give one of them")
        self._array = values

    def go_around(self, margin: float) -> None:
        """Extend the next photo's map by this share of its width on either side."""
        self._beyond = margin

    @property
    def holes(self) -> Tensor | None:
        """Where the photo's map is not finite, (1,1,h,w) bool at the map's size; None: nowhere."""
        return self._holes

    def predict(self, image: Tensor) -> Tensor:
        """Read the photo's map, fill its holes (`holes`) from around them, and resize it to the image.

        Raises:
            InputError: unreadable, of another aspect ratio, constant, negative or 0 as depth.
        """
        path, stored = self._stored()
        values = self.factor * stored.astype(np.float64) + self.offset
        known = np.isfinite(values)
        self._check(path, values[known])
        height, width = image.shape[-2], round(image.shape[-1] / (1 + 2 * self._beyond))
        io.check_aspect(path, "map", (values.shape[0], values.shape[1]), (height, width))
        inside = torch.from_numpy(known)[None, None]
        self._holes = None if known.all() else ~inside
        raw = filters.fill_holes(torch.from_numpy(values)[None, None], inside).to(image)
        if self._beyond:
            raw = panorama.fit(raw, height, image.shape[-1], self._beyond)
        else:
            raw = self._resized(raw, height, width)
        return raw.expand(len(image), -1, -1, -1)

    def _resized(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Resize as inverse depth, which is affine over the picture of a plane: planes stay planes."""
        if raw.shape[-2:] == (height, width):
            return raw
        inverse = raw if self.predicts == "disparity" else 1 / raw
        # What continues beyond the border must not pass 0.
        resized = filters.resample(inverse, height, width).clamp(min=float(inverse.min()) / 2)
        return resized if self.predicts == "disparity" else 1 / resized

    def _stored(self) -> tuple[Path, NDArray[Any]]:
        """Return the photo's map in the units of its file, and its name for messages."""
        if self._array is not None:
            return Path("depth"), as_map(Path("depth"), self._array)
        path = self._file.path
        return path, io.load_map(path, "disparity" if self.predicts == "disparity" else "depth")

    def describe(self) -> dict[str, Any]:
        """Return path, factor and offset for the run record."""
        given = self.path == GIVEN_ARRAY
        return {
            "path": self.path if given else str(Path(self.path).expanduser().resolve()),
            "factor": self.factor,
            "offset": self.offset,
        }

    def _check(self, path: Path, values: NDArray[np.float64]) -> None:
        if not values.size:
            raise InputError(f"{path}: holds no finite value; give another map")
        low, high = float(values.min()), float(values.max())
        if low < 0 or (low == 0 and self.predicts == "depth"):
            allowed = "greater than 0" if self.predicts == "depth" else "0 or greater"
            raise InputError(
                f"{path}: {self.predicts} must be {allowed}, the lowest value is {low:g}; choose another "
                "--predicts, or lift the map with depth_model.offset; where it is unknown, store NaN"
            )
        if low == high:
            raise InputError(f"{path}: the map is constant ({low:g}); there is no surface to refine")
