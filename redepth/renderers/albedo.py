"""The albedo that a renderer lights: the photo, a grey, Marigold's estimate, or a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import io
from redepth.errors import InputError
from redepth.literals import AlbedoName
from redepth.ops import color, panorama
from redepth.renderers.intrinsics import MarigoldIntrinsics

GIVEN_ARRAY = "<array>"
"""The source of albedos that are passed as arrays (`redepth.refine`'s ``albedo``)."""


class AlbedoSource:
    """Finds the albedo of each photo, one after the other.

    Args:
        source: one of `AlbedoName`; a file, or a folder with a file of each photo's name; or `GIVEN_ARRAY`.
        grey: linear, of the source ``grey``.
        intrinsics: of the source ``marigold-intrinsics``.
    """

    def __init__(self, source: str, grey: float, intrinsics: MarigoldIntrinsics) -> None:
        self._name, self._grey, self._intrinsics = source, grey, intrinsics
        self._photo: Path | None = None
        self._array: NDArray[Any] | None = None
        self._found: Tensor | None = None
        self._record: dict[str, Any] = {}

    @property
    def _is_file(self) -> bool:
        return self._name not in (*get_args(AlbedoName), GIVEN_ARRAY)

    @property
    def _estimates(self) -> bool:
        return self._name == "marigold-intrinsics"

    @property
    def _location(self) -> Path:
        return Path(os.path.expanduser(self._name))  # Path.expanduser fails for a user who is not

    def ensure_available(self) -> None:
        """Raise InputError if there is no such file or folder, WeightsError if there are no weights."""
        if self._estimates:
            self._intrinsics.ensure_available()
        if self._is_file and not os.path.exists(self._location):
            raise InputError(
                f"renderer.albedo={self._name}: no such file or folder, and none of "
                f"{', '.join(get_args(AlbedoName))}; check the path"
            )

    def load(self) -> None:
        """Load the weights, if the source has some. Raises WeightsError."""
        if self._estimates:
            self._intrinsics.load()

    def next_photo(self, source: Path | None) -> None:
        """Set the file of the next photo; None if it has none. Raises InputError: it has no albedo."""
        self._photo, self._array, self._found = source, None, None
        if self._is_file:
            self._file_of(source)

    def take(self, values: NDArray[Any] | None) -> None:
        """Set the next photo's albedo, (h, w, 3) or (h, w): floats are linear, uint8 is sRGB.

        Raises:
            InputError: it is neither in a file nor given, or both, or no albedo.
        """
        if values is None and self._name == GIVEN_ARRAY:
            raise InputError(
                f"renderer.albedo={GIVEN_ARRAY}: Python passes the albedo, as albedo= of refine; name a file"
            )
        if values is not None and self._name != GIVEN_ARRAY:
            raise InputError(f"albedo= is an array, and renderer.albedo names {self._name}; give one of them")
        self._array = None if values is None else _linear_of_array(values)
        self._found = None

    def check(self, photo: Path | None, height: int, width: int, photos: int = 1) -> None:
        """Read the file of a photo's albedo, if there is one, and check that it fits the photo.

        Raises:
            InputError: there is none, it cannot be read or does not fit, or one file is for several photos.
        """
        if not self._is_file:
            return
        if photos > 1 and not os.path.isdir(self._location):
            raise _shared(self._name, photos)
        self._read(self._file_of(photo), height, width)

    def find(self, photo: Tensor, image: Tensor, margin: float, seed: int) -> Tensor | None:
        """Return the albedo of the photo, as `redepth.contracts.LightsAlbedo.find_albedo` says."""
        self._found, self._record = None, {"albedo": self._name}
        if self._name == "grey":
            self._found = torch.full_like(image[:, :, :1, :1], self._grey).expand_as(image)
        elif self._name != "photo":
            height, width = image.shape[-2:]
            if self._estimates:
                # Of the extended photo, so that the edges of a panorama fit together.
                whole, margin = self._intrinsics.albedo(photo, image, seed), 0.0
                self._record |= self._intrinsics.describe()
            else:
                whole = self._given(photo.shape[-2], round(photo.shape[-1] / (1 + 2 * margin)))
            self._found = panorama.fit(whole.to(image), height, width, margin)
        return self._found

    def of(self, linear: Tensor) -> Tensor:
        """Return the albedo to light, (B or 1, 3, H, W).

        Args:
            linear: (B or 1, 3, H, W) the photo's linear colours at network size.

        Raises:
            InputError: the albedo was not found yet, or for another size.
        """
        if self._name == "photo":
            return linear
        if self._name == "grey":
            return torch.full_like(linear[:, :, :1, :1], self._grey).expand_as(linear)
        if self._found is None or self._found.shape[-2:] != linear.shape[-2:]:
            raise InputError(
                f"renderer.albedo={self._name}: the albedo of this photo is not known; refine the photo by "
                "redepth.refine or a Pipeline, or call find_albedo first"
            )
        return self._found.to(linear)

    def describe(self) -> dict[str, Any]:
        """Return where the last albedo is from: the source, and its file's hash or its checkpoint."""
        return dict(self._record or {"albedo": self._name})

    def _given(self, height: int, width: int) -> Tensor:
        """Return the albedo of a file or an array, (1, 3, h, w); it must have the photo's aspect ratio."""
        if self._name == GIVEN_ARRAY:
            if self._array is None:
                self.take(None)
            assert self._array is not None
            io.check_aspect(Path("albedo"), "albedo", self._array.shape[:2], (height, width))
            values = self._array
        else:
            path = self._file_of(self._photo)
            # First: a file that changes meanwhile differs from its hash.
            self._record |= {"file": io.as_text(path.resolve()), "sha256": io.sha256_of(path)}
            values = self._read(path, height, width)
        return torch.from_numpy(values).permute(2, 0, 1)[None]

    def _file_of(self, photo: Path | None) -> Path:
        self.ensure_available()
        location = self._location
        if not os.path.isdir(location):
            return location
        if photo is None:
            raise InputError(f"{location}: the photo is not a file, so it has no name to find its albedo by")
        found = io.companions([photo], location, "albedo")
        if not found:
            raise InputError(
                f"{photo}: {location} must hold one albedo of its name, {photo.stem}, whatever the suffix"
            )
        return next(iter(found.values()))

    @staticmethod
    def _read(path: Path, height: int, width: int) -> NDArray[np.float32]:
        if path.suffix.lower() in io.LINEAR_SUFFIXES:
            values = io.load_linear(path)
        else:
            values = _decoded(io.load_photo(path, opaque=True))
        io.check_aspect(path, "albedo", values.shape[:2], (height, width))
        return values


def check_apart(source: str, photos: Sequence[Path]) -> None:
    """Refuse, before any work, a file that would be lit on several photos.

    Args:
        source: as of `AlbedoSource`.
        photos: all photos of a call.

    Raises:
        InputError: the source is one file and there are several photos, or two photos have one name.
    """
    if source in get_args(AlbedoName):
        return
    location = os.path.expanduser(source)
    if not os.path.isdir(location):
        if len(photos) > 1:
            raise _shared(source, len(photos))
        return
    named: dict[str, Path] = {}
    for photo in photos:
        other = named.setdefault(photo.stem, photo)
        if other is not photo and other.resolve() != photo.resolve():
            raise InputError(
                f"{other} and {photo}: {location} has one albedo for both, by their name {photo.stem}; "
                "rename one of them"
            )


def _shared(source: str, photos: int) -> InputError:
    return InputError(
        f"{source}: an albedo belongs to one photo, {photos} were given; give a folder with a file of each "
        "photo's name"
    )


def _decoded(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the linear colours of sRGB ones."""
    linear: NDArray[np.float32] = color.srgb_to_linear(torch.from_numpy(srgb)).numpy()
    return linear


def _linear_of_array(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype == np.uint8:
        if values.ndim == 3 and values.shape[2] in (2, 4):
            raise InputError(
                f"albedo: has shape {values.shape}, with opacity; what is transparent has no albedo: give "
                "(H, W, 3)"
            )
        return _decoded(io.photo_of_array(values))
    return io.linear_of_array(values)
