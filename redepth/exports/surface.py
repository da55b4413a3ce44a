"""The refined surface as points in space, and where it is torn."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth.exports.source import Array, Source, metres_are_known
from redepth.ops.camera import Camera
from redepth.ops.geometry import point_map

log = logging.getLogger(__name__)

Bool = NDArray[np.bool_]
Indices = NDArray[np.intp]

EDGE = 0.05
"""The largest step between neighbours at the network's size, relative to the nearer one, that is no edge."""


@dataclass(frozen=True)
class Surface:
    """Depth and the camera that it is seen by.

    Attributes:
        depth: (H, W), unknown where it is not finite or not positive.
        camera: of the photo.
        unit: of depth and points: ``metres``, or ``relative``.
        reach: distance in pixels at which neighbours are compared: one pixel of the network. An edge that
            the network blurs over one of its pixels is a gentle slope between pixels of a larger photo.
    """

    depth: Array
    camera: Camera
    unit: Literal["metres", "relative"] = "relative"
    reach: int = 1

    @classmethod
    def of(cls, source: Source, name: Literal["initial", "refined"] = "refined") -> Surface:
        """Return the refined or the initial surface, in metres where all three coordinates have them.

        An orthographic camera has no unit for x and y: its surface stays relative.
        """
        reach = max(1, round(source.photo.shape[1] / source.network_size[1]))
        metres = source.metres_of(name) if source.camera.kind != "orthographic" else None
        if metres is not None:
            return cls(metres, source.camera, "metres", reach)
        if metres_are_known(source):
            log.warning(
                "points and meshes are relative: depth has metres, but x and y of an orthographic camera "
                "have none; give --fov"
            )
        return cls(
            source.map_of("depth" if name == "refined" else "initial_depth"), source.camera, "relative", reach
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.depth.shape
        return height, width

    def points(self, rows: Indices, columns: Indices) -> Array:
        """Return the points of some rows and columns, (rows, columns, 3): x right, y up, z to the viewer.

        They are those of `ops.geometry.point_map` with the sign of z changed: the frame of glTF, whose camera
        looks along -z. A closed panorama has a column W, which is column 0.
        """
        depth = self.depth[rows][:, columns % self.size[1]]
        seen = _Sampled(**vars(self.camera), whole=self.size, rows=rows, columns=columns)
        points = point_map(torch.from_numpy(depth)[None, None], seen)[0].permute(1, 2, 0).numpy()
        points[..., 2] *= -1
        return points

    def intact(self, rows: Indices, columns: Indices, limit: float = EDGE) -> Bool:
        r"""Return where the surface is known and not torn, (rows, columns).

        Depth networks blur the edges of objects to pixels that float between foreground and background. A
        pixel is torn if its depth z and the depth z' of one of the four pixels at the distance `reach` differ
        by more than a share c of the nearer one,

        .. math:: |z - z'| > c \min(z, z').

        That depends neither on the unknown scale of relative depth nor on how far the scene reaches.
        """
        height, width = self.size
        here = self.depth[rows][:, columns % width]
        intact = _valid(here)
        for offset in (-self.reach, self.reach):
            # At the border a pixel is its own neighbour.
            above = np.clip(rows + offset, 0, height - 1)
            beside = columns + offset
            beside = beside % width if self.camera.closed else np.clip(beside, 0, width - 1)
            intact &= ~_jumps(here, self.depth[above][:, columns % width], limit)
            intact &= ~_jumps(here, self.depth[rows][:, beside], limit)
        return intact


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sampled(Camera):
    """A camera that sees some rows and columns of a picture of a size, ``whole``."""

    whole: tuple[int, int]
    rows: Indices
    columns: Indices

    def axes(self, height: int, width: int, **options: Any) -> tuple[Tensor, Tensor]:
        """Return the entries of the whole picture's axes."""
        u, v = super().axes(*self.whole, **options)
        return u[torch.from_numpy(self.columns % self.whole[1])], v[torch.from_numpy(self.rows)]


def _valid(z: Array) -> Bool:
    return np.isfinite(z) & (z > 0)


def _jumps(z: Array, other: Array, limit: float) -> Bool:
    """Return where two valid depths differ by more than the relative step."""
    near, far = np.minimum(z, other), np.maximum(z, other)
    with np.errstate(invalid="ignore"):
        jumps: Bool = far - near > limit * near
    return jumps & _valid(z) & _valid(other)
