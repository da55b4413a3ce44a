"""Families of scenes for training: each sets a camera and puts things on a stage."""

from __future__ import annotations

from collections.abc import Callable

import torch

from redepth.data.scenes.rooms.parts import (
    form_of,
    ground,
    hung,
    loose,
    room,
    scattered,
    some_kind,
    stack,
    table,
    terrain,
)
from redepth.data.scenes.rooms.stage import Stage

Layout = Callable[[Stage], None]


def furnished(s: Stage) -> None:
    """A room with furniture along its walls, a table, things on it, pictures."""
    s.look(s.uniform(1.0, 1.9), s.uniform(2.0, 4.0), s.uniform(0.4, 1.3))
    s.frame = s.radians(45)
    walls = room(s, (0.9, 3.2), (2.5, 6.5), (2.2, 3.4))
    left, right, far, _ = walls.unbind(-1)
    for _ in range(3):
        half = (s.uniform(0.2, 0.8), s.uniform(0.2, 1.1), s.uniform(0.15, 0.4))
        s.add(
            "box",
            (s.uniform(-0.9, 0.9) * torch.minimum(left, right), half[1], far - half[2]),
            half,
            share=0.7,
        )
    for side in (-1, 1):
        half = (s.uniform(0.15, 0.4), s.uniform(0.2, 1.0), s.uniform(0.2, 0.9))
        x = right - half[0] if side > 0 else half[0] - left
        s.add("box", (x, half[1], far * s.uniform(0.3, 0.9)), half, share=0.6)
    hung(s, walls, 3)
    x, z, high = s.uniform(-0.6, 0.6), far * s.uniform(0.4, 0.7), s.uniform(0.4, 0.8)
    half_table = (s.uniform(0.3, 0.8), s.uniform(0.25, 0.5))
    table(s, (x, z), half_table, high, share=0.7)
    for _ in range(2):
        loose(
            s,
            some_kind(s),
            (x + s.uniform(-0.3, 0.3), z + s.uniform(-0.2, 0.2)),
            s.log_uniform(0.06, 0.2),
            floor=high,
            share=0.7,
            tumbled=False,
        )
    scattered(s, 2, 1.2, 3.0, (0.1, 0.4))


def still_life(s: Stage) -> None:
    """Things on a table top seen from near, before a wall or in a large room."""
    s.look(s.uniform(0.35, 1.3), s.uniform(0.9, 1.6), s.uniform(0.0, 0.25))
    s.frame = s.radians(50)
    room(s, (1.0, 4.0), (1.2, 5.0), (1.5, 3.0))
    s.frame = s.number(0.0)
    scattered(s, 6, 0.6, 2.2, (0.08, 0.32))


def close_up(s: Stage) -> None:
    """One to three large things on the ground, seen from above."""
    s.look(s.uniform(0.8, 1.6), s.uniform(0.6, 1.4), s.uniform(0.0, 0.2), tilt=8)
    if s.whole(0, 1):
        ground(s)
    else:
        s.frame = s.radians(45)
        room(s, (1.0, 3.0), (1.5, 4.0), (2.0, 3.0))
        s.frame = s.number(0.0)
    for _ in range(3):
        z = s.uniform(0.6, 1.5)
        loose(s, some_kind(s), (s.across(z, 0.6), z), s.log_uniform(0.15, 0.45), share=0.75)


def street(s: Stage) -> None:
    """Houses on both sides of a road, poles, cars, trees."""
    s.look(s.uniform(1.2, 6.0), s.uniform(8, 20), s.uniform(0.5, 3.0))
    s.frame = s.radians(25)
    ground(s)
    road = s.uniform(2.0, 5.0)
    for side in (-1, 1):
        z = s.uniform(1.0, 4.0)
        skin = s.new_skin()
        for number in range(4):
            half = (s.uniform(1.5, 4.0), s.log_uniform(1.2, 7.0), s.uniform(1.5, 4.0))
            x = side * (road + half[0] + s.uniform(0, 1.0))
            s.add("box", (x, half[1], z + half[2]), half, share=0.85, skin=skin if number % 2 else None)
            if number < 2 and s.whole(0, 1):
                s.add(
                    "cone",
                    (x, 2 * half[1] + 0.6, z + half[2]),
                    (half[0] * 1.2, s.uniform(0.3, 1.2), half[2] * 1.2),
                )
            z = z + 2 * half[2] + s.uniform(0, 3.0)
    pole = s.new_skin()
    for number in range(3):
        place = (s.sign() * road * 0.95, 1.6, 4 + 6 * number + s.uniform(0, 3))
        s.add("cylinder", place, (0.07, 1.6 + s.rand(), 0.07), skin=pole, share=0.7)
    for _ in range(3):
        _car(s, s.uniform(-0.8, 0.8) * road, s.uniform(4, 22))
    for _ in range(2):
        _tree(s, s.sign() * road * s.uniform(0.9, 1.2), s.uniform(4, 18), s.uniform(0.5, 1.1))


