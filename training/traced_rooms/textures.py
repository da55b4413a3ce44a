"""Procedural bitmaps for the surfaces of path-traced rooms: linear colours, (H, W, 3) in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SIDE = 256


def noise(rng: Generator, across: int, down: int, octaves: int = 3) -> Array:
    """Smooth noise of about unit variance, (SIDE, SIDE), with ``across`` x ``down`` features at first."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(octaves):
        grid = torch.from_numpy(rng.standard_normal((1, 1, (down << octave) + 3, (across << octave) + 3)))
        fine = F.interpolate(grid, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
        total += fine[0, 0].numpy() / 2**octave
    return total


def mixed(share: Array, first: ArrayLike, second: ArrayLike) -> Array:
    """Go from one colour to another by a share (H, W), which is clipped to [0, 1]."""
    share = np.clip(share, 0, 1)[..., None]
    return (1 - share) * np.asarray(first) + share * np.asarray(second)


def _cells(across: int, down: int, shift: float = 0.0) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return the row and column of each pixel's cell, and its distance to the cell's border."""
    v, u = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    row = np.floor(v * down).astype(np.intp)
    along = u * across + shift * (row % 2)
    to_border = np.minimum(_to_whole(along) / across, _to_whole(v * down) / down)
    return row, np.floor(along).astype(np.intp), to_border


def _to_whole(values: Array) -> Array:
    return np.abs(values - np.round(values))


def plaster(rng: Generator, colour: ArrayLike) -> Array:
    """Paint with faint blotches."""
    return np.clip(np.asarray(colour) * (1 + 0.05 * noise(rng, 5, 5, 4))[..., None], 0, 0.95)


def wood(rng: Generator, colour: ArrayLike, planks: int = 5) -> Array:
    """Planks along u with grain."""
    row, _, _ = _cells(1, planks)
    grain = noise(rng, 3, 40, 2)
    tone = rng.uniform(0.75, 1.15, planks + 1)[row] * (1 + 0.14 * grain)
    _, _, gap = _cells(1, planks)
    tone = np.where(gap < 0.004, 0.4 * tone, tone)
    return np.clip(np.asarray(colour) * tone[..., None], 0, 0.95)


def tiles(rng: Generator, first: ArrayLike, second: ArrayLike, count: int = 8) -> Array:
    """Square tiles of two colours in turn, with grey joints."""
    row, column, gap = _cells(count, count)
    face = mixed(((row + column) % 2) + 0.1 * noise(rng, 6, 6), first, second)
    face *= rng.uniform(0.88, 1.08, (count + 1, count + 1))[row, column][..., None]
    return np.clip(np.where((gap < 0.005)[..., None], 0.35, face), 0, 0.95)


def bricks(rng: Generator, colour: ArrayLike, joints: float = 0.45) -> Array:
    """Rows of bricks, each shifted by half a brick."""
    row, column, gap = _cells(7, 16, 0.5)
    tone = rng.uniform(0.65, 1.2, (17, 9))[row, column] * (1 + 0.1 * noise(rng, 20, 20, 2))
    face = np.asarray(colour) * tone[..., None]
    return np.clip(np.where((gap < 0.006)[..., None], joints, face), 0, 0.95)


def stripes(rng: Generator, colours: Sequence[ArrayLike], count: int = 12) -> Array:
    """Stripes along v, woven: threads show faintly."""
    v, u = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    chosen = rng.integers(len(colours), size=count + 1)[np.floor(u * count).astype(np.intp)]
    threads = 1 + 0.08 * np.sign(np.sin(90 * 2 * np.pi * u) * np.sin(90 * 2 * np.pi * v))
    return np.clip(np.asarray(colours)[chosen] * threads[..., None], 0, 0.95)


def rug(rng: Generator, colours: Sequence[ArrayLike]) -> Array:
    """Frames inside frames around a field of lozenges."""
    v, u = np.abs(np.mgrid[0:SIDE, 0:SIDE] / (SIDE / 2) - 1)
    ring = np.maximum(u, v)
    lozenge = (np.floor(8 * (u + v)) + np.floor(8 * np.abs(u - v))) % 2
    chosen = np.where(ring > 0.62, np.floor(12 * ring) % len(colours), lozenge).astype(np.intp)
    return np.clip(np.asarray(colours)[chosen] * (1 + 0.1 * noise(rng, 40, 40, 1))[..., None], 0, 0.95)


def stone(rng: Generator, colour: ArrayLike) -> Array:
    """Veins in stone."""
    veins = np.exp(-8 * np.abs(noise(rng, 4, 4, 4)))
    return np.clip(np.asarray(colour) * (1 + 0.08 * noise(rng, 8, 8) - 0.35 * veins)[..., None], 0.02, 0.95)


def painting(rng: Generator, colours: Sequence[ArrayLike]) -> Array:
    """Fields of colour, as on a canvas."""
    picture = np.broadcast_to(np.asarray(colours[0], dtype=float), (SIDE, SIDE, 3))
    for colour in colours[1:]:
        picture = mixed(4 * noise(rng, 2, 2, 3), picture, colour)
    return picture
