"""Layouts of path-traced rooms under a roof."""

from __future__ import annotations

import numpy as np

from training.traced_rooms import textures
from training.traced_rooms.building import (
    Shell,
    Window,
    boards,
    brick,
    curtains,
    ground,
    painted,
    room,
    tiled,
)
from training.traced_rooms.furniture import (
    WHITE,
    bed,
    bookcase,
    chair,
    column,
    pendant,
    picture,
    pile,
    plant,
    sculpture,
    shaded_lamp,
    sofa,
    table,
    vase,
)
from training.traced_rooms.stage import Stage


def living_room(s: Stage) -> None:
    """A sofa with cushions, a low table on a rug, a lamp, daylight from the side."""
    shell = Shell(s.uniform(4.0, 5.0), s.uniform(2.5, 2.9), -0.6, s.uniform(4.0, 5.0))
    window = Window("left", s.uniform(-0.8, 0.2), 0.9, 0.7, 2.2, glow=s.uniform(6, 10))
    room(s, shell, boards(s), painted(s), (window,))
    curtains(s, shell, window)
    with s.at(s.uniform(-0.3, 0.5), 0, shell.far - 0.65):
        sofa(s, s.uniform(1.7, 2.1))
        with s.at(-1.6, 0, 0):
            shaded_lamp(s, 1.6, 0.22, 12)
        with s.at(0, 1.65, 0.64):
            picture(s, (0.5, 0.33))
    rug = s.material(textures.rug(s.rng, [s.colour(0.1, 0.7, 0.8) for _ in range(4)]), 0.95)
    s.box((0, 0.008, 2.3), (1.3, 0.008, 0.9), rug)
    with s.at(s.uniform(-0.2, 0.2), 0, 2.3, s.uniform(-15, 15)):
        table(s, (0.5, 0.3), 0.42)
        with s.at(0.2, 0.42, 0):
            vase(s, 0.28)
        with s.at(-0.22, 0.42, 0.05, 20):
            pile(s, 3, 0.13)
    with s.at(-shell.width / 2 + 0.45, 0, 1.9):
        plant(s, s.uniform(1.0, 1.4))
    s.look((s.uniform(-0.9, 0.6), s.uniform(1.3, 1.6), -0.3), (0.1, 0.75, shell.far - 1.2))


def library(s: Stage) -> None:
    """Bookcases on two walls, an armchair with a lamp, a ladder."""
    shell = Shell(s.uniform(3.6, 4.4), 2.8, -0.5, s.uniform(4.0, 4.8))
    room(s, shell, boards(s), painted(s, 0.2, 0.5))
    shelves = 7
    for number in (-1, 0, 1):
        with s.at(number * 1.13, 0, shell.far - 0.17):
            bookcase(s, 1.08, shelves)
    with s.at(shell.width / 2 - 0.17, 0, shell.far - 1.2, 90):
        bookcase(s, 1.3, shelves)
    with s.at(-0.8, 0, shell.far - 1.2, s.uniform(20, 50)):
        sofa(s, 0.75)
    with s.at(-1.45, 0, shell.far - 0.9):
        shaded_lamp(s, 1.5, 0.2, 14)
    wood = s.material(s.brown(), 0.4)
    for x in (0.45, 0.85):
        s.rod((x, 0, shell.far - 0.95), (x, 2.4, shell.far - 0.36), 0.022, wood)
    for step in range(1, 8):
        y = 0.3 * step
        z = shell.far - 0.95 + 0.59 * y / 2.4
        s.rod((0.45, y, z), (0.85, y, z), 0.016, wood)
    with s.at(0, shell.height, 2.0):
        pendant(s, 0.5, 0.22, 22)
    with s.at(0.7, 0, 1.9, 30):
        pile(s, 5, 0.16)
    s.look((s.uniform(-0.6, 0.4), 1.45, -0.2), (0.1, 1.1, shell.far))


