"""What families are built from: rooms, ground, terrain, loose things, tables, stacks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redepth.data.scenes.rooms.field import Field
from redepth.data.scenes.rooms.stage import Coordinate, Stage

LOOSE = ("box", "ball", "cylinder", "cone", "torus", "superquadric", "blob")


def room(
    s: Stage, width: tuple[float, float], back: tuple[float, float], height: tuple[float, float]
) -> Tensor:
    """Add a closed room around the camera, turned by ``s.frame``.

    Args:
        s: the stage; its camera is set.
        width: range of the distances of the left and the right wall.
        back: range of the distance of the far wall.
        height: range of the room's height.

    Returns:
        (N, 4): distances of the left, right and far wall, and the height.
    """
    left, right = s.uniform(*width), s.uniform(*width)
    behind, far = s.uniform(0.6, 3.0), s.uniform(*back)
    high = torch.maximum(s.uniform(*height), s.eye[:, 1] + 0.3)
    s.add(
        "shell",
        ((right - left) / 2, high / 2, (far - behind) / 2),
        ((left + right) / 2, high / 2, (far + behind) / 2),
        skin=s.new_skin(3),
    )
    return torch.stack([left, right, far, high], dim=-1)


def ground(s: Stage) -> None:
    """Add the ground of a scene outdoors."""
    s.indoors = False
    s.add("ground", (0, 0, 0), (1, 1, 1))


def terrain(
    s: Stage, height: tuple[float, float], length: tuple[float, float], *, clearance: float | None = None
) -> None:
    """Add terrain or cloth of seven waves.

    Args:
        s: the stage; its camera is set.
        height: range of the height of a wave of the greatest length; shorter ones are lower.
        length: least and greatest length of a wave.
        clearance: with a number, the mean height is that of the floor, or so low that the ground near the
            camera is this far below it. None: no ground near the camera is higher than the floor.
    """
    waves = 7
    share = s.rand(waves)
    lengths = length[0] * (length[1] / length[0]) ** share
    angle = s.uniform(0, 2 * math.pi, waves)
    wave = (2 * math.pi / lengths)[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    scale = s.uniform(*height)[:, None] * (lengths / length[1]) ** s.uniform(0.8, 1.3)[:, None]
    field = Field(s.number(0.0), scale / math.sqrt(waves), wave, s.uniform(0, 2 * math.pi, waves))
    near = torch.tensor([[x, 0.0, z] for x in (-0.6, 0.0, 0.6) for z in (0.0, 0.5, 1.0)], dtype=s.dtype).T
    peak = -field.above(near.expand(s.count, 3, -1)).amin(dim=-1)
    base = -peak.abs() if clearance is None else (s.eye[:, 1] - clearance - peak).clamp(max=0.0)
    s.field = Field(base, field.height, field.wave, field.phase)
    s.add("field", (0, 0, 0), (1, 1, 1))


def loose(
    s: Stage,
    kind: str,
    at: tuple[Coordinate, Coordinate],
    size: Tensor,
    *,
    floor: Coordinate = 0.0,
    skin: int | None = None,
    share: float = 1.0,
    tumbled: bool | None = None,
) -> None:
    """Put a thing of about this size (N,) on the floor, at x and z, turned at random."""
    stretch = [s.uniform(0.55, 1.3) for _ in range(3)]
    half = (size * stretch[0], size * stretch[1], size * stretch[2])
    if kind in ("ball", "torus", "blob") or (kind in ("cylinder", "cone") and s.whole(0, 3) > 0):
        half = (size * stretch[0], size * stretch[1], size * stretch[0])
    if kind == "ball" and s.whole(0, 1):
        half = (size, size, size)
    rolls = s.whole(0, 4) == 0 if tumbled is None else tumbled
    rests = torch.stack([s.number(v) for v in half]).amax(dim=0) * 0.8 if rolls else half[1]
    s.add(
        kind,
        (at[0], floor + rests, at[1]),
        half,
        yaw=s.uniform(-math.pi, math.pi),
        tumbled=rolls,
        skin=skin,
        share=share,
        form=form_of(s, kind),
    )


def form_of(s: Stage, kind: str) -> Tensor | None:
    """Draw the parameters of a curved thing."""
    if kind == "torus":
        return s.uniform(0.15, 0.45, 1)
    if kind == "superquadric":
        return s.log_uniform(1.15, 8.0, 2)
    if kind == "blob":
        centres = s.uniform(-0.5, 0.5, 4, 3)
        return torch.cat([centres, s.uniform(0.2, 0.42, 4, 1)], dim=-1).flatten(1)
    return None


def some_kind(s: Stage, kinds: tuple[str, ...] = LOOSE) -> str:
    """Draw a kind, the same for all scenes of the stage."""
    return kinds[s.whole(0, len(kinds) - 1)]


def scattered(
    s: Stage,
    count: int,
    near: Coordinate,
    far: Coordinate,
    size: tuple[float, float],
    *,
    kinds: tuple[str, ...] = LOOSE,
    share: float = 0.85,
    floor: Coordinate = 0.0,
) -> None:
    """Put things at random places in view, one in each band of distance."""
    for index in range(count):
        band = (torch.as_tensor(far) - near) / count
        z = near + band * (index + s.rand())
        radius = s.log_uniform(*size)
        loose(s, some_kind(s, kinds), (s.across(z), z), radius, share=share, floor=floor)


def table(
    s: Stage,
    at: tuple[Coordinate, Coordinate],
    half: tuple[Coordinate, Coordinate],
    high: Tensor,
    share: float = 1.0,
) -> None:
    """Add a table: a top and four legs."""
    skin, leg = s.new_skin(), s.uniform(0.02, 0.06)
    thick = s.uniform(0.015, 0.05)
    kind = "cylinder" if s.whole(0, 1) else "box"
    s.add("box", (at[0], high - thick, at[1]), (half[0], thick, half[1]), skin=skin, share=share)
    for x in (-1, 1):
        for z in (-1, 1):
            place = (at[0] + x * 0.9 * half[0], (high - thick) / 2, at[1] + z * 0.9 * half[1])
            s.add(kind, place, (leg, (high - thick) / 2, leg), skin=skin, share=share)


def stack(
    s: Stage, at: tuple[Coordinate, Coordinate], size: Tensor, levels: int, floor: Coordinate = 0.0
) -> None:
    """Pile boxes and cylinders on one another."""
    y: Coordinate = floor
    for _ in range(levels):
        high = size * s.uniform(0.2, 0.7)
        half = (size * s.uniform(0.6, 1.1), high, size * s.uniform(0.6, 1.1))
        kind = some_kind(s, ("box", "box", "cylinder"))
        s.add(
            kind,
            (at[0] + size * s.uniform(-0.15, 0.15), y + high, at[1] + size * s.uniform(-0.15, 0.15)),
            half,
            yaw=s.uniform(-0.6, 0.6),
        )
        y = y + 2 * high
        size = size * s.uniform(0.75, 1.0)


def hung(s: Stage, walls: Tensor, count: int) -> None:
    """Hang pictures, boards and cupboards on the far and on the side walls."""
    left, right, far, high = walls.unbind(-1)
    for index in range(count):
        half = (s.uniform(0.15, 0.6), s.uniform(0.15, 0.5), s.uniform(0.01, 0.12))
        y = high * s.uniform(0.35, 0.75)
        if index % 2 == 0:
            s.add(
                "box", (s.uniform(-0.8, 0.8) * torch.minimum(left, right), y, far - half[2]), half, share=0.7
            )
        else:
            side = s.sign()
            x = torch.where(side > 0, right - half[2], half[2] - left)
            s.add("box", (x, y, far * s.uniform(0.3, 0.9)), (half[2], half[1], half[0]), share=0.7)
