"""What the page computes with: the normals for its light, and the surfaces for its view in 3D."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from redepth.exports.mesh import whole_cells
from redepth.exports.points import stride
from redepth.exports.source import Array, Source
from redepth.exports.surface import EDGE, Indices, Surface
from redepth.exports.viewer.encoding import logarithmic, octahedral, packed
from redepth.exports.viewer.pictures import nearest, sampled, size_of
from redepth.viz import normals_at_size

NORMALS = (400_000, 200_000, 100_000, 50_000)
"""Pixels of a map of normals: the first of these limits at which both maps take `NORMALS_BYTES`, or the last.

A network of 518 x 768 pixels has fewer than the first.
"""
NORMALS_BYTES = 2_200_000
VERTICES = 160_000
"""Of each surface, at most, borders apart."""


def light_of(source: Source) -> dict[str, Any]:
    """Return the normals before and after, and the camera that shading needs, as plain data."""
    camera = source.camera
    for pixels in NORMALS:
        height, width = _within(source.normals_after.shape[:2], pixels)
        before, after = (
            _normals(normals, height, width, camera.closed)
            for normals in (source.normals_before, source.normals_after)
        )
        if sum(map(len, before + after)) <= NORMALS_BYTES:
            break
    size = source.photo.shape[:2]
    return {
        "height": height,
        "width": width,
        "closed": camera.closed,
        "intrinsics": list(camera.normalized_intrinsics(*size)) if camera.pinhole else None,
        "before": before,
        "after": after,
    }


def space_of(source: Source) -> dict[str, Any]:
    """Return both surfaces on one grid, with the coordinates of its rows and columns, as plain data.

    A point is that of `Surface.points`: (u, v, -z) for an orthographic camera, (z u, z v, -z) for a pinhole,
    and on the ray of azimuth u and elevation v for a panorama.
    """
    height, width = source.photo.shape[:2]
    after = _reduced(Surface.of(source), source)
    step = stride(*after.size, VERTICES)
    rows = _every(step, after.size[0] - 1)
    # Column W of a closed panorama is column 0, at the other end of the photo.
    columns = _every(step, after.size[1] - (not source.camera.closed))
    down, across = nearest(height, after.size[0]), nearest(width, after.size[1])
    u, v = (axis.double().numpy() for axis in source.camera.axes(height, width))
    at_rows, at_columns = down[rows], across[columns % len(across)]
    surfaces = {"after": after, "before": _reduced(Surface.of(source, "initial"), source)}
    return {
        "camera": source.camera.kind,
        "unit": after.unit,
        "u": u[at_columns].tolist(),
        "v": v[at_rows].tolist(),
        "s": ((columns + 0.5) / len(across)).tolist(),
        "t": (1 - (rows + 0.5) / len(down)).tolist(),
        "fov": source.camera.field_of_view_degrees(height, width),
        **{name: _surface(surface, rows, columns) for name, surface in surfaces.items()},
    }


def _within(size: tuple[int, ...], pixels: int) -> tuple[int, int]:
    """Return a height and width of that aspect ratio with at most so many pixels."""
    height, width = size
    shrink = min(1.0, math.sqrt(pixels / (height * width)))
    return max(1, int(height * shrink)), max(1, int(width * shrink))


def _normals(normals: Array, height: int, width: int, closed: bool) -> list[str]:
    if normals.shape[:2] != (height, width):
        normals = normals_at_size(normals, height, width, closed=closed)
    return [packed(codes) for codes in octahedral(normals)]


def _every(step: int, last: int) -> Indices:
    """Return every step-th index from 0, evenly so that points make no pattern, and the last one."""
    return np.unique(np.append(np.arange(0, last, step), last))


def _reduced(surface: Surface, source: Source) -> Surface:
    """Return a surface at the size of the page's pictures."""
    height, width = size_of(source)
    reach = max(1, round(width / source.network_size[1]))
    return Surface(sampled(surface.depth, height, width), surface.camera, surface.unit, reach)


def _surface(surface: Surface, rows: Indices, columns: Indices) -> dict[str, Any]:
    depth = surface.depth[rows][:, columns % surface.size[1]]
    codes, offset, step = logarithmic(depth, surface.intact(rows, columns))
    cells = whole_cells(surface, rows, columns, EDGE).astype(np.uint16)
    return {"codes": packed(codes), "offset": offset, "step": step, "cells": packed(cells)}
