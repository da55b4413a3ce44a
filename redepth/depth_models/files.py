"""The file that belongs to a photo: one file for all photos, or a folder with one per photo."""

from __future__ import annotations

import os
from pathlib import Path

from redepth.errors import InputError

SUFFIXES = (".npy", ".npz", ".exr", ".pfm", ".png", ".tif", ".tiff")


class PhotoFile:
    """Finds the file that belongs to a photo.

    Args:
        location: a file, for any photo, or a folder with a file per photo that has the photo's stem.
        what: the content of the files, in messages.
    """

    def __init__(self, location: str | Path, what: str) -> None:
        self._location = Path(os.path.expanduser(location))  # Path.expanduser fails for a user who is not
        self._what = what
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The file of the current photo. Raises InputError if there is none."""
        if self._path is None:
            self.next_photo(None)
        assert self._path is not None
        return self._path

    def check(self) -> None:
        """Raise InputError if neither the file nor the folder exists."""
        # Methods of Path raise errors for a name that is too long.
        if not os.path.exists(self._location):
            raise InputError(f"{self._location}: no such file or folder of {self._what}; check the path")

    def next_photo(self, source: Path | None) -> None:
        """Set the current photo, None for one without a file. Raises InputError if nothing belongs to it."""
        self._path = None
        self.check()
        if not os.path.isdir(self._location):
            self._path = self._location
            return
        if source is None:
            raise InputError(
                f"{self._location}: the photo is not a file, so it has no name to find its {self._what} by"
            )
        candidates = [self._location / f"{source.stem}{suffix}" for suffix in SUFFIXES]
        files = [path for path in candidates if os.path.isfile(path)]
        if len(files) != 1:
            endings = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
            there = ", ".join(path.name for path in files) or f"no {source.stem}.({endings})"
            raise InputError(
                f"{source}: {self._location} must hold one {self._what} of its name, there is {there}"
            )
        self._path = files[0]
