"""The contract of a data set, its sample record, and functions that several readers share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from redepth import io
from redepth.contracts import Predicts
from redepth.errors import InputError, nearest
from redepth.ops.camera import Camera

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

Unit = Literal["m", "relative"]
"""Metres, or an unknown unit of the data set; disparities have the inverse unit."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set with its ground truth.

    Attributes:
        name: unique within the data set, the same on every machine.
        photo: a file that `redepth.io.load_photo` reads, or (H, W, 3) sRGB in [0, 1].
        truth: (H, W) depth or disparity; unknown where it is not finite or <= 0.
        kind: whether the truth is depth or disparity.
        unit: unit of the truth.
        mask: (H, W) where the data set marks its truth as valid; None takes all known values.
        normals: (H, W, 3) true normals of any length, x right, y up, z to the viewer, 0 where unknown.
        sky: (H, W) where the sky is, if the data set marks it.
        camera: camera of the photo, if known; the normals of a predicted depth need it.
        no_hit: (H, W) where the stored number means that nothing was hit, if the reader looked for such
            numbers; the truth is unknown there.
        albedo: (H, W, 3) true linear albedo in [0, 1], if the data set has it.
        caption: what the photo shows, in a few words, if the data set says so.
    """

    name: str
    photo: Path | Array
    truth: Array
    kind: Predicts = "depth"
    unit: Unit = "m"
    mask: Mask | None = None
    normals: Array | None = None
    sky: Mask | None = None
    camera: Camera | None = None
    no_hit: Mask | None = None
    albedo: Array | None = None
    caption: str = ""

    def pixels(self) -> Array:
        """Return the photo, (H, W, 3) sRGB in [0, 1]. Raises InputError if the file cannot be read."""
        return io.load_photo(self.photo) if isinstance(self.photo, Path) else self.photo

    def depth(self) -> torch.Tensor:
        """Return the truth as depth, (H, W) float64, 0 where it is unknown or masked out."""
        values = torch.from_numpy(np.ascontiguousarray(self.truth)).double()
        known = torch.isfinite(values) & (values > 0)
        if self.mask is not None:
            known &= torch.from_numpy(np.ascontiguousarray(self.mask))
        if self.no_hit is not None:
            known &= torch.from_numpy(np.ascontiguousarray(~self.no_hit))
        depth = torch.where(known, values, 1.0)
        if self.kind == "disparity":
            depth = 1 / depth
        return torch.where(known, depth, 0.0)


class OtherKindError(InputError):
    """The whole data set holds another kind of ground truth than the one that is asked for."""


@dataclass(frozen=True)
class Missing:
    """A part of the official layout that the folder lacks.

    Attributes:
        what: the file or folder, or the counts of files that are present and expected.
        source: what to download, and from where.
    """

    what: str
    source: str

    def __str__(self) -> str:
        return f"{self.what}; {self.source}"


class Dataset(Protocol):
    """Images with ground truth. The constructor stores its options and reads no file."""

    def check(self) -> list[Missing]:
        """Return the missing parts of the official layout and where to get them; empty if it is complete."""
        ...

    def names(self) -> list[str]:
        """Return the names of all images with ground truth, in a fixed order, without decoding any.

        Raises InputError if there are none.
        """
        ...

    def load(self, name: str) -> Sample:
        """Read one image. Raises InputError if it is unknown, missing or damaged."""
        ...


def require_some(names: Iterable[str], dataset: Dataset, where: Path) -> list[str]:
    """Return the names as a list.

    Raises:
        InputError: if there are none, with the first missing part.
    """
    listed = list(names)
    if not listed:
        missing = dataset.check()
        reason = f": {missing[0]}" if missing else ""
        raise InputError(f"{where}: no image with ground truth there{reason}")
    return listed


def require_file(path: Path, source: str) -> Path:
    """Return the path. Raises InputError with the file's source if there is no such file."""
    if not os.path.isfile(path):  # Path.is_file raises an error for a name that is too long
        raise InputError(f"{path}: no such file; {source}")
    return path


def split_name(name: str, parts: int, example: str) -> list[str]:
    """Return the parts of an image's name. Raises InputError unless there are as many as in the example."""
    words = name.split("/")
    if len(words) != parts or not all(words) or ".." in words:
        raise InputError(f"'{name}' is not an image of this data set; names look like '{example}'")
    return words


def unknown_name(name: str, names: Sequence[str]) -> InputError:
    """Return the error for a name that a data set does not have."""
    return InputError(f"'{name}' is not an image of this data set{nearest(name, names)}")


def read_grey16(path: Path, source: str) -> NDArray[np.uint16]:
    """Read the integers of a 16-bit grey PNG, (H, W).

    Raises:
        InputError: the file is missing or damaged, or was converted to 8 bits or to colour.
    """
    return io.load_grey16(require_file(path, source))


def same_size(sample: Sample, photo: tuple[int, int]) -> Sample:
    """Return the sample. Raises InputError unless its arrays have the photo's (height, width)."""
    for what, array in (("truth", sample.truth), ("mask", sample.mask), ("normals", sample.normals)):
        if array is not None and array.shape[:2] != photo:
            raise InputError(f"{sample.name}: the {what} is {array.shape[:2]} and the photo {photo}")
    return sample
