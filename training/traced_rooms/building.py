"""Walls, windows and ground of path-traced rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.traced_rooms import textures
from training.traced_rooms.furniture import DAY, curtain
from training.traced_rooms.stage import Stage

Side = Literal["left", "right", "far", "near"]
THICK = 0.12


@dataclass(frozen=True)
class Window:
    """An opening in a wall.

    Attributes:
        side: the wall.
        middle: its place along the wall, in metres.
        half: half its width.
        sill: height of its lower edge.
        top: height of its upper edge.
        glow: radiance of the bright sky behind it; 0 leaves it open to what is outside.
        bars: bars across each way.
    """

    side: Side
    middle: float = 0.0
    half: float = 0.7
    sill: float = 0.9
    top: float = 2.2
    glow: float = 0.0
    bars: int = 1


@dataclass(frozen=True)
class Shell:
    """An empty room: x from -width / 2 to width / 2, y from 0 to height, z from near to far."""

    width: float
    height: float
    near: float
    far: float

    def wall(self, side: Side) -> tuple[tuple[float, float, float], float, float]:
        """Return a wall's middle at the floor, the turn that makes its inner face look to -z, its length."""
        deep, middle = self.far - self.near, (self.far + self.near) / 2
        return {
            "far": ((0.0, 0.0, self.far), 0.0, self.width),
            "near": ((0.0, 0.0, self.near), 180.0, self.width),
            "left": ((self.width / 2, 0.0, middle), 90.0, deep),
            "right": ((-self.width / 2, 0.0, middle), -90.0, deep),
        }[side]


def room(
    s: Stage, shell: Shell, floor: Any, walls: Any, windows: tuple[Window, ...] = (), ceiling: Any = None
) -> None:
    """Build floor, walls with windows, skirting and ceiling."""
    deep, middle = (shell.far - shell.near) / 2, (shell.far + shell.near) / 2
    half = (shell.width / 2 + THICK, THICK / 2, deep + THICK)
    s.box((0, -THICK / 2, middle), half, floor)
    top = ceiling or s.material(np.full(3, s.uniform(0.65, 0.85)), 0.9)
    s.box((0, shell.height + THICK / 2, middle), half, top)
    white = s.material(np.full(3, s.uniform(0.4, 0.8)), 0.5)
    for side in ("left", "right", "far", "near"):
        window = next((w for w in windows if w.side == side), None)
        place, yaw, length = shell.wall(side)
        with s.at(*place, yaw):
            _wall(s, length, shell.height, walls, window)
            s.box((0, 0.05, -0.01), (length / 2, 0.05, 0.01), white)
            if window is not None:
                _frame(s, window, white)


def _wall(s: Stage, length: float, height: float, material: Any, window: Window | None) -> None:
    """A wall in pieces around its window; its inner face is at z = 0 and looks to -z."""
    deep = THICK / 2
    if window is None:
        s.box((0, height / 2, deep), (length / 2, height / 2, deep), material)
        return
    start, end = window.middle - window.half, window.middle + window.half
    for a, b in ((-length / 2, start), (end, length / 2)):
        s.box(((a + b) / 2, height / 2, deep), ((b - a) / 2, height / 2, deep), material)
    for a, b in ((0.0, window.sill), (window.top, height)):
        if b > a:
            s.box((window.middle, (a + b) / 2, deep), (window.half, (b - a) / 2, deep), material)


def _frame(s: Stage, window: Window, material: Any) -> None:
    """Frame, bars and, where it glows, the sky of a window."""
    half, tall = window.half, (window.top - window.sill) / 2
    with s.at(window.middle, window.sill + tall, THICK / 2):
        for x in (-1, 1):
            s.box((x * half, 0, 0), (0.03, tall + 0.03, THICK / 2 + 0.02), material)
            s.box((0, x * tall, 0), (half + 0.03, 0.03, THICK / 2 + 0.02), material)
        for number in range(window.bars):
            part = 2 * (number + 1) / (window.bars + 1) - 1
            s.box((part * half, 0, 0), (0.015, tall, 0.015), material)
            s.box((0, part * tall, 0), (half, 0.015, 0.015), material)
        if window.glow > 0:
            s.panel((0, 0, 0.1), (0, 0, -1), (half, tall), (window.glow * DAY).tolist())


def curtains(s: Stage, shell: Shell, window: Window) -> None:
    """Curtains beside a window."""
    cloth = s.material(textures.stripes(s.rng, [s.colour(0.2, 0.8, 0.7), s.colour(0.2, 0.8, 0.4)], 30), 0.9)
    place, yaw, _ = shell.wall(window.side)
    with s.at(*place, yaw):
        for side in (-1, 1):
            with s.at(window.middle + side * (window.half + 0.15), 0.1, -0.14):
                curtain(s, 0.55, window.top, cloth)
        y = window.top + 0.12
        ends = (window.middle - window.half - 0.5, y, -0.14), (window.middle + window.half + 0.5, y, -0.14)
        s.rod(*ends, 0.015, s.metal())


def boards(s: Stage, repeat: float = 1.0) -> Any:
    """A floor of boards along z."""
    return s.material(
        np.swapaxes(textures.wood(s.rng, s.brown(), 8), 0, 1), s.uniform(0.3, 0.6), repeat=repeat
    )


def painted(s: Stage, low: float = 0.3, high: float = 0.8, chroma: float = 0.25) -> Any:
    """A wall's paint."""
    return s.material(textures.plaster(s.rng, s.colour(low, high, chroma)), 0.9)


def tiled(s: Stage, count: int, low: float = 0.2, high: float = 0.8, *, repeat: float = 1.0) -> Any:
    """Tiles of two colours."""
    face = textures.tiles(s.rng, s.colour(low, high, 0.25), s.colour(low, high, 0.25), count)
    return s.material(face, s.uniform(0.2, 0.5), repeat=repeat)


def brick(s: Stage, repeat: float | tuple[float, float] = 1.0) -> Any:
    """A wall of bricks."""
    return s.material(textures.bricks(s.rng, s.colour(0.25, 0.5) * [1.0, 0.6, 0.45]), 0.9, repeat=repeat)


def ground(s: Stage, material: Any) -> None:
    """The ground outdoors, y = 0, and hills around it that hide where it ends."""
    s.box((0, -0.5, 0), (60, 0.5, 60), material)
    angle, out = np.linspace(0, 2 * np.pi, 121), np.linspace(0, 1, 12)[:, None]
    waves = sum(np.sin(k * angle + s.uniform(0, 6)) / k for k in (3, 7, 16, 31))
    radius, high = 35 + 20 * out, 9 * out * (1 + 0.35 * waves * out) - 0.3
    around = np.stack([radius * np.cos(angle), high, radius * np.sin(angle)], axis=-1)
    green = textures.plaster(s.rng, np.array([0.09, 0.16, 0.05]))
    s.sheet(around, s.material(green, 0.9))
