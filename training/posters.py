"""Flat pictures of another domain: stripes, checks, discs and strokes in two colours, without any shading."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from redepth.data.scenes.canvas import Canvas

LAYERS = 2
"""Patterns of a poster, one over the other."""


def _edge(distance: Tensor, width: float = 0.02) -> Tensor:
    return torch.sigmoid(distance / width)


def _stripes(c: Canvas) -> Tensor:
    x, _ = c.rotated()
    return _edge(torch.sin(c.log_uniform(4, 30) * x + c.uniform(0, 2 * math.pi)) - c.uniform(-0.5, 0.5), 0.1)


def _checks(c: Canvas) -> Tensor:
    x, y = c.rotated()
    rate = c.log_uniform(3, 16)
    return _edge(torch.sin(rate * x) * torch.sin(rate * y), 0.05)


def _discs(c: Canvas) -> Tensor:
    found = c.zeros()
    for _ in range(7):
        found = torch.maximum(found, _edge(c.log_uniform(0.06, 0.5) - c.distance()))
    return found


def _strokes(c: Canvas) -> Tensor:
    """Short straight strokes of one width, as letters have."""
    found, width = c.zeros(), c.uniform(0.02, 0.07)
    for _ in range(10):
        angle, length = c.uniform(0, math.pi), c.log_uniform(0.1, 0.5)
        dx, dy = c.x - c.uniform(-1, 1), c.y - c.uniform(-1, 1)
        along = dx * torch.cos(angle) + dy * torch.sin(angle)
        across = dy * torch.cos(angle) - dx * torch.sin(angle)
        beyond = (along.abs() - length).clamp(min=0)
        found = torch.maximum(found, _edge(width - torch.hypot(beyond, across)))
    return found


PATTERNS = {"stripes": _stripes, "checks": _checks, "discs": _discs, "strokes": _strokes}


def posters(count: int, generator: Generator, side: int) -> tuple[Tensor, list[str]]:
    """Draw pictures (count, 3, side, side) in [0, 1], and a caption of each."""
    c = Canvas(count, side, side, generator)
    picture = c.rand(count, 3, 1, 1).expand(count, 3, side, side)
    captions = ["poster"] * count
    for _ in range(LAYERS):
        chosen, ink = c.integers(len(PATTERNS)), c.rand(count, 3, 1, 1)
        drawn = torch.stack([pattern(c) for pattern in PATTERNS.values()])
        cover = drawn[chosen, torch.arange(count)][:, None]
        picture = (1 - cover) * picture + cover * ink
        captions = [f"{said}, {list(PATTERNS)[i]}" for said, i in zip(captions, chosen.tolist(), strict=True)]
    return picture, captions
