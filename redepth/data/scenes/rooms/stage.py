"""The stage that a family of scenes is built on: random numbers, the camera and the things in view.

World frame: x right, y up, z forward; the floor is at y = 0 and the camera above the origin. Lengths are in
metres, roughly. Every number is per scene, (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from redepth.data.scenes.rooms.field import Field, flat_field

GONE = -1000.0
"""Height of things that a scene does not have."""


@dataclass(frozen=True)
class Thing:
    """One thing of every scene.

    Attributes:
        kind: of `solids.SOLIDS` or `curved.CURVED`, ``shell`` (a box from inside), ``ground``, ``field``.
        centre: (N, 3).
        half: (N, 3) half of its extent along its own axes.
        turn: (N, 3, 3), columns are its axes in the world.
        skin: number of its material; a shell has the next two as well, for walls and ceiling.
        form: (N, F) parameters of a curved thing; (N, 0) of others.
    """

    kind: str
    centre: Tensor
    half: Tensor
    turn: Tensor
    skin: int
    form: Tensor


Coordinate = Tensor | float


class Stage:
    """Scenes of one family under construction."""

    def __init__(self, count: int, generator: Generator, dtype: torch.dtype = torch.float32) -> None:
        self.count, self.generator, self.dtype = count, generator, dtype
        self.things: list[Thing] = []
        self.skins = 0
        self.field: Field = flat_field(count, dtype)
        self.frame = self.number(0.0)
        self.indoors = True
        self.field_of_view = self.uniform(35, 80)
        self.eye = torch.zeros(count, 3, dtype=dtype)
        self.view = torch.eye(3, dtype=dtype).expand(count, 3, 3)
        self.target = torch.zeros(count, 3, dtype=dtype)

    # --- random numbers ---------------------------------------------------------------------------

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (N, *shape)."""
        return torch.rand(self.count, *shape, generator=self.generator, dtype=self.dtype)

    def uniform(self, low: Coordinate, high: Coordinate, *shape: int) -> Tensor:
        """Uniform numbers, (N, *shape)."""
        return low + (high - low) * self.rand(*shape)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers whose logarithm is uniform, (N, *shape)."""
        return torch.exp(self.uniform(math.log(low), math.log(high), *shape))

    def chance(self, share: float) -> Tensor:
        """True in this share of the scenes, (N,)."""
        return self.rand() < share

    def sign(self) -> Tensor:
        """+1 or -1, (N,)."""
        return 1.0 - 2.0 * (self.rand() < 0.5)

    def whole(self, low: int, high: int) -> int:
        """One whole number for all scenes, from low to high."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def number(self, value: Coordinate) -> Tensor:
        """Return a number for every scene, (N,)."""
        return torch.as_tensor(value, dtype=self.dtype).expand(self.count)

    def vector(self, x: Coordinate, y: Coordinate, z: Coordinate) -> Tensor:
        """Return a vector for every scene, (N, 3)."""
        return torch.stack([self.number(x), self.number(y), self.number(z)], dim=-1)

    # --- the camera -------------------------------------------------------------------------------

    def look(self, height: Coordinate, distance: Coordinate, aim: Coordinate, tilt: float = 4.0) -> None:
        """Put the camera at a height and aim it at the height ``aim`` in a distance, but for some degrees."""
        down = torch.atan2(self.number(height) - aim, self.number(distance))
        pitch = down + self.radians(tilt)
        self.eye = self.vector(0.0, height, 0.0)
        self.view = _about_x(pitch) @ _about_z(self.radians(3.0))
        self.target = self.vector(0.0, aim, distance)

    def radians(self, spread: float) -> Tensor:
        """An angle within this many degrees of 0, in radians."""
        return torch.deg2rad(self.uniform(-spread, spread))

    def across(self, z: Coordinate, reach: float = 0.85) -> Tensor:
        """A random x at a distance z that is in view."""
        return self.uniform(-reach, reach) * z * torch.tan(torch.deg2rad(self.field_of_view) / 2)

    # --- things -----------------------------------------------------------------------------------

    def new_skin(self, number: int = 1) -> int:
        """Return the number of a new material, the first of some."""
        self.skins += number
        return self.skins - number

    def add(
        self,
        kind: str,
        at: tuple[Coordinate, Coordinate, Coordinate],
        half: tuple[Coordinate, Coordinate, Coordinate],
        *,
        yaw: Coordinate = 0.0,
        tumbled: bool = False,
        upright: bool = False,
        skin: int | None = None,
        share: float = 1.0,
        form: Tensor | None = None,
    ) -> None:
        """Add a thing.

        Args:
            kind: as in `Thing`.
            at: its centre, in the frame that is turned about the camera by ``self.frame``.
            half: half of its extent along its own axes.
            yaw: turn about the vertical axis through its centre, in radians.
            tumbled: whether it is then turned at random.
            upright: whether its y axis is turned to point away from the camera.
            skin: its material; None is a new one.
            share: of the scenes that have it.
            form: parameters of a curved thing, (N, F).
        """
        turn = _about_y(self.frame + yaw)
        if tumbled:
            turn = turn @ _about_x(self.radians(180.0)) @ _about_z(self.radians(180.0))
        if upright:
            turn = turn @ _about_x(self.number(-math.pi / 2))
        centre = (_about_y(self.frame) @ self.vector(*at)[..., None])[..., 0]
        size = self.vector(*half)
        # A camera inside of a thing would see it from within.
        inside = ((turn.mT @ (self.eye - centre)[..., None])[..., 0].abs() < 1.15 * size + 0.1).all(dim=-1)
        gone = ~self.chance(share) | (inside & (kind not in ("shell", "ground", "field")))
        centre = torch.where(gone[:, None], self.vector(0.0, GONE, 0.0), centre)
        number = self.new_skin() if skin is None else skin
        none = torch.zeros(self.count, 0, dtype=self.dtype)
        self.things.append(Thing(kind, centre, size, turn, number, none if form is None else form))


def _about_x(angle: Tensor) -> Tensor:
    """Return the rotation (N, 3, 3) that turns z to -y: the camera looks down."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([one, zero, zero, zero, c, -s, zero, s, c], dim=-1).unflatten(-1, (3, 3))


def _about_y(angle: Tensor) -> Tensor:
    """Return the rotation (N, 3, 3) that turns z to x."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).unflatten(-1, (3, 3))


def _about_z(angle: Tensor) -> Tensor:
    """Return the rotation (N, 3, 3) that turns x to y."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
