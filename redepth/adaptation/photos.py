"""The photos that a depth model is adapted to: found, named, split; they are never all in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk.

    Attributes:
        name: unique among the photos of an adaptation, for messages and rows.
        path: of the file.
        sha256: of its content.
    """

    name: str
    path: Path
    sha256: str
