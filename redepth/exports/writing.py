"""Write the chosen files of a result."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redepth.config.schema import DEFAULT_EXPORTS, Output
from redepth.errors import MissingDependencyError, one_line
from redepth.exports.intrinsics import write_intrinsics
from redepth.exports.maps import (
    write_depth,
    write_depth_exr,
    write_initial,
    write_map,
    write_normals_exr,
    write_preview,
    write_uncertainty,
)
from redepth.exports.mesh import write_mesh
from redepth.exports.pictures import write_albedo, write_comparison, write_normals
from redepth.exports.points import write_points
from redepth.exports.source import NotWrittenError, Source, Written
from redepth.exports.viewer import BYTES, write_view
from redepth.literals import Export
from redepth.runtime.allocator import give_back_freed_memory

log = logging.getLogger(__name__)

WRITERS: dict[Export, Callable[[Source, Path], Written]] = {
    "map": write_map,
    "preview": write_preview,
    "initial": write_initial,
    "uncertainty": write_uncertainty,
    "depth": write_depth,
    "depth-exr": write_depth_exr,
    "normals": write_normals,
    "normals-exr": write_normals_exr,
    "comparison": write_comparison,
    "view": write_view,
    "points": write_points,
    "mesh": write_mesh,
    "intrinsics": write_intrinsics,
    "albedo": write_albedo,
}


INDISPENSABLE: tuple[Export, ...] = ("map",)
"""Without these there is no result: if one of them cannot be written, nothing is."""

ROOM: dict[Export, int] = {
    "map": 4,
    "preview": 2,
    "initial": 4,
    "uncertainty": 4,
    "depth": 4,
    "depth-exr": 4,
    "normals": 3,
    "normals-exr": 12,
}
"""Bytes that a file takes at most for each pixel of the photo."""
BYTES_PER_POINT = 16
BYTES_PER_FACE = 128
"""Three vertices of 32 bytes and their indices, if no two triangles share one; in a surface most do."""


def room(output: Output, height: int, width: int) -> int:
    """Return how many bytes the files of a photo take at most, apart from a few megabytes."""
    size = height * width * sum(ROOM.get(name, 0) for name in output.write)
    if "points" in output.write:
        size += BYTES_PER_POINT * min(output.max_points, height * width)
    if "mesh" in output.write:
        size += BYTES_PER_FACE * min(output.mesh_faces, 2 * height * width) + 3 * output.texture_side**2
    if "view" in output.write:
        size += BYTES
    return size


def check_packages(output: Output) -> None:
    """Raise MissingDependencyError if a chosen file, or the upsampling, needs a package that is not here."""
    exr = [name for name in output.write if name.endswith("-exr")]
    if exr and importlib.util.find_spec("OpenEXR") is None:
        raise MissingDependencyError(
            f'{exr[0]} needs the package OpenEXR; run: pip install "redepth[exr]", or leave it out of --write'
        )
    if output.upsample == "guided" and importlib.util.find_spec("kornia") is None:
        raise MissingDependencyError(
            'output.upsample: guided needs the package kornia; run: pip install "redepth[guided]"'
        )


def write_files(source: Source, folder: Path) -> dict[str, Any]:
    """Write the chosen files to an empty folder; one that fails does not keep the others from being written.

    Returns:
        Entries of the run record: ``contents``, name -> what the file holds and its unit; ``not_written``,
        choice -> why; ``write_errors``, the choices among these whose writing failed; and, where they were
        chosen, ``png``, the scale and offset of the 16-bit map, and ``points``, their number.

    Raises:
        OutputError: the map cannot be written; so any other error of its writing.
    """
    chosen = source.preset.output.write
    contents: dict[str, dict[str, Any]] = {}
    entries: dict[str, Any] = {"contents": contents, "not_written": {}, "write_errors": []}
    for name in chosen:
        if source.large:
            give_back_freed_memory()
        try:
            written = _write(name, source, folder)
        except NotWrittenError as error:
            entries["not_written"][name] = str(error)
            # Who leaves the choice to redepth does not expect each of the files.
            level = logging.INFO if set(DEFAULT_EXPORTS) <= set(chosen) else logging.WARNING
            log.log(level, "%s is not written: %s", name, error)
            continue
        except Exception as error:
            if name in INDISPENSABLE:
                raise
            log.debug("%s is not written", name, exc_info=True)
            # Not the hidden folder in which it is written first.
            entries["not_written"][name] = one_line(error).replace(f"{folder}{os.sep}", "")
            entries["write_errors"].append(name)
            continue
        contents[written.name] = {"holds": written.holds, "unit": written.unit or None, **written.details}
        if name == "preview":
            entries["png"] = dict(written.details)
    if "points" in chosen:
        entries["points"] = contents.get("points.ply", {}).get("points", 0)
    return entries


def _write(name: Export, source: Source, folder: Path) -> Written:
    """Write one of the files; one that fails leaves nothing of itself."""
    before = set(folder.iterdir())
    try:
        return WRITERS[name](source, folder)
    except BaseException:
        for path in set(folder.iterdir()) - before:
            path.unlink()
        raise