def _car(s: Stage, x: torch.Tensor, z: torch.Tensor) -> None:
    skin = s.new_skin()
    s.add("box", (x, 0.55, z), (0.85, 0.35, 1.9), skin=skin, share=0.6)
    s.add("superquadric", (x, 1.0, z + 0.2), (0.75, 0.45, 1.1), skin=skin, share=0.6, form=s.uniform(3, 6, 2))


def _tree(
    s: Stage,
    x: torch.Tensor,
    z: torch.Tensor,
    scale: torch.Tensor,
    share: float = 0.7,
    floor: torch.Tensor | float = 0.0,
) -> None:
    trunk = s.uniform(0.6, 1.6) * scale
    s.add("cylinder", (x, floor + trunk / 2, z), (0.1 * scale, trunk / 2 + 0.3, 0.1 * scale), share=share)
    kind = some_kind(s, ("ball", "cone", "blob"))
    half = scale * s.uniform(0.6, 1.2)
    high = half * s.uniform(0.9, 2.0)
    s.add(
        kind,
        (x, floor + trunk + 0.8 * high, z),
        (half, high, half),
        share=share,
        form=None
        if kind != "blob"
        else torch.cat([s.uniform(-0.4, 0.4, 4, 3), s.uniform(0.4, 0.6, 4, 1)], dim=-1).flatten(1),
    )


def corridor(s: Stage) -> None:
    """A long narrow room with repeated columns or doors, and things on the floor."""
    s.look(s.uniform(0.9, 1.8), s.uniform(4.0, 8.0), s.uniform(0.7, 1.5))
    s.frame = s.radians(20)
    walls = room(s, (0.8, 2.2), (6.0, 14.0), (2.2, 3.6))
    left, right, far, high = walls.unbind(-1)
    kind, skin = some_kind(s, ("box", "cylinder")), s.new_skin()
    half = (s.uniform(0.06, 0.25), high / 2, s.uniform(0.08, 0.5))
    gap = s.uniform(1.2, 2.5)
    for side in (-1, 1):
        for number in range(4):
            x = right - half[0] if side > 0 else half[0] - left
            s.add(kind, (x, high / 2, 1.2 + gap * number), half, skin=skin, share=0.9)
    scattered(s, 3, 1.5, 5.0, (0.12, 0.5))
    loose(s, "box", (s.uniform(-0.5, 0.5), far * 0.8), s.uniform(0.3, 0.8))


def stacks(s: Stage) -> None:
    """Piles of boxes and cylinders in a hall or outdoors."""
    s.look(s.uniform(0.6, 2.2), s.uniform(2.0, 4.5), s.uniform(0.2, 1.0))
    _somewhere(s, (1.5, 5.0), (4.0, 9.0), (2.5, 5.0))
    for _ in range(4):
        z = s.uniform(1.3, 5.5)
        stack(s, (s.across(z), z), s.uniform(0.2, 0.5), s.whole(2, 4))
    scattered(s, 2, 1.2, 4.0, (0.1, 0.3))


def _somewhere(
    s: Stage, width: tuple[float, float], back: tuple[float, float], height: tuple[float, float]
) -> None:
    """Add a room, or the ground outdoors, and leave the frame as it was."""
    if s.whole(0, 2) == 0:
        ground(s)
        return
    s.frame = s.radians(45)
    room(s, width, back, height)
    s.frame = s.number(0.0)


