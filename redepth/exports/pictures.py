"""Pictures for people: the normals as colours, and the comparison sheet."""

from __future__ import annotations

from pathlib import Path

from redepth import io, viz
from redepth.exports.source import Source, Written, frame_of_normals


def write_normals(source: Source, folder: Path) -> Written:
    """Write the normals of the refined surface as colours."""
    height, width = source.photo.shape[:2]
    picture = viz.normals_picture(
        source.normals_after, height, width, in_strips=source.large, closed=source.camera.closed
    )
    io.save_png(folder / "normals.png", picture)
    holds = f"(1 + n) / 2 of the unit normals as red, green, blue, {frame_of_normals(source)}"
    return Written("normals.png", holds)


def write_comparison(source: Source, folder: Path) -> Written:
    """Write the comparison sheet."""
    io.save_png(folder / "comparison.png", source.comparison())
    return Written("comparison.png", "photo, maps and normals before and after")