def dining_room(s: Stage) -> None:
    """A laid round table with chairs under a lamp, a sideboard, a window onto the sky."""
    shell = Shell(s.uniform(4.2, 5.0), 2.7, -0.6, s.uniform(4.4, 5.2))
    room(
        s,
        shell,
        tiled(s, 10),
        painted(s),
        (Window("far", s.uniform(-0.6, 0.6), 0.8, 0.8, 2.2, glow=5, bars=2),),
    )
    wood, middle = s.material(textures.wood(s.rng, s.brown()), 0.35), 2.4
    with s.at(0, 0, middle):
        s.rod((0, 0.72, 0), (0, 0.76, 0), 0.75, wood)
        s.turned([(0.3, 0.0), (0.08, 0.12), (0.07, 0.5), (0.2, 0.72)], wood)
        china = s.paint(0.6, 0.85, 0.2, 0.7)
        for number in range(5):
            with s.at(0, 0, 0, 72 * number + s.uniform(-8, 8)):
                with s.at(0, 0, 0.98):
                    chair(s, wood)
                with s.at(0, 0.765, 0.52):
                    s.lathe([(0.001, 0.005), (0.08, 0.005), (0.125, 0.02)], china)
                with s.at(0.2, 0.765, 0.4):
                    s.lathe([(0.03, 0.0), (0.004, 0.01), (0.004, 0.08), (0.035, 0.11), (0.03, 0.17)], china)
        with s.at(0, 0.765, 0):
            s.lathe([(0.06, 0.0), (0.05, 0.02), (0.17, 0.1)], s.paint(gloss=0.7))
            for _ in range(6):
                s.ball((s.uniform(-0.08, 0.08), 0.1, s.uniform(-0.08, 0.08)), 0.042, s.paint(0.2, 0.7, 0.95))
    with s.at(0, shell.height, middle):
        pendant(s, 0.9, 0.25, 18)
    with s.at(-shell.width / 2 + 0.26, 0, middle + 0.8, -90):
        s.box((0, 0.45, 0), (0.8, 0.45, 0.22), wood)
        for x in (-0.4, 0.0, 0.45):
            with s.at(x, 0.9, 0):
                vase(s, s.uniform(0.2, 0.45))
    with s.at(shell.width / 2 - 0.01, 1.6, middle + 0.6, 90):
        picture(s, (0.45, 0.35))
    s.look((s.uniform(-0.8, 0.8), s.uniform(1.5, 1.8), -0.35), (0, 0.75, middle + 0.4))


def bedroom(s: Stage) -> None:
    """A bed, lamps on night tables, a wardrobe, a window with curtains."""
    shell = Shell(s.uniform(3.8, 4.6), 2.6, -0.8, s.uniform(3.6, 4.4))
    window = Window("right", 0.0, 0.7, 0.9, 2.1, glow=s.uniform(4, 9))
    room(s, shell, boards(s), painted(s, 0.35, 0.75), (window,))
    curtains(s, shell, window)
    wide = s.uniform(1.4, 1.7)
    with s.at(s.uniform(-0.2, 0.3), 0, shell.far - 1.1):
        bed(s, wide)
        for side in (-1, 1):
            with s.at(side * (wide / 2 + 0.35), 0, 0.8):
                s.box((0, 0.25, 0), (0.22, 0.25, 0.2), s.material(s.brown(), 0.5))
                with s.at(0, 0.5, 0):
                    shaded_lamp(s, 0.48, 0.14, 14)
        with s.at(0, 1.75, 1.09):
            picture(s, (0.45, 0.25))
    with s.at(shell.width / 2 - 0.3, 0, 1.3, 90):
        s.box((0, 1.0, 0), (0.6, 1.0, 0.28), s.material(textures.wood(s.rng, s.brown(), 3), 0.45))
        for x in (-0.05, 0.05):
            s.ball((x, 1.0, -0.3), 0.018, s.metal())
    s.box((0, 0.006, 1.1), (0.9, 0.006, 0.5), s.material(textures.rug(s.rng, [s.colour(), s.colour()]), 0.95))
    s.look((s.uniform(-0.4, 0.4), 1.5, -0.5), (0.1, 0.6, shell.far - 0.8))


