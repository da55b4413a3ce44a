"""The photos that a depth model is adapted to: found, named, split; they are never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redepth import io
from redepth.config.adaptation import Adapt


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


def find(inputs: Sequence[io.StrPath]) -> list[PhotoFile]:
    """Return the photos of files, folders and patterns (`io.find_photos`), named and hashed.

    A name is that of the file; of several files with one name, the later ones get ``-2``, ``-3``. Of several
    files with the same content only the first is taken: a copy could be learned from and held out at once.

    Raises:
        InputError: nothing is found, or a file cannot be read.
    """
    raise NotImplementedError


def check(
    photos: Sequence[PhotoFile],
    max_pixels: int = io.MAX_PIXELS,
    on_done: Callable[[int], object] = lambda done: None,
) -> None:
    """Decode each photo once, before any work. Raises InputError for the first that cannot be used."""
    raise NotImplementedError


def split(photos: Sequence[PhotoFile], settings: Adapt, seed: int) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Return the photos that are learned from, and those that are held out.

    The contents of the photos and the seed decide, not their order or names. At least one photo is held out
    where the share is above 0, and at least one is left to learn from.

    Raises:
        InputError: there is only one photo, and a share is to be held out.
    """
    raise NotImplementedError
