"""The names of the files of a result."""

from __future__ import annotations

import json
from pathlib import Path

from redepth.literals import VIEW_FILE

RECORD = "run.json"

RESULT_FILES = (
    *(f"{kind}.{suffix}" for kind in ("disparity", "depth", "raw_depth") for suffix in ("npy", "png")),
    *("initial.npy", "uncertainty.npy", "depth.exr", "normals.png", "normals.exr", "comparison.png"),
    VIEW_FILE,
    *("points.ply", "mesh.glb", "intrinsics.json", "albedo.png", RECORD),
)
"""All files that a result can have."""


def earlier_files(folder: Path) -> list[str]:
    """Return the names of the files in a folder that a result there replaces.

    They are those that the record of the earlier result lists; without a record that can be read, all files
    that a result can have.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return [*map(str, record["files"]), RECORD]
    except (OSError, ValueError, LookupError, TypeError):
        return list(RESULT_FILES)