def kitchen(s: Stage) -> None:
    """A counter with cupboards, tiles, pots and bottles, stools, a window above the sink."""
    shell = Shell(s.uniform(3.6, 4.2), 2.6, -0.5, s.uniform(3.4, 4.0))
    window = Window("far", s.uniform(-0.5, 0.3), 0.55, 1.15, 2.1, glow=7)
    room(s, shell, tiled(s, 12), painted(s, 0.5, 0.8), (window,))
    front, top = (
        s.paint(0.2, 0.75, 0.5, 0.6),
        s.material(textures.stone(s.rng, s.colour(0.15, 0.7, 0.2)), 0.25),
    )
    z, half = shell.far - 0.31, shell.width / 2
    s.box((0, 0.43, z), (half, 0.43, 0.29), front)
    s.box((0, 0.88, z - 0.01), (half, 0.02, 0.32), top)
    for number in range(6):
        x = -half + (number + 0.5) * shell.width / 6
        s.box((x, 0.46, z - 0.3), (shell.width / 12 - 0.01, 0.37, 0.008), front)
        s.rod((x - 0.06, 0.78, z - 0.33), (x + 0.06, 0.78, z - 0.33), 0.008, s.metal())
    for side in (-1, 1):
        x = side * (half - 0.45) if side * window.middle < 0.2 else side * (half - 0.3)
        s.box((x, 1.85, shell.far - 0.18), (0.42, 0.38, 0.17), front)
    for x in np.linspace(-half + 0.3, half - 0.3, 7).tolist():
        with s.at(x + s.uniform(-0.05, 0.05), 0.9, z + s.uniform(-0.12, 0.12)):
            vase(s, s.uniform(0.12, 0.3))
    with s.at(-half + 1.0, 0, 1.9, 12):
        table(s, (0.35, 0.6), 0.9)
        with s.at(0, 0.9, 0.2):
            s.lathe([(0.1, 0.0), (0.12, 0.16), (0.11, 0.16), (0.09, 0.02), (0.001, 0.02)], s.metal())
        with s.at(0.05, 0.9, -0.25):
            pile(s, 3, 0.12)
        with s.at(0.6, 0, 0.1):
            s.rod((0, 0.6, 0), (0, 0.64, 0), 0.17, s.paint())
            for x in (-0.12, 0.12):
                s.rod((x, 0, x), (x * 0.6, 0.6, x * 0.6), 0.015, s.metal())
                s.rod((x, 0, -x), (x * 0.6, 0.6, -x * 0.6), 0.015, s.metal())
    s.panel((0, shell.height - 0.02, 1.4), (0, 0, 1.4), (0.5, 0.15), (9 * WHITE).tolist())
    s.look((s.uniform(-0.2, 0.9), 1.55, -0.3), (s.uniform(-0.2, 0.1), 0.9, shell.far))


def study(s: Stage) -> None:
    """A desk with a screen and a lamp before a wall of pictures."""
    shell = Shell(3.4, 2.6, -0.6, s.uniform(2.8, 3.4))
    room(s, shell, boards(s), painted(s), (Window("left", 0.2, 0.6, 0.9, 2.1, glow=s.uniform(5, 9)),))
    with s.at(s.uniform(-0.2, 0.2), 0, shell.far - 0.4):
        table(s, (0.8, 0.36), 0.74)
        black = s.material(np.full(3, 0.03), 0.25)
        with s.at(0.05, 0.74, 0.1, s.uniform(-12, 12)):
            s.box((0, 0.28, 0), (0.3, 0.18, 0.012), black)
            s.box((0, 0.06, 0.03), (0.03, 0.06, 0.01), black)
            s.box((0, 0.006, 0.02), (0.12, 0.006, 0.08), black)
        s.box((0.05, 0.752, -0.16), (0.2, 0.01, 0.07), s.paint(0.1, 0.8, 0.1))
        with s.at(-0.6, 0.74, 0.05):
            shaded_lamp(s, 0.45, 0.12, 30)
        with s.at(0.6, 0.74, 0.12):
            pile(s, 4, 0.13)
        with s.at(0.5, 0.74, -0.15):
            s.lathe(
                [(0.035, 0.0), (0.04, 0.09), (0.035, 0.09), (0.03, 0.01), (0.001, 0.01)], s.paint(gloss=0.7)
            )
        for x, y in ((-0.5, 1.6), (0.1, 1.75), (0.65, 1.55)):
            with s.at(x, y, 0.39):
                picture(s, (s.uniform(0.15, 0.25), s.uniform(0.15, 0.28)))
        with s.at(0.1, 0, -0.5, 180 + s.uniform(-30, 30)):
            chair(s, s.paint(0.1, 0.5))
    with s.at(-shell.width / 2 + 0.18, 0, 1.6, -90):
        bookcase(s, 1.0, 5)
    s.look((s.uniform(0.1, 0.6), 1.4, -0.4), (-0.15, 0.85, shell.far))


