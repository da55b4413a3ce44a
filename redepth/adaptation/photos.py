"""The photos that a depth model is adapted to: found, named, split; they are never all in memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redepth import io
from redepth.config.adaptation import Adapt
from redepth.errors import InputError
from redepth.photo_inputs import DecodedPhoto, decode

log = logging.getLogger(__name__)


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

    A name is that of the file without its suffix; of several files with one name, the later ones get ``-2``,
    ``-3``. Of several files with the same content only the first is taken: a copy could be learned from and
    held out at once.

    Raises:
        InputError: nothing is found, or a file cannot be read.
    """
    found: dict[str, PhotoFile] = {}
    taken: set[str] = set()
    for path in io.find_photos(inputs):
        with io.open_regular(path):  # a missing file is one line
            sha256 = io.sha256_of(path)
        if sha256 in found:
            log.warning("%s: the same photo as %s, taken once", path, found[sha256].path)
            continue
        found[sha256] = PhotoFile(_free_name(io.displayed(path.stem), taken), path, sha256)
    return list(found.values())


def _free_name(stem: str, taken: set[str]) -> str:
    """Return a name that no other photo has, also where case does not count, and take it."""
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def decoded(photo: PhotoFile, max_pixels: int = io.MAX_PIXELS) -> DecodedPhoto:
    """Read a photo. Raises InputError: it cannot be used, or its file was replaced."""
    pixels = decode(photo.path, max_pixels)
    # After it was read: what was replaced before or meanwhile is found.
    if io.sha256_of(photo.path) != photo.sha256:
        raise InputError(
            f"{photo.path}: changed since the run began; put the former photo back and start the command "
            "again, or start it with --fresh"
        )
    return pixels


def by_content(photos: Iterable[PhotoFile]) -> tuple[PhotoFile, ...]:
    """Return photos in an order that depends neither on their names nor on how they were given."""
    return tuple(sorted(photos, key=lambda photo: photo.sha256))


def split(photos: Sequence[PhotoFile], settings: Adapt, seed: int) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Return the photos that are learned from, and those that are held out, each in the given order.

    The contents of the photos and the seed decide, not their order or names. Where photos are added, most of
    the others stay on their side. At least one photo is held out where the share is above 0, and at least one
    is left to learn from.

    Raises:
        InputError: there is only one photo, and a share is to be held out.
    """
    if not settings.held_out:
        return list(photos), []
    if len(photos) < 2:
        raise InputError(
            "one photo cannot be learned from and held out at once: give more photos, or learn without "
            "validation by adapt.held_out=0"
        )
    wanted = min(max(1, round(settings.held_out * len(photos))), settings.most_held_out)
    drawn = sorted(photos, key=lambda photo: hashlib.sha256(f"{seed} {photo.sha256}".encode()).digest())
    chosen = {photo.sha256 for photo in drawn[: min(wanted, len(photos) - 1)]}
    return (
        [photo for photo in photos if photo.sha256 not in chosen],
        [photo for photo in photos if photo.sha256 in chosen],
    )
