"""A file that belongs to a photo: one for all, or one of the photo's name in a folder."""

from __future__ import annotations

from pathlib import Path

from redepth.errors import InputError

SUFFIXES = (".npy", ".npz", ".exr", ".pfm", ".png", ".tif", ".tiff")


class PhotoFile:
    """Finds what belongs to a photo.

    Args:
        given: a file, which stands for any photo, or a folder with a file per photo, of its stem.
        what: the files hold, in messages.
    """

    def __init__(self, given: str | Path, what: str) -> None:
        self._given = Path(given).expanduser()
        self._what = what
        self._found: Path | None = None

    @property
    def path(self) -> Path:
        """The file of the photo that was named last. Raises InputError if there is none."""
        if self._found is None:
            self.next_photo(None)
        assert self._found is not None
        return self._found

    def check(self) -> None:
        """Raise InputError if neither the file nor the folder exists."""
        if not self._given.exists():
            raise InputError(f"{self._given}: no such file or folder of {self._what}; check the path")

    def next_photo(self, source: Path | None) -> None:
        """Say which photo comes next; None for one that is no file. Raises InputError if it has none."""
        self._found = None
        self.check()
        if not self._given.is_dir():
            self._found = self._given
            return
        if source is None:
            raise InputError(
                f"{self._given}: a photo that is no file has no name to find its {self._what} by"
            )
        candidates = [self._given / f"{source.stem}{suffix}" for suffix in SUFFIXES]
        found = [path for path in candidates if path.is_file()]
        if len(found) != 1:
            endings = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
            there = ", ".join(path.name for path in found) or f"no {source.stem}.({endings})"
            raise InputError(
                f"{source}: {self._given} must hold one {self._what} of its name, there is {there}"
            )
        self._found = found[0]
