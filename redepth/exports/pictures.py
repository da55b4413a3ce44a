"""Pictures for people: the normals as colours, and the comparison sheet."""

from __future__ import annotations

from pathlib import Path

from redepth import io, viz
from redepth.exports.source import Source, Written


def write_normals(source: Source, folder: Path) -> Written:
    """Write the normals of the refined surface as colours."""
    height, width = source.photo.shape[:2]
    picture = viz.normals_picture(source.normals_after, height, width, in_strips=source.large)
    io.save_png(folder / "normals.png", picture)
    return Written("normals.png", "(1 + n) / 2 as red, green, blue; x right, y up, z towards the viewer")


def write_comparison(source: Source, folder: Path) -> Written:
    """Write the comparison sheet."""
    io.save_png(folder / "comparison.png", source.comparison())
    return Written("comparison.png", "photo, maps and normals before and after")