def bathroom(s: Stage) -> None:
    """A tub, a basin below a mirror, towels, all tiled."""
    shell = Shell(2.8, 2.5, -0.5, s.uniform(2.8, 3.4))
    room(
        s,
        shell,
        tiled(s, 8),
        tiled(s, 14, 0.45, 0.85),
        (Window("right", 0.3, 0.4, 1.3, 2.1, glow=8, bars=0),),
    )
    white = s.material(np.full(3, 0.8), 0.15)
    with s.at(-0.75, 0, shell.far - 0.95):
        s.sheet(_tub(0.36, 0.85, 0.55), white)
        s.rod((0, 0.75, 0.85), (0, 0.75, 0.65), 0.02, s.metal())
    with s.at(0.75, 0, shell.far - 0.3):
        s.box((0, 0.4, 0), (0.4, 0.4, 0.26), s.material(textures.wood(s.rng, s.brown()), 0.4))
        with s.at(0, 0.8, 0):
            s.lathe([(0.12, 0.0), (0.23, 0.13), (0.22, 0.13), (0.1, 0.02), (0.001, 0.015)], white)
        s.rod((0, 0.8, 0.22), (0, 1.05, 0.22), 0.014, s.metal())
        s.rod((0, 1.05, 0.22), (0, 1.03, 0.1), 0.012, s.metal())
        s.box((0, 1.55, 0.29), (0.4, 0.35, 0.01), s.material(s.brown(), 0.5))
        mirror = s.material(np.full(3, 0.85), 0.08, metallic=1.0)
        s.box((0, 1.55, 0.275), (0.37, 0.32, 0.008), mirror)
        for x in (-0.25, 0.28):
            with s.at(x, 0.8, -0.1):
                vase(s, s.uniform(0.1, 0.18))
    s.panel((0.75, 2.1, shell.far - 0.1), (0.75, 1.0, 1.0), (0.3, 0.05), (25 * WHITE).tolist())
    for number in range(2):
        s.box((1.35, 1.2, 0.8 + 0.5 * number), (0.025, 0.35, 0.18), s.paint(0.3, 0.8, 0.8, 0.0))
    s.look((s.uniform(-0.3, 0.3), 1.5, -0.3), (0.0, 0.7, shell.far))


def _tub(half_x: float, half_z: float, height: float) -> np.ndarray:
    """Profile and inside of a bathtub, as a grid of points."""
    line = [
        (0.75, 0.0),
        (0.95, 0.3),
        (1.0, 0.95),
        (1.05, 1.0),
        (0.97, 1.0),
        (0.9, 0.9),
        (0.75, 0.3),
        (0.0, 0.25),
    ]
    radius, y = np.asarray(line).T[..., None]
    angle = np.linspace(0, 2 * np.pi, 49)
    x, z = (np.sign(f) * np.abs(f) ** 0.5 for f in (np.cos(angle), np.sin(angle)))
    return np.stack([half_x * radius * x, height * y + 0 * x, half_z * radius * z], axis=-1)


