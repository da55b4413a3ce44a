"""A photo and what is given with it: decoded, read, hashed and checked in one place, before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from redepth import io
from redepth.errors import InputError, brief
from redepth.guidance import Anchors, Given, NormalMap, PhotoData, Planes, SkyMask
from redepth.io import Intrinsics
from redepth.literals import CameraName, NormalsFrame
from redepth.ops import panorama
from redepth.ops.camera import ORTHOGRAPHIC, Camera

CameraInput = Camera | Intrinsics | Path | CameraName
"""How a camera is given: as one, as numbers in pixels, as the file of such numbers, or by name."""


@dataclass(frozen=True, eq=False)
class DecodedPhoto:
    """The pixels of a photo, and the file that they are from.

    Attributes:
        pixels: (H, W, 3) sRGB, float32 in [0, 1] or uint8.
        source: the file; None for an array.
    """

    pixels: NDArray[np.float32] | NDArray[np.uint8]
    source: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def values(self) -> NDArray[np.float32]:
        """The pixels as float32 in [0, 1]."""
        values = self.pixels.astype(np.float32, copy=False)
        if self.pixels.dtype == np.uint8:
            values /= 255.0  # in place: a second copy of 100 megapixels would take another 1.2 GB
        return values


def decode(photo: str | Path | ArrayLike | DecodedPhoto, max_pixels: int = io.MAX_PIXELS) -> DecodedPhoto:
    """Read a photo from its file, or check an array; a decoded photo is returned unchanged.

    Raises:
        InputError: if it cannot be read or used.
    """
    if isinstance(photo, DecodedPhoto):
        return photo
    if isinstance(photo, str | Path):
        return DecodedPhoto(io.load_photo(photo, max_pixels=max_pixels), Path(photo))
    return DecodedPhoto(io.photo_of_array(photo))


@dataclass(frozen=True)
class ChosenCamera:
    """The camera of one photo.

    Attributes:
        camera: as `Given.camera`.
        origin: where it is from, for the record: an option with its file, ``exif``, ``depth model``,
            ``preset`` or ``python``.
    """

    camera: Camera | Literal["model"] | None = None
    origin: str = "preset"


PRESETS_CAMERA = ChosenCamera()
"""The camera of the renderer's options."""


def choose_camera(
    given: CameraInput | ChosenCamera | None, photo: DecodedPhoto, origin: str = "python"
) -> ChosenCamera:
    """Return the camera of a photo; files are read and checked against the photo.

    Args:
        given: the camera in any form; None: the renderer's own.
        photo: decoded.
        origin: where numbers and files are from.

    Raises:
        InputError: if it cannot be read, does not fit the photo, or is no camera.
    """
    if given is None:
        return PRESETS_CAMERA
    if isinstance(given, ChosenCamera):
        return given
    height, width = photo.size
    if isinstance(given, Camera):
        if given.spherical:
            _check_panorama(height, width)
        return ChosenCamera(given, origin)
    if isinstance(given, Path):
        return ChosenCamera(_pinhole(io.load_intrinsics(given), str(given), photo), f"{origin} {given}")
    if isinstance(given, Intrinsics):
        return ChosenCamera(_pinhole(given, origin, photo), origin)
    if given == "orthographic":
        return ChosenCamera(ORTHOGRAPHIC, origin)
    if given == "model":
        return ChosenCamera("model", "depth model")
    if given != "exif":
        raise InputError(
            f"camera must be a redepth.ops.camera.Camera, orthographic, exif or model, got {brief(given)}"
        )
    if photo.source is None:
        raise InputError("camera exif: the photo is an array and has no EXIF; give a Camera")
    focal = io.exif_focal_length(photo.source, height, width)
    return ChosenCamera(Camera.from_pixels(focal, focal, width / 2, height / 2, height, width), "exif")


def _check_panorama(height: int, width: int) -> None:
    try:
        panorama.check_shape(height, width)
    except ValueError as error:
        raise InputError(str(error)) from None


def _pinhole(intrinsics: Intrinsics, what: str, photo: DecodedPhoto) -> Camera:
    height, width = photo.size
    intrinsics.check(what, height, width)
    return Camera.from_pixels(
        intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy, height, width, centres="half"
    )


@dataclass(frozen=True, eq=False)
class LoadedInputs:
    """What is given with one photo, read and checked against it.

    Attributes:
        camera: the chosen one.
        data: for objectives.
    """

    camera: ChosenCamera = PRESETS_CAMERA
    data: tuple[PhotoData, ...] = ()

    @property
    def given(self) -> Given:
        """The same, as the refiner takes it."""
        return Given(self.camera.camera, self.data)

    @property
    def nbytes(self) -> int:
        """Size of the masks in memory."""
        return sum(record.mask.nbytes for record in self.data if isinstance(record, SkyMask))


NOTHING_LOADED = LoadedInputs()
"""The preset's camera, and no data."""


