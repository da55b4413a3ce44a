"""Layouts of path-traced places under a sky."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.traced_rooms import textures
from training.traced_rooms.building import brick, ground, painted, tiled
from training.traced_rooms.furniture import chair, column, plant, sculpture, tree, vase
from training.traced_rooms.stage import Stage


def _grass(s: Stage) -> Any:
    return s.material(textures.plaster(s.rng, np.array([0.1, 0.19, 0.05])), 0.9, repeat=30)


def courtyard(s: Stage) -> None:
    """An arcade around a fountain, with trees in pots."""
    ground(s, tiled(s, 8, 0.3, 0.65, repeat=25))
    s.sky(s.uniform(-60, 60), s.uniform(30, 55), s.uniform(2.5, 6))
    stone, wall = s.material(textures.stone(s.rng, s.colour(0.5, 0.75, 0.25)), 0.7), painted(s, 0.4, 0.75)
    far, half = s.uniform(9, 11), s.uniform(4.5, 5.5)
    for x in np.arange(-half, half + 0.1, half / 2).tolist():
        with s.at(x, 0, far):
            column(s, 3.0, 0.2, stone)
    for z in np.arange(2.5, far, 2.4).tolist():
        for side in (-1, 1):
            with s.at(side * half, 0, z):
                column(s, 3.0, 0.2, stone)
    s.box((0, 3.4, far), (half + 0.3, 0.4, 0.25), stone)
    s.box((0, 2.5, far + 2.2), (half + 3, 2.5, 0.2), wall)
    s.box((0, 3.9, far + 1.1), (half + 3, 0.1, 1.3), stone)
    for side in (-1, 1):
        s.box((side * half, 3.4, far / 2), (0.25, 0.4, far / 2), stone)
        s.box((side * (half + 2.0), 2.5, far / 2), (0.2, 2.5, far / 2 + 2), wall)
    with s.at(s.uniform(-0.8, 0.8), 0, s.uniform(4.8, 6.0)):
        rim = [(1.3, 0.0), (1.35, 0.45), (1.45, 0.5), (1.3, 0.5), (1.2, 0.3), (0.3, 0.3), (0.18, 0.4)]
        s.lathe([*rim, (0.15, 0.9), (0.6, 1.1), (0.55, 1.12), (0.1, 1.0), (0.08, 1.4), (0.001, 1.5)], stone)
    for x, z in ((-2.6, 4.0), (2.7, 4.4), (-2.5, 7.6), (2.8, 7.8)):
        with s.at(x, 0, z):
            plant(s, s.uniform(1.5, 2.1), 200)
    s.look((s.uniform(-1.5, 1.5), 1.65, 0.2), (0, 1.3, 7))


def _house(s: Stage, width: float, storeys: int, roof: float) -> None:
    """A house whose front is at z = 0 and looks to -z."""
    height, walls = (
        3.0 * storeys,
        brick(s, (2, storeys)) if s.uniform(0, 1) < 0.4 else painted(s, 0.35, 0.8, 0.6),
    )
    glass, frame = s.material(np.full(3, 0.05), 0.15), s.material(np.full(3, s.uniform(0.4, 0.8)), 0.5)
    s.box((0, height / 2, 3), (width / 2, height / 2, 3), walls)
    for storey in range(storeys):
        for x in np.arange(-width / 2 + 1, width / 2 - 0.5, 1.7).tolist():
            y, tall = 3.0 * storey + 1.6, 0.75
            s.box((x, y, -0.02), (0.5, tall + 0.06, 0.05), frame)
            s.box((x, y, -0.05), (0.43, tall, 0.04), glass)
            s.box((x, y - tall - 0.1, -0.1), (0.58, 0.05, 0.12), frame)
    s.box((width / 2 - 0.75, 1.05, -0.06), (0.5, 1.05, 0.06), s.paint(0.1, 0.5, 0.9))
    tiles = s.material(textures.bricks(s.rng, s.colour(0.15, 0.4) * [1, 0.55, 0.4], 0.1), 0.9, repeat=2)
    slope = float(np.degrees(np.arctan2(roof, width / 2)))
    for side in (-1, 1):
        middle = (side * width / 4, height + roof / 2, 3)
        s.box(middle, (np.hypot(width / 2, roof) / 2 + 0.25, 0.08, 3.3), tiles, tilt=-side * slope)
    gable = [(-width / 2, height, 0.02), (width / 2, height, 0.02), (0, height + roof, 0.02)]
    s.mesh(gable, [[0, 1, 2]], walls, smooth=False)


def _car(s: Stage) -> None:
    """A car along z."""
    body, dark = s.paint(0.1, 0.7, 0.9, 0.8), s.material(np.full(3, 0.03), 0.3)
    s.pillow((0, 0.62, 0), (0.85, 0.4, 2.0), body, (0.35, 0.35))
    s.pillow((0, 1.05, -0.1), (0.72, 0.42, 1.15), dark, (0.45, 0.4))
    s.pillow((0, 1.4, -0.1), (0.6, 0.07, 0.85), body, (0.5, 0.4))
    for x in (-0.75, 0.75):
        for z in (-1.2, 1.25):
            s.rod((x - 0.1, 0.32, z), (x + 0.1, 0.32, z), 0.32, dark)


def street(s: Stage) -> None:
    """Rows of houses along a road with cars, lamps and trees."""
    ground(s, s.material(textures.plaster(s.rng, s.colour(0.15, 0.25, 0.1)), 0.9))
    s.sky(s.uniform(-70, 70), s.uniform(25, 50), s.uniform(2.5, 7))
    pavement = s.material(textures.tiles(s.rng, np.full(3, 0.4), np.full(3, 0.35), 10), 0.8, repeat=(4, 20))
    metal = s.material(np.full(3, 0.08), 0.5)
    for side, turn in ((1, 90), (-1, -90)):
        s.box((side * 4.6, 0.07, 20), (1.4, 0.07, 30), pavement)
        z = 1.0
        for _ in range(4):
            width = s.uniform(5.5, 7.5)
            with s.at(side * 6.0, 0, z + width / 2, turn):
                _house(s, width, int(s.rng.integers(2, 4)), s.uniform(1.2, 2.2))
            z += width
        for z in (5.0, 14.0, 23.0):
            with s.at(side * 3.5, 0, z + 3 * (side > 0)):
                s.rod((0, 0, 0), (0, 4.2, 0), 0.06, metal)
                s.lathe([(0.12, 4.2), (0.22, 4.5), (0.05, 4.7)], metal)
        for z in (8.0, 17.0):
            with s.at(side * 4.2, 0, z + 2 * (side > 0)):
                tree(s, s.uniform(3.5, 5.0))
        for z in (4.5, 10.5, 15.5, 21.0):
            if s.uniform(0, 1) < 0.65:
                with s.at(side * 2.2, 0, z + s.uniform(-0.4, 0.4)):
                    _car(s)
    with s.at(0, 0, 32):
        _house(s, 9, 3, 2.5)
    s.look((s.uniform(-1.0, 1.0), 1.65, -2.0), (s.uniform(-0.8, 0.8), 1.9, 14))


def terrace(s: Stage) -> None:
    """Steps up to a balustrade with vases, hills behind."""
    ground(
        s,
        s.material(
            textures.tiles(s.rng, s.colour(0.4, 0.6, 0.2), s.colour(0.4, 0.6, 0.2), 8), 0.7, repeat=25
        ),
    )
    s.sky(s.uniform(-80, 80), s.uniform(25, 50), s.uniform(2.5, 6))
    stone = s.material(textures.stone(s.rng, s.colour(0.45, 0.7, 0.2)), 0.7)
    for step in range(6):
        top = 0.16 * (step + 1)
        s.box((0, top / 2, 5 + 0.35 * step + 4), (2.0, top / 2, 4), stone)
    for side in (-1, 1):
        s.box((side * 5.5, 0.48, 9.2), (3.4, 0.48, 4.2), brick(s, (3, 1)))
        for x in np.arange(2.3, 8.5, 0.33).tolist():
            with s.at(side * x, 0.96, 5.15):
                s.turned([(0.07, 0.0), (0.04, 0.1), (0.1, 0.3), (0.04, 0.55), (0.07, 0.6)], stone, 16)
        s.box((side * 5.4, 1.62, 5.15), (3.3, 0.06, 0.14), stone)
        s.box((side * 2.1, 0.9, 5.1), (0.22, 0.9, 0.22), stone)
        with s.at(side * 2.1, 1.8, 5.1):
            s.turned([(0.1, 0.0), (0.06, 0.08), (0.3, 0.35), (0.22, 0.5), (0.3, 0.6)], stone)
        with s.at(side * s.uniform(3.5, 4.5), 0, 3.2):
            plant(s, s.uniform(1.2, 1.8), 200)
    for x, z in ((-4.5, 11), (4.2, 12), (0.6, 15)):
        with s.at(x, 0.96, z):
            tree(s, s.uniform(4, 6))
    s.look((s.uniform(-1.2, 1.2), 1.6, 0.0), (0, 1.4, 6))


def garden(s: Stage) -> None:
    """A table under a parasol, hedges, a wall, a sculpture."""
    ground(s, _grass(s))
    s.sky(s.uniform(-70, 70), s.uniform(35, 55), s.uniform(2.5, 5))
    s.box((0, 0.02, 4.5), (2.2, 0.02, 2.0), tiled(s, 8, 0.3, 0.6))
    wood = s.material(textures.wood(s.rng, s.brown(), 3), 0.6)
    with s.at(s.uniform(-0.4, 0.4), 0.04, 4.6):
        s.rod((0, 0.7, 0), (0, 0.74, 0), 0.6, wood)
        s.rod((0, 0, 0), (0, 2.6, 0), 0.03, wood)
        s.lathe([(0.02, 2.65), (0.8, 2.4), (1.5, 2.05)], s.paint(0.3, 0.8, 0.8, 0.0), 10)
        for yaw in (25, 140, 250):
            with s.at(0, 0, 0, yaw + s.uniform(-15, 15)), s.at(0, 0, 0.85):
                chair(s, wood)
        with s.at(0.25, 0.74, 0.1):
            vase(s, 0.25)
    s.box((0, 1.0, 10.5), (9, 1.0, 0.15), brick(s, (6, 1)))
    green = s.material(textures.plaster(s.rng, np.array([0.06, 0.15, 0.03])), 0.9)
    for side in (-1, 1):
        for z in (3.0, 5.0, 7.0, 9.0):
            half = np.array([s.uniform(0.5, 0.8), s.uniform(0.5, 1.0), 1.0])
            s.pillow((side * s.uniform(3.4, 4.0), half[1] * 0.8, z), half, green, (0.7, 0.8))
    with s.at(s.uniform(1.5, 2.2), 0, 7.5):
        sculpture(s)
    for x, z in ((-3.0, 9.0), (2.5, 13.0), (-5.0, 14.0)):
        with s.at(x, 0, z):
            tree(s, s.uniform(3.5, 5.5))
    s.look((s.uniform(-1.5, 1.5), 1.6, 0.0), (0, 0.9, 5))


def market(s: Stage) -> None:
    """Stalls under awnings with crates of fruit before a wall."""
    ground(s, s.material(textures.bricks(s.rng, np.full(3, 0.35), 0.2), 0.8, repeat=20))
    s.sky(s.uniform(-60, 60), s.uniform(35, 60), s.uniform(3, 7))
    wood = s.material(textures.wood(s.rng, s.brown(), 4), 0.7)
    for x, z in ((-2.0, 4.0), (0.9, 4.6), (3.6, 4.2), (-3.4, 7.2), (0.0, 7.8)):
        with s.at(x, 0, z, s.uniform(-12, 12)):
            s.box((0, 0.75, 0), (1.0, 0.03, 0.5), wood)
            s.box((0, 0.4, 0.3), (0.95, 0.35, 0.1), wood)
            for a in (-1, 1):
                s.rod((a * 0.95, 0, 0.5), (a * 0.95, 2.3, 0.5), 0.025, wood)
                s.rod((a * 0.95, 0, -0.5), (a * 0.95, 2.0, -0.5), 0.025, wood)
            cloth = textures.stripes(s.rng, [s.colour(0.4, 0.8, 0.9), np.full(3, 0.75)], 10)
            with s.at(0, 2.18, -0.1):
                awning = np.array(
                    [[[-1.15, 0.2, 0.7], [1.15, 0.2, 0.7]], [[-1.15, -0.25, -0.8], [1.15, -0.25, -0.8]]]
                )
                s.box((0, 0, 0), (0.01, 0.01, 0.01), wood)
                s.sheet(awning, s.material(cloth[0].mean(axis=0), 0.9), smooth=False)
            for crate in (-0.65, 0.0, 0.65):
                s.box((crate, 0.83, -0.1), (0.29, 0.05, 0.3), wood)
                fruit, size = s.paint(0.3, 0.7, 0.95), s.uniform(0.045, 0.07)
                for u in np.arange(-0.2, 0.25, 2 * size).tolist():
                    for w in np.arange(-0.2, 0.25, 2 * size).tolist():
                        y = 0.9 + s.uniform(0, 0.03)
                        s.ball((crate + u, y, w - 0.1), size, fruit)
    s.box((0, 3.5, 12), (14, 3.5, 0.2), painted(s, 0.4, 0.7, 0.5))
    for x in np.arange(-8, 9, 2.7).tolist():
        s.box((x, 4.2, 11.8), (0.5, 0.8, 0.06), s.material(np.full(3, 0.06), 0.2))
        s.box((x, 1.2, 11.8), (0.6, 1.2, 0.06), s.paint(0.1, 0.5, 0.8))
    s.look((s.uniform(-1.0, 1.0), 1.65, 0.3), (0, 1.1, 5))