def corridor(s: Stage) -> None:
    """A long corridor with doors, pictures, a runner and lamps in the ceiling."""
    shell = Shell(s.uniform(1.8, 2.3), 2.7, -0.8, s.uniform(9.0, 12.0))
    window = Window("far", 0.0, 0.5, 1.0, 2.1, glow=5)
    room(s, shell, tiled(s, 6, repeat=(2)), painted(s, 0.4, 0.75), (window,))
    half = shell.width / 2
    runner = textures.stripes(s.rng, [s.colour(0.1, 0.5, 0.9), s.colour(0.1, 0.6, 0.9)], 9)
    s.box((0, 0.006, 4.5), (0.4, 0.006, 4.3), s.material(runner, 0.95))
    door = s.material(textures.wood(s.rng, s.brown(), 2), 0.4)
    for side, turn in ((1, 90), (-1, -90)):
        for z in (1.8, 4.6, 7.4):
            with s.at(side * half, 0, z + (0.9 if side > 0 else 0.0), turn):
                s.box((0, 1.0, -0.02), (0.42, 1.0, 0.02), door)
                for x in (-0.46, 0.46):
                    s.box((x, 1.03, -0.03), (0.05, 1.03, 0.03), door)
                s.box((0, 2.1, -0.03), (0.51, 0.05, 0.03), door)
                s.ball((0.34, 1.0, -0.07), 0.03, s.metal())
                with s.at(1.3, 1.55, 0):
                    picture(s, (0.28, 0.36))
    for z in (1.5, 4.5, 7.5):
        s.panel((0, shell.height - 0.03, z), (0, 0, z), (0.3, 0.12), (9 * WHITE).tolist())
    for z in (3.3, 6.4):
        with s.at(half - 0.25, 0, z):
            plant(s, s.uniform(0.8, 1.2))
    with s.at(-half + 0.2, 0, 3.2, -90):
        table(s, (0.4, 0.16), 0.8)
        with s.at(0, 0.8, 0):
            vase(s, 0.4)
    s.look((s.uniform(-0.3, 0.3), 1.55, -0.5), (s.uniform(-0.2, 0.2), 1.2, 6))


def staircase(s: Stage) -> None:
    """A stair with balusters that rises across a hall, beside a tall window."""
    shell = Shell(6.0, 4.2, -1.2, s.uniform(4.4, 5.0))
    room(
        s,
        shell,
        tiled(s, 9),
        painted(s, 0.45, 0.8),
        (Window("far", 1.6, 0.6, 0.8, 3.4, glow=s.uniform(4, 8), bars=2),),
    )
    stone, wood = (
        s.material(textures.stone(s.rng, s.colour(0.4, 0.7, 0.25)), 0.5),
        s.material(s.brown(), 0.35),
    )
    rise, tread, front = 0.18, 0.3, shell.far - 1.5
    for step in range(13):
        x, top = 1.3 - tread * step, rise * (step + 1)
        s.box((x, top / 2, shell.far - 0.75), (tread / 2, top / 2, 0.74), stone)
        s.rod((x, top, front + 0.06), (x, top + 0.9, front + 0.06), 0.018, wood)
    s.rod(
        (1.45, rise + 0.85, front + 0.06), (1.3 - 12.5 * tread, 13 * rise + 0.98, front + 0.06), 0.035, wood
    )
    s.box((1.5, 0.6, front + 0.06), (0.07, 0.6, 0.07), wood)
    s.ball((1.5, 1.28, front + 0.06), 0.1, wood)
    with s.at(0.3, 0, front - 1.0, 20):
        sculpture(s)
    with s.at(2.5, 0, 2.2):
        plant(s, 1.5)
    with s.at(-0.9, 0, front - 0.3):
        pile(s, 3, 0.3)
    with s.at(0, shell.height, 1.6):
        pendant(s, 0.9, 0.4, 20)
    s.look((s.uniform(-0.6, 1.0), 1.6, -0.9), (0.1, 1.3, shell.far))


def gallery(s: Stage) -> None:
    """A hall of columns with sculptures and pictures."""
    shell = Shell(s.uniform(6.0, 7.0), 4.0, -1.0, s.uniform(8.0, 10.0))
    room(
        s,
        shell,
        s.material(textures.tiles(s.rng, s.colour(0.5, 0.8, 0.2), s.colour(0.1, 0.3, 0.3), 12), 0.2),
        painted(s, 0.3, 0.8),
    )
    stone = s.material(textures.stone(s.rng, s.colour(0.5, 0.8, 0.2)), 0.5)
    for z in (2.0, 4.6, 7.2):
        for x in (-2.2, 2.2):
            with s.at(x, 0, z):
                column(s, 4.0, 0.22, stone)
        with s.at(s.uniform(-0.9, 0.9), 0, z + 1.0):
            sculpture(s)
        s.panel((0, 3.97, z), (0, 0, z), (0.8, 0.3), (7 * WHITE).tolist())
    for x in (-1.8, 0.0, 1.8):
        with s.at(x, 1.8, shell.far):
            picture(s, (0.6, 0.5))
    for side, turn in ((1, 90), (-1, -90)):
        for z in (3.3, 5.9):
            with s.at(side * shell.width / 2, 1.7, z, turn):
                picture(s, (0.7, 0.5))
    with s.at(s.uniform(-1.5, -1.1), 0, 1.6):
        s.pillow((0, 0.25, 0), (0.35, 0.25, 0.35), s.paint(gloss=0.1), (0.4, 1.0))
    s.look((s.uniform(-0.8, 0.8), 1.6, -0.7), (s.uniform(-0.4, 0.4), 1.4, 5))