def heap(s: Stage) -> None:
    """Many things of all kinds, some of them in the air."""
    s.look(s.uniform(0.5, 2.0), s.uniform(1.5, 3.5), s.uniform(0.2, 0.8), tilt=8)
    _somewhere(s, (1.2, 4.0), (3.0, 7.0), (2.2, 4.0))
    scattered(s, 7, 1.0, 4.5, (0.1, 0.6))
    for _ in range(3):
        z = s.uniform(1.2, 4.0)
        loose(
            s,
            some_kind(s),
            (s.across(z), z),
            s.log_uniform(0.08, 0.3),
            floor=s.uniform(0.3, 1.5),
            share=0.6,
            tumbled=True,
        )


def rows_of_things(s: Stage) -> None:
    """The same thing again and again, in rows."""
    s.look(s.uniform(0.7, 2.5), s.uniform(2.5, 5.0), s.uniform(0.1, 0.8))
    _somewhere(s, (2.0, 5.0), (5.0, 12.0), (2.5, 5.0))
    s.frame = s.radians(35)
    kind, skin = some_kind(s), s.new_skin()
    gap, form = s.uniform(0.7, 1.5), form_of(s, kind)
    half = (gap * s.uniform(0.15, 0.4), gap * s.uniform(0.15, 0.9), gap * s.uniform(0.15, 0.4))
    for i in range(3):
        for j in range(4):
            at = ((i - 1) * gap, half[1], 1.4 + gap * (j + 0.2))
            s.add(kind, at, half, skin=skin, form=form, share=0.95)


def hills(s: Stage) -> None:
    """Hills or dunes with trees and stones."""
    s.look(s.uniform(0.8, 4.0), s.uniform(6, 16), s.uniform(-1.5, 0.5))
    s.indoors = False
    terrain(s, (0.6, 3.0), (3.0, 25.0))
    for _ in range(4):
        z = s.uniform(3, 18)
        x = s.across(z)
        _tree(s, x, z, s.uniform(0.4, 1.2), share=0.8, floor=_height(s, x, z))
    for _ in range(3):
        z = s.uniform(2, 9)
        x = s.across(z)
        loose(
            s,
            some_kind(s, ("ball", "superquadric", "blob", "box")),
            (x, z),
            s.log_uniform(0.15, 0.7),
            floor=_height(s, x, z) - 0.1,
        )


def _height(s: Stage, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return the height of the ground at x, z (N,)."""
    return -s.field.above(torch.stack([x, torch.zeros_like(x), z], dim=-1)[..., None])[:, 0]


def cloth(s: Stage) -> None:
    """A crumpled cloth on the floor of a room, with things on it."""
    s.look(s.uniform(0.7, 1.5), s.uniform(0.8, 1.8), s.uniform(0.0, 0.2), tilt=8)
    terrain(s, (0.1, 0.4), (0.4, 2.5), clearance=0.5)
    s.frame = s.radians(45)
    room(s, (1.0, 3.0), (1.5, 4.0), (2.0, 3.0))
    s.frame = s.number(0.0)
    for _ in range(3):
        z = s.uniform(0.6, 2.0)
        x = s.across(z, 0.7)
        loose(s, some_kind(s), (x, z), s.log_uniform(0.08, 0.3), floor=_height(s, x, z) - 0.03, share=0.7)


def columns(s: Stage) -> None:
    """A hall with columns on a grid, seen at an angle."""
    s.look(s.uniform(1.0, 2.2), s.uniform(4.0, 8.0), s.uniform(0.8, 1.8))
    s.frame = s.radians(45)
    walls = room(s, (2.5, 6.0), (6.0, 12.0), (2.8, 5.0))
    high, skin = walls[:, 3], s.new_skin()
    kind, radius = some_kind(s, ("cylinder", "box", "cylinder")), s.uniform(0.12, 0.35)
    gap = s.uniform(1.6, 2.6)
    for x in (-1, 0, 1):
        for z in (0, 1, 2):
            s.add(
                kind,
                (gap * (x + 0.5), high / 2, 1.8 + gap * z),
                (radius, high / 2, radius),
                skin=skin,
                share=0.85,
            )
    scattered(s, 3, 1.5, 5.0, (0.15, 0.5))


TRAINING: dict[str, Layout] = {
    "furnished": furnished,
    "still-life": still_life,
    "close-up": close_up,
    "street": street,
    "corridor": corridor,
    "stacks": stacks,
    "heap": heap,
    "rows": rows_of_things,
    "hills": hills,
    "cloth": cloth,
    "columns": columns,
}