@dataclass(frozen=True)
class PhotoInputs:
    """What is given with one photo, by options and files that are not read yet.

    A new kind of data is a field here, with its file in `files` and its record in `load`.

    Attributes:
        camera: None: the renderer's own.
        camera_origin: the option that gives the camera.
        sky_mask: file of the sky mask; without one the sky is detected.
        anchors: file of known points, or a COLMAP folder.
        normals: file of a map of normals.
        normals_frame: the frame of that map.
        planes: file of labels, each a plane.
    """

    camera: CameraInput | None = None
    camera_origin: str = "python"
    sky_mask: Path | None = None
    anchors: Path | None = None
    normals: Path | None = None
    normals_frame: NormalsFrame = "redepth"
    planes: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files, by the name that messages give them."""
        files = {"the file of intrinsics": self.camera, "the sky mask": self.sky_mask}
        if self.anchors is not None and self.anchors.is_dir():
            names = ("images.bin", "images.txt", "points3D.bin", "points3D.txt")
            found = (self.anchors / name for name in names)
            files |= {f"COLMAP's {path.name}": path for path in found if path.is_file()}
        else:
            files["the known points"] = self.anchors
        files |= {"the map of normals": self.normals, "the planes": self.planes}
        return {name: path for name, path in files.items() if isinstance(path, Path)}

    def hashes(self) -> dict[str, str]:
        """Return the contents that a result depends on: of files their hashes, of numbers themselves."""
        hashes = {name: io.sha256_of(path) for name, path in self.files.items()}
        if self.normals is not None:
            hashes["the frame of normals"] = self.normals_frame
        camera = self.camera
        if isinstance(camera, Camera) and camera.field_of_view is not None:
            hashes["the field of view"] = repr(camera.field_of_view)
        elif camera is not None and not isinstance(camera, Path):
            hashes["the camera"] = camera if isinstance(camera, str) else repr(camera)
        return hashes

    def load(self, photo: DecodedPhoto, max_pixels: int = io.MAX_PIXELS) -> LoadedInputs:
        """Read everything, and check that it fits the photo.

        Raises:
            InputError: if something cannot be read or used.
        """
        camera = choose_camera(self.camera, photo, self.camera_origin)
        data: list[PhotoData] = []
        if self.sky_mask is not None:
            mask = io.load_mask(self.sky_mask, max_pixels=max_pixels, may_be_empty=True)
            data.append(sky_data(mask, photo, f"sky mask '{self.sky_mask}'"))
        if self.anchors is not None:
            data.append(anchor_data(self.anchors, photo, max_pixels))
        if self.normals is not None:
            data.append(normal_data(self.normals, photo, self.normals_frame, max_pixels))
        if self.planes is not None:
            data.append(plane_data(self.planes, photo, max_pixels))
        return LoadedInputs(camera, tuple(data))


NO_INPUTS = PhotoInputs()
"""Nothing is given but the photo."""


def anchor_data(
    anchors: Anchors | str | Path | ArrayLike, photo: DecodedPhoto, max_pixels: int = io.MAX_PIXELS
) -> Anchors:
    """Return known points as data for objectives and for metres.

    Args:
        anchors: a file of `io.load_known_points`, a COLMAP folder of `io.load_colmap_points`, a sparse map
            (H, W) in metres, or rows (N, 3) or (N, 4) of `io.points_of_table`.
        photo: decoded.
        max_pixels: of a map.

    Raises:
        InputError: if they cannot be read or do not fit the photo.
    """
    if isinstance(anchors, Anchors):
        return anchors
    height, width = photo.size
    if isinstance(anchors, str | Path):
        source = io.as_text(anchors)
        if Path(anchors).is_dir():
            if photo.source is None:
                raise InputError("COLMAP's points need the photo's name: give the photo as a file")
            points = io.load_colmap_points(anchors, photo.source.name, height, width)
        else:
            points = io.load_known_points(anchors, height, width, max_pixels=max_pixels)
    else:
        source, values = "python", np.asarray(anchors)
        if values.shape == (height, width):
            points = io.points_of_map(values, height, width, "anchors")
        else:
            points = io.points_of_table(values, height, width, "anchors")
    sigma = None if points.sigma is None else torch.from_numpy(points.sigma)
    x, y, depth = (torch.from_numpy(np.ascontiguousarray(v)) for v in (points.x, points.y, points.depth))
    return Anchors(x, y, depth, sigma, source=source)


def normal_data(
    normals: NormalMap | str | Path | ArrayLike,
    photo: DecodedPhoto,
    frame: NormalsFrame = "redepth",
    max_pixels: int = io.MAX_PIXELS,
) -> NormalMap:
    """Return a map of normals, a file of `io.load_normals` or (H, W, 3), as data for objectives.

    Raises:
        InputError: if it cannot be read or has not the photo's size.
    """
    if isinstance(normals, NormalMap):
        return normals
    named = isinstance(normals, str | Path)
    values = io.load_normals(Path(str(normals)), max_pixels=max_pixels) if named else np.asarray(normals)
    if values.ndim != 3 or values.shape[2] != 3:
        raise InputError(f"normals must be (H, W, 3), got {values.shape}")
    io.check_size("map of normals", values.shape[:2], *photo.size)
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return NormalMap(tensor.permute(2, 0, 1)[None], frame)


def plane_data(
    planes: Planes | str | Path | ArrayLike, photo: DecodedPhoto, max_pixels: int = io.MAX_PIXELS
) -> Planes:
    """Return labels of planes, a file of `io.load_labels` or (H, W) integers, as data for objectives.

    Raises:
        InputError: if they cannot be read or have not the photo's size.
    """
    if isinstance(planes, Planes):
        return planes
    named = isinstance(planes, str | Path)
    labels = io.load_labels(Path(str(planes)), max_pixels=max_pixels) if named else np.asarray(planes)
    io.check_size("map of planes", labels.shape, *photo.size)
    if labels.dtype.kind not in "biu":
        raise InputError(f"planes must be integers, 0 for no plane, got {labels.dtype}")
    return Planes(torch.from_numpy(labels.astype(np.int64)))


def sky_data(mask: ArrayLike, photo: DecodedPhoto, what: str = "sky mask") -> SkyMask:
    """Return a sky mask (H, W), above 0 where there is sky, as data for objectives.

    Raises:
        InputError: if it has not the photo's size.
    """
    values = np.asarray(mask)
    io.check_size(what, values.shape, *photo.size)
    return SkyMask(torch.from_numpy(values > 0)[None, None])