def attic(s: Stage) -> None:
    """A loft under a sloping roof with beams, chests and boxes."""
    far, half, eaves, ridge = s.uniform(5.0, 6.0), 2.4, 1.0, 3.1
    wood = s.material(textures.wood(s.rng, s.brown(), 9), 0.8)
    s.box((0, -0.06, far / 2 - 0.5), (half + 0.2, 0.06, far / 2 + 0.7), boards(s))
    plank, slope = (
        s.material(textures.wood(s.rng, s.brown(), 12), 0.8),
        np.degrees(np.arctan2(ridge - eaves, half)),
    )
    long = np.hypot(half, ridge - eaves) / 2 + 0.05
    for side in (-1, 1):
        middle = (side * half / 2, (eaves + ridge) / 2 + 0.06, far / 2 - 0.5)
        s.box(middle, (long, 0.05, far / 2 + 0.7), plank, tilt=-side * slope)
        s.box((side * half, eaves / 2, far / 2 - 0.5), (0.05, eaves / 2, far / 2 + 0.7), plank)
        for z in np.arange(0.6, far, 1.2).tolist():
            s.box(
                (side * half / 2, (eaves + ridge) / 2 - 0.06, z), (long, 0.06, 0.06), wood, tilt=-side * slope
            )
    for z in np.arange(0.6, far, 1.2).tolist():
        s.box((0, 2.25, z), (1.0, 0.06, 0.05), wood)
    s.box((0, ridge / 2, -1.2), (half, ridge / 2, 0.05), plank)
    for x in (-1, 1):
        s.box((x * (half + 0.4) / 2, ridge / 2, far + 0.05), ((half - 0.4) / 2, ridge / 2, 0.05), plank)
    for y, high in ((0.45, 0.45), (2.45, 0.65)):
        s.box((0, y, far + 0.05), (0.42, high, 0.05), plank)
    s.panel((0, 1.35, far + 0.08), (0, 1.35, 0), (0.42, 0.47), [14, 15, 17])
    for _ in range(9):
        side = 1 if s.uniform(0, 1) < 0.5 else -1
        size = s.uniform(0.15, 0.3)
        with s.at(side * s.uniform(0.8, 1.8), 0, s.uniform(1.6, far - 0.5), s.uniform(0, 90)):
            s.box((0, size, 0), (size * 1.2, size, size), s.material(textures.plaster(s.rng, s.brown()), 0.9))
            if size > 0.22:
                s.ball((0, 2 * size + 0.13, 0), 0.13, s.paint(0.2, 0.7, 0.9))
    with s.at(s.uniform(0.4, 0.8), 0, 2.6, s.uniform(-160, -120)):
        chair(s, wood)
    with s.at(-0.7, 0, 2.4):
        shaded_lamp(s, 1.2, 0.18, 14)
    s.look((s.uniform(-0.4, 0.4), 1.45, -0.7), (0, 1.0, far))


