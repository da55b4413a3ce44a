"""Things that stand in path-traced rooms; each is placed by `Stage.at`, with its foot at y = 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.traced_rooms import textures
from training.traced_rooms.stage import Array, Stage

WARM, DAY, WHITE = np.array([1.0, 0.72, 0.42]), np.array([0.8, 0.92, 1.1]), np.array([1.0, 0.95, 0.88])


def legs(s: Stage, half: tuple[float, float], height: float, material: Any, thick: float = 0.03) -> None:
    """Four legs below a top."""
    for x in (-1, 1):
        for z in (-1, 1):
            place = (x * (half[0] - thick), height / 2, z * (half[1] - thick))
            s.box(place, (thick, height / 2, thick), material)


def table(s: Stage, half: tuple[float, float], height: float) -> Any:
    """A table of wood; return its material."""
    wood = s.material(textures.wood(s.rng, s.brown(), 4), s.uniform(0.3, 0.6))
    s.box((0, height - 0.02, 0), (half[0], 0.02, half[1]), wood)
    s.box((0, height - 0.09, 0), (half[0] - 0.06, 0.05, half[1] - 0.06), wood)
    legs(s, (half[0] - 0.03, half[1] - 0.03), height - 0.04, wood)
    return wood


def chair(s: Stage, material: Any) -> None:
    """A chair that faces -z, with a back of slats."""
    s.box((0, 0.44, 0), (0.21, 0.02, 0.2), material)
    legs(s, (0.2, 0.19), 0.44, material, 0.02)
    for x in (-0.19, 0.19):
        s.box((x, 0.68, 0.19), (0.02, 0.25, 0.015), material)
    for x in (-0.1, 0.0, 0.1):
        s.box((x, 0.68, 0.19), (0.018, 0.2, 0.008), material)
    s.box((0, 0.91, 0.19), (0.21, 0.035, 0.018), material)


def sofa(s: Stage, width: float) -> None:
    """A sofa that faces -z, with cushions."""
    cloth = s.paint(0.15, 0.6, gloss=0.1)
    s.pillow((0, 0.22, 0.05), (width / 2, 0.2, 0.42), cloth, (0.2, 0.2))
    s.pillow((0, 0.55, 0.4), (width / 2, 0.36, 0.14), cloth, (0.3, 0.2))
    for x in (-1, 1):
        s.pillow((x * width / 2, 0.38, 0.05), (0.12, 0.28, 0.42), cloth, (0.3, 0.3))
    for x in (-0.25, 0.25):
        s.pillow((x * width, 0.45, -0.02), (width * 0.22, 0.1, 0.34), cloth, (0.4, 0.3))
    for _ in range(3):
        with s.at(s.uniform(-0.35, 0.35) * width, 0.68, 0.14, s.uniform(-20, 20), s.uniform(-20, 20)):
            s.pillow((0, 0, 0), (0.2, 0.2, 0.08), s.paint(gloss=0.1), (0.9, 0.45))


def vase(s: Stage, height: float) -> None:
    """A vase of a random outline."""
    radii = [s.uniform(0.2, 0.5), s.uniform(0.4, 0.8), s.uniform(0.15, 0.5), s.uniform(0.2, 0.4)]
    knots = [(0.001, 0.0), (radii[0] * 0.5, 0.002)]
    knots += [(0.55 * r * height, y * height) for r, y in zip(radii, (0.1, 0.4, 0.8, 1.0), strict=True)]
    s.turned(knots, s.paint(0.2, 0.8, gloss=0.7))


def plant(s: Stage, height: float, count: int = 90) -> None:
    """Leaves on a stem, in a pot."""
    pot = 0.22 * height
    s.lathe(
        [(0.001, 0.01), (pot * 0.6, 0.01), (pot * 0.85, pot), (pot * 0.7, pot * 0.95), (0.001, pot * 0.9)],
        s.paint(),
    )
    stem = s.material(np.array([0.15, 0.12, 0.05]))
    s.rod((0, pot * 0.8, 0), (0.03, 0.75 * height, 0.02), 0.015 * height, stem)
    crown(s, (0, 0.7 * height, 0), np.array([0.3, 0.32, 0.3]) * height, count, 0.1 * height)


def crown(s: Stage, centre: tuple[float, float, float], half: Array, count: int, leaf: float) -> None:
    """A cloud of leaves."""
    green = np.array([s.uniform(0.06, 0.2), s.uniform(0.2, 0.4), s.uniform(0.03, 0.12)])
    out = s.rng.standard_normal((count, 3))
    out *= s.rng.uniform(0.3, 1.0, (count, 1)) / np.linalg.norm(out, axis=1, keepdims=True)
    s.leaves(np.asarray(centre) + out * half, leaf, s.material(green, 0.5))


def books(s: Stage, width: float, tallest: float) -> None:
    """A row of books from -width / 2 on, some left out; their backs face -z."""
    x = -width / 2
    colours = [s.paint(0.06, 0.7, 0.8) for _ in range(5)]
    while x < width / 2 - 0.05:
        thick = s.uniform(0.012, 0.032)
        if s.uniform(0, 1) < 0.07:
            x += s.uniform(0.04, 0.2)
            continue
        tall, deep = tallest * s.uniform(0.62, 0.95) / 2, s.uniform(0.07, 0.1)
        lean = s.uniform(6, 12) if s.uniform(0, 1) < 0.06 else 0.0
        s.box((x + thick, tall, deep - 0.1), (thick, tall, deep), colours[int(s.rng.integers(5))], tilt=lean)
        x += 2 * thick + 0.002


def bookcase(s: Stage, width: float, shelves: int, gap: float = 0.34) -> None:
    """Shelves with books and things; its front faces -z."""
    wood = s.material(textures.wood(s.rng, s.brown(), 2), 0.5)
    top = shelves * gap
    for x in (-1, 1):
        s.box((x * width / 2, top / 2 + 0.02, 0), (0.015, top / 2 + 0.03, 0.15), wood)
    s.box((0, top / 2, 0.145), (width / 2, top / 2, 0.005), wood)
    for number in range(shelves + 1):
        s.box((0, number * gap + 0.02, 0), (width / 2, 0.014, 0.15), wood)
    for number in range(shelves):
        with s.at(0, number * gap + 0.034, 0):
            if s.uniform(0, 1) < 0.75:
                books(s, width - 0.05, gap - 0.05)
                continue
            for place in (-0.3, 0.05, 0.33):
                with s.at(place * width, 0, -0.02):
                    vase(s, gap * s.uniform(0.4, 0.8))


def shaded_lamp(s: Stage, height: float, shade: float, power: float) -> None:
    """A lamp on a stand under a shade."""
    s.lathe([(0.001, 0.03), (0.13 * shade / 0.2, 0.02), (0.14 * shade / 0.2, 0.0)], s.metal())
    s.rod((0, 0.02, 0), (0, height - 0.7 * shade, 0), 0.012, s.metal())
    cloth = s.material(s.colour(0.6, 0.85, 0.3), 0.9)
    s.lathe([(shade, height - 1.2 * shade), (0.6 * shade, height)], cloth)
    s.bulb((0, height - 0.75 * shade, 0), 0.3 * shade, (power * WARM).tolist())


def pendant(s: Stage, drop: float, radius: float, power: float) -> None:
    """A lamp that hangs from y = 0."""
    s.rod((0, 0, 0), (0, -drop, 0), 0.006, s.metal())
    bell = [(0.02, 0.05), (0.4 * radius, 0.0), (0.8 * radius, -0.35 * radius), (radius, -0.8 * radius)]
    with s.at(0, -drop, 0):
        s.turned(bell, s.paint(0.1, 0.7, gloss=0.6))
    s.bulb((0, -drop - 0.55 * radius, 0), 0.35 * radius, (power * WARM).tolist())


def picture(s: Stage, half: tuple[float, float]) -> None:
    """A framed picture whose back is at z = 0 and whose face looks towards -z."""
    frame = s.material(s.brown(), 0.4)
    canvas = s.material(textures.painting(s.rng, [s.colour(0.1, 0.8, 0.9) for _ in range(4)]), 0.8)
    s.box((0, 0, -0.015), (half[0], half[1], 0.015), frame)
    s.box((0, 0, -0.026), (half[0] - 0.05, half[1] - 0.05, 0.008), canvas)


def curtain(s: Stage, width: float, height: float, material: Any) -> None:
    """Cloth in folds, hanging down to y = 0 in the plane z = 0."""
    u, v = np.linspace(0, 1, 80), np.linspace(0, 1, 12)[:, None]
    waves = 2 * np.pi * s.uniform(4, 7) * u
    fold = 0.05 * (0.6 + 0.6 * (1 - v)) * np.sin(waves + 0.6 * np.sin(3 * v))
    s.sheet(np.stack([width * (u - 0.5) + 0 * v, height * v + 0 * u, fold], axis=-1), material)


def bed(s: Stage, width: float) -> None:
    """A bed with its head at z = 1, a blanket and pillows."""
    s.box((0, 0.2, 0), (width / 2, 0.1, 1.0), s.material(textures.wood(s.rng, s.brown()), 0.4))
    s.box((0, 0.6, 1.03), (width / 2 + 0.05, 0.5, 0.03), s.material(textures.wood(s.rng, s.brown()), 0.4))
    s.pillow((0, 0.4, 0), (width / 2, 0.14, 1.0), s.material(np.array([0.75, 0.73, 0.7]), 0.9), (0.2, 0.1))
    cloth = textures.stripes(s.rng, [s.colour(0.15, 0.8, 0.7) for _ in range(3)])
    s.pillow((0, 0.43, -0.3), (width / 2 + 0.04, 0.15, 0.75), s.material(cloth, 0.9), (0.3, 0.12))
    for x in (-0.24, 0.24):
        with s.at(x * width, 0.6, 0.72, s.uniform(-8, 8)):
            s.pillow((0, 0, 0), (width * 0.2, 0.09, 0.22), s.paint(0.5, 0.85, 0.3, 0.1), (1.0, 0.4))


def pile(s: Stage, count: int, half: float) -> None:
    """Boxes or books lying on one another."""
    y = 0.0
    for _ in range(count):
        high = s.uniform(0.12, 0.3) * half
        x, z = s.uniform(-0.1, 0.1) * half, s.uniform(-0.1, 0.1) * half
        s.box(
            (x, y + high, z),
            (half * s.uniform(0.8, 1), high, half * s.uniform(0.6, 0.8)),
            s.paint(),
            s.uniform(-25, 25),
        )
        y += 2 * high


def column(s: Stage, height: float, radius: float, material: Any) -> None:
    """A round column with base and capital."""
    s.box((0, 0.06, 0), (1.4 * radius, 0.06, 1.4 * radius), material)
    s.box((0, height - 0.06, 0), (1.4 * radius, 0.06, 1.4 * radius), material)
    line = [(1.3, 0.12), (1.35, 0.2), (1.05, 0.3), (1.0, 0.34), (0.95, height - 0.4), (1.0, height - 0.34)]
    line += [(1.2, height - 0.2), (1.3, height - 0.12)]
    s.lathe([(r * radius, y) for r, y in line], material)


def tree(s: Stage, height: float) -> None:
    """A trunk with branches and a crown of leaves."""
    bark = s.material(textures.plaster(s.rng, np.array([0.2, 0.14, 0.09])), 0.9)
    s.rod((0, 0, 0), (0.05, 0.6 * height, 0), 0.045 * height, bark)
    for _ in range(4):
        end = (s.uniform(-0.25, 0.25) * height, 0.8 * height, s.uniform(-0.25, 0.25) * height)
        s.rod((0.03, 0.45 * height, 0), end, 0.02 * height, bark)
    crown(s, (0, 0.78 * height, 0), np.array([0.32, 0.26, 0.32]) * height, 700, 0.05 * height)


def sculpture(s: Stage) -> None:
    """A plinth with a form on it, 1.8 high in all."""
    s.box((0, 0.5, 0), (0.25, 0.5, 0.25), s.material(np.full(3, s.uniform(0.5, 0.8)), 0.7))
    stuff = (
        s.material(textures.stone(s.rng, s.colour(0.3, 0.8, 0.3)), 0.3)
        if s.uniform(0, 1) < 0.6
        else s.metal()
    )
    kind = int(s.rng.integers(4))
    with s.at(0, 1.35, 0, s.uniform(0, 180), s.uniform(-15, 15)):
        if kind == 0:
            s.ring((0, 0, 0), 0.25, 0.09, stuff)
        elif kind == 1:
            power = (s.uniform(0.3, 2.0), s.uniform(0.3, 2.0))
            s.pillow((0, 0, 0), (0.25, 0.36, 0.25), stuff, power)
        elif kind == 2:
            s.turned([(0.2, -0.35), (0.1, -0.2), (0.25, 0.0), (0.06, 0.2), (0.14, 0.3), (0.001, 0.42)], stuff)
        else:
            for y, size in ((-0.2, 0.16), (0.05, 0.12), (0.23, 0.08)):
                s.ball((s.uniform(-0.04, 0.04), y, 0), size, stuff)
