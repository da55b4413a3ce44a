"""Options of what is given with each photo: its camera and its files."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redepth.errors import ConfigError, InputError
from redepth.literals import CameraName, NormalsFrame

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.config import Preset
    from redepth.io import Intrinsics
    from redepth.photo_inputs import CameraInput, PhotoInputs

FieldOfView = Annotated[
    float | None,
    typer.Option(
        "--fov",
        metavar="DEG",
        min=0.001,
        max=179,
        help="Horizontal field of view of the camera in degrees; undistorted photos, as for --intrinsics.",
    ),
]
IntrinsicsOption = Annotated[
    str | None,
    typer.Option(
        "--intrinsics",
        metavar="FX,FY,CX,CY|FILE|FOLDER",
        help="Camera in pixels of the photo, the centre of the top left one at (0, 0); or a file: a 3 x 3 "
        "matrix, JSON or COLMAP's cameras.txt; or a folder of them. Lens distortion is out of scope: "
        "undistort first.",
    ),
]
CameraOption = Annotated[
    CameraName | None,
    typer.Option(
        "--camera",
        help="Camera from the photo's EXIF (35 mm equivalent), by the depth model, or orthographic; by "
        "default the renderer's of the preset.",
    ),
]
PanoramaOption = Annotated[
    bool,
    typer.Option(
        "--panorama",
        help="The photos are panoramas of 360 x 180 degrees (equirectangular, twice as wide as high): left "
        "and right edge fit together, and depth is the distance along the ray.",
    ),
]
SkyMaskOption = Annotated[
    Path | None,
    typer.Option(
        "--sky-mask",
        help="Where the sky is: picture (white) or npy; for several photos, a folder of them.",
    ),
]

AnchorsOption = Annotated[
    Path | None,
    typer.Option(
        "--anchors",
        metavar="FILE|FOLDER",
        help="Known points, which give metres: a table of x,y,metres (csv), a sparse depth map (KITTI "
        "png, npy, exr), or a folder of COLMAP's images and points3D; for several photos, a folder of files.",
    ),
]
GuideOption = Annotated[
    bool, typer.Option("--guide", help="The known points of --anchors also pull on the surface.")
]

NormalsOption = Annotated[
    Path | None,
    typer.Option(
        "--normals",
        metavar="FILE|FOLDER|marigold",
        help="Map of normals that guides: picture of (n + 1) / 2, or npy (H, W, 3); or marigold: a diffusion "
        "model estimates them. It adds an objective.",
    ),
]
NormalsFrameOption = Annotated[
    NormalsFrame,
    typer.Option(
        "--normals-frame",
        help="Frame of --normals: redepth and opengl: y up, z to the viewer; opencv: y down, z away.",
    ),
]
PlanesOption = Annotated[
    Path | None,
    typer.Option(
        "--planes",
        metavar="FILE|FOLDER",
        help="Regions that are planes: labels, 0 for none, every other value one plane; adds an objective.",
    ),
]

AlbedoOption = Annotated[
    str | None,
    typer.Option(
        "--albedo",
        metavar="NAME|FILE|FOLDER",
        help="What is re-lit: photo (the paper's), grey, marigold-intrinsics (an estimate), or a file of the "
        "albedo; for several photos, a folder of files. Pictures are sRGB; npy, pfm and exr are linear.",
    ),
]


@dataclass
class GivenInputs:
    """What is given with the photos of a call.

    Attributes:
        inputs: of each photo, not read yet.
        problems: photo -> why its inputs cannot be found.
    """

    inputs: dict[Path, PhotoInputs] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)

    def check(self, preset: Preset) -> None:
        """Raise ConfigError if a component of a preset cannot do with one of the cameras."""
        from redepth.components import check_camera
        from redepth.ops.camera import Camera

        for camera in {given.camera for given in self.inputs.values()}:
            if isinstance(camera, Camera) or camera == "model":
                check_camera(preset, camera)


def given_inputs(
    paths: Sequence[Path],
    *,
    fov: float | None = None,
    intrinsics: str | None = None,
    camera: CameraName | None = None,
    panorama: bool = False,
    sky_mask: Path | None = None,
    max_pixels: int = 100_000_000,
    anchors: Path | None = None,
    normals: Path | None = None,
    normals_frame: NormalsFrame = "redepth",
    planes: Path | None = None,
) -> GivenInputs:
    """Find what the options give with each photo; files are not read yet.

    Raises:
        ConfigError: the options contradict each other, or do not fit the number of photos.
        InputError: a file that belongs to one photo is given for several.
    """
    from redepth.photo_inputs import PhotoInputs

    cameras = _cameras(paths, fov, intrinsics, camera, panorama, max_pixels)
    masks = _files_of(paths, sky_mask, "--sky-mask")
    points = _points_of(paths, anchors)
    oriented, flat = _files_of(paths, normals, "--normals"), _files_of(paths, planes, "--planes")
    given = GivenInputs()
    for path in paths:
        options: dict[str, Container[Path]] = {
            "--intrinsics": cameras,
            "--sky-mask": masks,
            "--anchors": points,
            "--normals": oriented,
            "--planes": flat,
        }
        missing = next((option for option, found in options.items() if path not in found), None)
        if missing is not None:
            given.problems[path] = (
                f"{missing}: its folder must hold one file of this photo's name, whatever the suffix"
            )
            continue
        chosen, origin = cameras[path]
        given.inputs[path] = PhotoInputs(
            chosen, origin, masks[path], points[path], oriented[path], normals_frame, flat[path]
        )
    return given


def estimates_normals(normals: Path | None, frame: NormalsFrame) -> bool:
    """Return whether ``--normals`` names the model that estimates them, and no file.

    Raises:
        ConfigError: a file or folder has that name, or a frame is given, which the model knows.
    """
    from redepth.depth_models.marigold_normals import MARIGOLD, check_frame

    if normals is None or str(normals) != MARIGOLD:
        return False
    if normals.exists():
        raise ConfigError(
            f"--normals {MARIGOLD} is the model, and here is a file or folder of that name: give its whole "
            f"path, or set optim.objectives.normals.source={MARIGOLD}"
        )
    check_frame(frame)
    return True


def _files_of(paths: Sequence[Path], given: Path | None, option: str) -> dict[Path, Path | None]:
    """Return the file of each photo; None where the option is not given; no entry where a file is missing."""
    from redepth import io

    return dict.fromkeys(paths) if given is None else {**io.companions(paths, given, option)}


def _points_of(paths: Sequence[Path], given: Path | None) -> dict[Path, Path | None]:
    """Return the known points of each photo; a COLMAP folder has those of all photos."""
    if given is not None and any((given / name).is_file() for name in ("images.bin", "images.txt")):
        return dict.fromkeys(paths, given)
    return _files_of(paths, given, "--anchors")


def _cameras(
    paths: Sequence[Path],
    fov: float | None,
    intrinsics: str | None,
    camera: CameraName | None,
    panorama: bool,
    max_pixels: int,
) -> dict[Path, tuple[CameraInput | None, str]]:
    """Return the camera of each photo and the option it is from; no entry where a file is missing."""
    from redepth.ops.camera import SPHERICAL, Camera

    if sum([*(option is not None for option in (fov, intrinsics, camera)), panorama]) > 1:
        raise ConfigError(
            "--fov, --intrinsics, --camera and --panorama each give the camera: give one of them"
        )
    if panorama:
        return dict.fromkeys(paths, (SPHERICAL, "--panorama"))
    if intrinsics is not None:
        return {
            path: (chosen, "--intrinsics")
            for path, chosen in _pinholes(paths, intrinsics, max_pixels).items()
        }
    if fov is not None:
        return dict.fromkeys(paths, (Camera(field_of_view=fov), "--fov"))
    return dict.fromkeys(paths, (camera, "--camera"))


def _pinholes(paths: Sequence[Path], given: str, max_pixels: int) -> dict[Path, Intrinsics | Path]:
    from redepth import io

    if os.path.isdir(given):
        return {**io.companions(paths, given, "--intrinsics", io.INTRINSICS_SUFFIXES)}
    one: Intrinsics | Path
    if os.path.isfile(given) or "," not in given:
        one = Path(given)
        named = io.load_intrinsics(one).width is not None
    else:
        one, named = io.parse_intrinsics(given), False
    if not named:
        _check_one_size(paths, max_pixels)
    return dict.fromkeys(paths, one)


def _check_one_size(paths: Sequence[Path], max_pixels: int) -> None:
    """Raise ConfigError if the photos have several sizes; one that cannot be read is reported later."""
    from redepth import io

    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            sizes.setdefault(io.image_size(path, max_pixels=max_pixels), path)
        except InputError:
            continue
    if len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise ConfigError(
            f"--intrinsics holds for photos of one size: {first} has {one[1]} x {one[0]}, {second} has "
            f"{other[1]} x {other[0]}; give a folder with a file of each photo's name"
        )