def workshop(s: Stage) -> None:
    """A bench with tools, shelves of boxes, tyres, a ladder, tubes of light."""
    shell = Shell(5.0, 2.9, -0.8, s.uniform(4.6, 5.4))
    room(
        s,
        shell,
        s.material(textures.plaster(s.rng, s.colour(0.25, 0.5, 0.1)), 0.8),
        brick(s, 2),
        (Window("right", 0.5, 0.9, 1.2, 2.2, glow=4, bars=2),),
    )
    for x in (-1.0, 1.0):
        s.panel((x, 2.85, 2.2), (x, 0, 2.2), (0.08, 0.7), (18 * WHITE).tolist())
    with s.at(-0.6, 0, shell.far - 0.45):
        table(s, (1.2, 0.38), 0.9)
        for x in np.linspace(-1.0, 1.0, 7).tolist():
            with s.at(x, 0.9, s.uniform(-0.15, 0.2), s.uniform(0, 90)):
                if s.uniform(0, 1) < 0.5:
                    pile(s, 2, s.uniform(0.08, 0.14))
                else:
                    s.rod((0, 0, 0), (0, s.uniform(0.1, 0.25), 0), s.uniform(0.03, 0.07), s.metal())
        s.box((0, 1.7, 0.41), (1.1, 0.4, 0.02), s.material(textures.wood(s.rng, s.brown()), 0.8))
        for x in np.linspace(-0.9, 0.9, 8).tolist():
            s.rod((x, 1.45, 0.35), (x, 1.45 + s.uniform(0.2, 0.4), 0.35), 0.018, s.paint(0.1, 0.7, 0.9))
            s.box((x, 1.45, 0.35), (0.05, 0.03, 0.02), s.metal())
    with s.at(1.75, 0, shell.far - 0.3):
        for level in range(4):
            s.box((0, 0.3 + 0.6 * level, 0), (0.65, 0.015, 0.25), s.metal())
            for x in (-0.4, 0.0, 0.4):
                size = s.uniform(0.11, 0.17)
                s.box(
                    (x, 0.315 + 0.6 * level + size, 0),
                    (size, size, size),
                    s.paint(0.1, 0.7, 0.8),
                    s.uniform(-15, 15),
                )
        for x in (-0.65, 0.65):
            for z in (-0.24, 0.24):
                s.box((x, 1.15, z), (0.02, 1.15, 0.02), s.metal())
    rubber = s.material(np.full(3, 0.04), 0.6)
    for number in range(3):
        with s.at(1.4, 0.12 + 0.23 * number, 2.6):
            s.sheet(_tyre(), rubber)
    with s.at(-1.7, 0.0, 1.9, s.uniform(-20, 20)):
        s.rod((0, 0, 0), (0, 0.85, 0), 0.28, s.paint(0.2, 0.6, 0.9, 0.7))
    s.look((s.uniform(-0.5, 0.5), 1.6, -0.5), (0, 0.9, shell.far))


def _tyre() -> np.ndarray:
    """A torus about the y axis."""
    u, v = np.linspace(0, 2 * np.pi, 49)[:, None], np.linspace(0, 2 * np.pi, 17)
    out = 0.24 + 0.11 * np.cos(v)
    return np.stack([out * np.cos(u), 0.11 * np.sin(v) + 0 * u, out * np.sin(u)], axis=-1)


def sunroom(s: Stage) -> None:
    """Plants, a bench and a table in the sun that comes through open windows."""
    shell = Shell(s.uniform(4.2, 5.0), 3.0, -0.6, s.uniform(4.4, 5.2))
    sides = Window("left", 0.3, 1.7, 0.5, 2.7, bars=2), Window("far", 0.0, 1.4, 0.6, 2.7, bars=2)
    room(s, shell, tiled(s, 9, 0.3, 0.7), painted(s, 0.6, 0.85, 0.2), sides)
    ground(s, s.material(textures.plaster(s.rng, np.array([0.12, 0.2, 0.06])), 0.9))
    s.sky(s.uniform(60, 110), s.uniform(28, 45), s.uniform(2.5, 5))
    for x, z in ((1.6, 3.6), (0.5, 4.0), (-0.7, 3.9), (-1.7, 3.4), (-1.8, 1.8)):
        with s.at(x, 0, z):
            plant(s, s.uniform(0.8, 1.7), 140)
    with s.at(0.1, 0, 2.3, s.uniform(-20, 20)):
        table(s, (0.45, 0.45), 0.7)
        with s.at(0, 0.7, 0):
            vase(s, 0.3)
        for yaw in (100, 250):
            with s.at(0, 0, 0, yaw), s.at(0, 0, 0.8):
                chair(s, s.paint(0.4, 0.8))
    for z in (6.5, 8.0, 11.0):
        with s.at(s.uniform(-3, 3), 0, shell.far + z - 4):
            s.pillow((0, 0.6, 0), (0.9, 0.7, 0.9), s.material(np.array([0.08, 0.18, 0.04]), 0.9), (1, 1))
    s.look((s.uniform(-0.8, 0.2), 1.6, -0.35), (0.1, 0.9, shell.far))
