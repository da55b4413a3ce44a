"""The camera: from a pixel and its depth to a point, and the directions in which a surface is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CameraKind = Literal["orthographic", "pinhole", "spherical"]

PixelCentres = Literal["half", "integer"]
"""Where the centre of the top left pixel is: ``half``, at (0.5, 0.5), as here, in COLMAP and in OpenGL;
``integer``, at (0, 0), as in OpenCV."""

_CENTRE_SHIFT: dict[PixelCentres, float] = {"half": 0.0, "integer": 0.5}


@dataclass(frozen=True)
class Camera:
    r"""The map from a pixel's relative depth to a point: x right, y up, z away from the camera.

    Orthographic (no argument, the paper's): P = (u, v, z) with u from -W/H to W/H along columns and v
    from 1 (top) to -1 (bottom) along rows. Pinhole: P = (z u, z v, z) with

    .. math:: u = \frac{(j + 1/2) / W - c_x}{f_x}, \qquad v = -\frac{(i + 1/2) / H - c_y}{f_y}

    so that scaling z scales the scene and does not change its normals. Spherical: the depth is the distance
    r along the ray, and P = r d with

    .. math:: d = (\cos v \sin u, \sin v, \cos v \cos u), \qquad
        u = 2 \pi \Big(\frac{j + 1/2}{W} - \frac{1}{2}\Big), \qquad
        v = \pi \Big(\frac{1}{2} - \frac{i + 1/2}{H}\Big)

    for azimuth u and elevation v: an equirectangular picture of all directions (360 x 180 degrees), whose
    left and right edges meet behind the camera. The z axis goes through its centre.

    Args:
        field_of_view: of a pinhole, horizontal, in degrees, in (0, 180): square pixels, centred axis.
        intrinsics: of a pinhole, f_x, f_y, c_x, c_y in units of the picture's width (x) and height (y), so
            that they hold at any resolution: f_x pixels / W, f_y pixels / H, and (0.5, 0.5) for a centred
            axis. `from_pixels` takes them in pixels.
        spherical: whether the picture shows all directions.
        margin: m of a spherical camera whose picture goes on beyond one turn (`ops.panorama.extend`): the
            share of a turn that either side repeats of the other; azimuths are then 1 + 2 m times as wide.

    Raises:
        ValueError: for two of the first three, a field of view outside (0, 180), a focal length <= 0 or
            other than four finite intrinsics, or a margin outside [0, 1/2].
    """

    field_of_view: float | None = None
    intrinsics: tuple[float, ...] | None = None
    spherical: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.field_of_view is not None and self.intrinsics is not None:
            raise ValueError("field_of_view and intrinsics both set the focal length: give one")
        if self.spherical and self.pinhole:
            raise ValueError("a spherical camera sees all directions: it has no field_of_view or intrinsics")
        if not 0 <= self.margin <= (0.5 if self.spherical else 0):
            raise ValueError(f"margin must be in [0, 0.5], and 0 if not spherical, got {self.margin}")
        if self.field_of_view is not None and not 0 < self.field_of_view < 180:
            raise ValueError(f"field_of_view must be in (0, 180) degrees, got {self.field_of_view}")
        if self.intrinsics is not None and not _are_intrinsics(self.intrinsics):
            raise ValueError(
                f"intrinsics must be four numbers (fx, fy, cx, cy) with fx and fy > 0, got {self.intrinsics}"
            )

    @classmethod
    def from_pixels(
        cls,
        fx: float,
        fy: float,
        cx: float,
        cy: float,
        height: int,
        width: int,
        *,
        centres: PixelCentres = "half",
    ) -> Camera:
        """Return the pinhole with these intrinsics in pixels of a picture of this size.

        Args:
            fx: focal length in widths of a pixel.
            fy: focal length in heights of a pixel.
            cx: column coordinate of the point that the optical axis goes through.
            cy: its row coordinate.
            height: of the picture that the intrinsics belong to.
            width: of that picture.
            centres: where (cx, cy) have the centre of the top left pixel.

        Raises:
            ValueError: if they are not finite, or a focal length is not positive.
        """
        shift = _CENTRE_SHIFT[centres]
        return cls(intrinsics=(fx / width, fy / height, (cx + shift) / width, (cy + shift) / height))

    @property
    def kind(self) -> CameraKind:
        """Which of the three maps it is."""
        if self.spherical:
            return "spherical"
        return "pinhole" if self.pinhole else "orthographic"

    @property
    def pinhole(self) -> bool:
        """Whether all rays meet in one point and the picture is a plane."""
        return self.field_of_view is not None or self.intrinsics is not None

    @property
    def closed(self) -> bool:
        """Whether the left and right edge of the picture are neighbours."""
        return self.spherical and self.margin == 0

    def normalized_intrinsics(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the pinhole's f_x, f_y, c_x, c_y in units of width and height.

        Raises:
            ValueError: if it is not a pinhole.
        """
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            return fx, fy, cx, cy
        if self.field_of_view is None:
            raise ValueError(f"the camera is {self.kind}: only a pinhole has intrinsics")
        focal = 0.5 / math.tan(math.radians(self.field_of_view) / 2)
        return focal, focal * width / height, 0.5, 0.5

    def intrinsics_in_pixels(
        self, height: int, width: int, *, centres: PixelCentres = "half"
    ) -> tuple[float, float, float, float]:
        """Return the pinhole's f_x, f_y, c_x, c_y in pixels of a picture, the inverse of `from_pixels`.

        Raises:
            ValueError: if it is not a pinhole.
        """
        fx, fy, cx, cy = self.normalized_intrinsics(height, width)
        shift = _CENTRE_SHIFT[centres]
        return fx * width, fy * height, cx * width - shift, cy * height - shift

    def of_picture(self, height: int, width: int) -> Camera:
        """Return the camera of a picture of this size, which holds for the same picture at other sizes.

        A field of view says that pixels are square. Those of a resized picture are not, where its sides were
        rounded: intrinsics in units of its width and height stay as they are.
        """
        if self.field_of_view is None:
            return self
        return Camera(intrinsics=self.normalized_intrinsics(height, width))

    def field_of_view_degrees(self, height: int, width: int) -> tuple[float, float] | None:
        """Return the horizontal and vertical angle between the outer edges of a picture of this size.

        None for an orthographic camera, whose rays are parallel.
        """
        if self.spherical:
            return 360.0 * (1 + 2 * self.margin), 180.0
        if not self.pinhole:
            return None
        fx, fy, cx, cy = self.normalized_intrinsics(height, width)
        horizontal, vertical = (
            math.degrees(math.atan(centre / focal) + math.atan((1 - centre) / focal))
            for focal, centre in ((fx, cx), (fy, cy))
        )
        return horizontal, vertical

    def axes(
        self,
        height: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return u (W,) and v (H,), which are angles in radians for a spherical camera.

        An orthographic single column or row lies at -W/H or 1.
        """
        if self.kind == "orthographic":
            aspect = width / height
            u = torch.linspace(-aspect, aspect, width, dtype=dtype, device=device)
            return u, torch.linspace(1.0, -1.0, height, dtype=dtype, device=device)
        column = torch.arange(width, dtype=dtype, device=device)
        row = torch.arange(height, dtype=dtype, device=device)
        if self.spherical:
            turn = 2 * math.pi * (1 + 2 * self.margin)
            return ((column + 0.5) / width - 0.5) * turn, (0.5 - (row + 0.5) / height) * math.pi
        fx, fy, cx, cy = self.normalized_intrinsics(height, width)
        return ((column + 0.5) / width - cx) / fx, -((row + 0.5) / height - cy) / fy

    def view(self, height: int, width: int, *, like: Tensor) -> Tensor:
        """Return unit vectors from the surface to the camera, in the frame of `normals_from_depth`.

        (1, 3, H, W) for a pinhole; (1, 3, 1, 1), the z axis, for an orthographic camera and, whose normals
        are in the frame of each ray, for a spherical one.
        """
        if not self.pinhole:
            return axis(2, like)
        u, v = self.axes(height, width, dtype=like.dtype, device=like.device)
        rays = torch.stack(
            [-u.expand(height, width), -v[:, None].expand(height, width), torch.ones_like(u * v[:, None])]
        )
        return (rays / torch.linalg.vector_norm(rays, dim=0))[None]


def axis(which: int, like: Tensor) -> Tensor:
    """Unit vector (1, 3, 1, 1) along an axis, made on the device: a copy from the host would stall it."""
    return torch.eye(3, dtype=like.dtype, device=like.device)[which].view(1, 3, 1, 1)


def ray_frames(camera: Camera, height: int, width: int, *, like: Tensor) -> Tensor:
    r"""Return the frame of each ray of a spherical camera, (3, 3, H, W): [k] is its k-th unit vector.

    .. math:: e_1 = (\cos u, 0, -\sin u), \qquad e_2 = (-\sin v \sin u, \cos v, -\sin v \cos u), \qquad
        e_3 = (\cos v \sin u, \sin v, \cos v \cos u)

    to the right along the row, up along the column and away from the camera along the ray, in the frame of
    points (x right, y up, z away from the camera at the centre of the picture).
    """
    azimuth, elevation = camera.axes(height, width, dtype=like.dtype, device=like.device)
    u, v = azimuth.expand(height, width), elevation[:, None].expand(height, width)
    right = torch.stack([u.cos(), torch.zeros_like(u), -u.sin()])
    up = torch.stack([-v.sin() * u.sin(), v.cos(), -v.sin() * u.cos()])
    away = torch.stack([v.cos() * u.sin(), v.sin(), v.cos() * u.cos()])
    return torch.stack([right, up, away])


def _are_intrinsics(values: tuple[float, ...]) -> bool:
    return len(values) == 4 and all(map(math.isfinite, values)) and min(values[:2]) > 0


ORTHOGRAPHIC = Camera()

SPHERICAL = Camera(spherical=True)
"""Sees all directions: the picture is an equirectangular panorama."""
