"""Families of scenes that no model is trained on: they measure how models generalise."""

from __future__ import annotations

import math

import torch

from redepth.data.scenes.rooms.layouts import Layout
from redepth.data.scenes.rooms.parts import ground, hung, loose, room, scattered, some_kind, table, terrain
from redepth.data.scenes.rooms.stage import Stage


def stairs(s: Stage) -> None:
    """A flight of stairs in a hall, with a landing and things on the floor."""
    s.look(s.uniform(1.2, 2.0), s.uniform(3.0, 5.0), s.uniform(0.6, 1.4))
    s.frame = s.radians(30)
    room(s, (1.5, 3.5), (5.0, 8.0), (3.0, 4.5))
    skin, start = s.new_skin(), s.uniform(1.6, 2.6)
    tread, rise, half = s.uniform(0.25, 0.4), s.uniform(0.14, 0.22), s.uniform(0.6, 1.4)
    for step in range(9):
        high = rise * (step + 1) / 2
        s.add("box", (0.0, high, start + tread * (step + 0.5)), (half, high, tread / 2), skin=skin)
    rail = s.new_skin()
    for step in (0, 4, 8):
        place = (half, rise * (step + 1) + 0.45, start + tread * (step + 0.5))
        s.add("cylinder", place, (0.03, 0.45, 0.03), skin=rail, share=0.8)
    scattered(s, 3, 1.2, 4.0, (0.1, 0.4))


def shelves(s: Stage) -> None:
    """Shelves on the far wall with small things on every board."""
    s.look(s.uniform(0.9, 1.6), s.uniform(1.5, 2.6), s.uniform(0.7, 1.2))
    s.frame = s.radians(30)
    walls = room(s, (1.2, 2.5), (1.8, 3.2), (2.2, 3.0))
    far, skin = walls[:, 2], s.new_skin()
    half, deep, gap = s.uniform(0.6, 1.1), s.uniform(0.14, 0.22), s.uniform(0.35, 0.5)
    for side in (-1, 1):
        s.add("box", (side * half, 2 * gap, far - deep), (0.02, 2 * gap, deep), skin=skin)
    for board in range(4):
        y = gap * (board + 0.4)
        s.add("box", (0.0, y, far - deep), (half, 0.02, deep), skin=skin)
        for place in (-0.6, 0.0, 0.6):
            size = gap * s.uniform(0.15, 0.3)
            at = (half * (place + s.uniform(-0.15, 0.15)), far - deep)
            loose(s, some_kind(s), at, size, floor=y + 0.02, share=0.8, tumbled=False)


def arches(s: Stage) -> None:
    """A row of half-sunk rings, as arches over a path outdoors."""
    s.look(s.uniform(0.8, 1.8), s.uniform(4.0, 8.0), s.uniform(0.6, 1.4))
    s.frame = s.radians(30)
    ground(s)
    skin, radius, gap = s.new_skin(), s.uniform(1.0, 1.8), s.uniform(1.5, 3.0)
    form = s.uniform(0.08, 0.2, 1)
    for number in range(4):
        s.add(
            "torus",
            (0.0, 0.15, 2.2 + gap * number),
            (radius, radius, radius),
            skin=skin,
            form=form,
            upright=True,
        )
    for side in (-1, 1):
        for number in range(2):
            at = (side * (radius + s.uniform(0.6, 1.5)), 3.0 + 3 * number + s.rand())
            loose(s, some_kind(s, ("box", "ball", "cylinder")), at, s.uniform(0.3, 0.8))


def dining(s: Stage) -> None:
    """A table with chairs around it."""
    s.look(s.uniform(1.3, 2.0), s.uniform(2.0, 3.2), s.uniform(0.4, 0.8))
    s.frame = s.radians(40)
    walls = room(s, (1.8, 3.2), (3.5, 6.0), (2.3, 3.2))
    hung(s, walls, 2)
    z, half = s.uniform(2.2, 2.8), (s.uniform(0.5, 0.8), s.uniform(0.4, 0.6))
    table(s, (0.0, z), half, s.uniform(0.65, 0.8))
    skin = s.new_skin()
    for x, away in ((-1, 0), (1, 0), (0, 1), (0, -1)):
        seat = (x * (half[0] + 0.25), z + away * (half[1] + 0.25))
        s.add("box", (seat[0], 0.42, seat[1]), (0.2, 0.03, 0.2), skin=skin, share=0.9)
        s.add(
            "box",
            (seat[0] + 0.19 * x, 0.7, seat[1] + 0.19 * away),
            (0.02 if x else 0.2, 0.3, 0.02 if away else 0.2),
            skin=skin,
            share=0.9,
        )
        s.add("cylinder", (seat[0], 0.2, seat[1]), (0.05, 0.2, 0.05), skin=skin, share=0.9)
    for _ in range(2):
        loose(
            s,
            some_kind(s),
            (s.uniform(-0.3, 0.3), z + s.uniform(-0.2, 0.2)),
            s.uniform(0.06, 0.14),
            floor=0.75,
            tumbled=False,
        )


def canyon(s: Stage) -> None:
    """Rocks between two steep walls of stone on rough ground."""
    s.look(s.uniform(1.0, 2.5), s.uniform(6, 12), s.uniform(0.5, 2.0))
    s.indoors = False
    terrain(s, (0.3, 1.2), (1.5, 9.0))
    skin = s.new_skin()
    for side in (-1, 1):
        for number in range(3):
            half = (s.uniform(1.5, 3.0), s.uniform(2.0, 5.0), s.uniform(1.5, 3.0))
            at = (side * (2.5 + half[0] + s.uniform(0, 1.5)), half[1] * 0.5, 3.0 + 4.5 * number)
            s.add(
                "superquadric",
                at,
                half,
                yaw=s.uniform(-math.pi, math.pi),
                skin=skin,
                form=s.log_uniform(1.6, 6.0, 2),
            )
    for _ in range(4):
        z = s.uniform(2.5, 9)
        x = s.across(z, 0.5)
        ground_height = -s.field.above(torch.stack([x, torch.zeros_like(x), z], dim=-1)[..., None])[:, 0]
        loose(
            s,
            some_kind(s, ("blob", "superquadric", "ball")),
            (x, z),
            s.log_uniform(0.2, 0.7),
            floor=ground_height - 0.15,
        )


UNSEEN: dict[str, Layout] = {
    "stairs": stairs,
    "shelves": shelves,
    "arches": arches,
    "dining": dining,
    "canyon": canyon,
}
