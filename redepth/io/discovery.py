"""Find photos and the files that belong to them, and name the folders of their results."""

from __future__ import annotations

import glob
import json
import logging
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from redepth.errors import InputError
from redepth.io.files import StrPath
from redepth.io.images import RAW_SUFFIXES
from redepth.io.names import as_text, hashed_name, is_safe_name
from redepth.io.video import VIDEO_SUFFIXES

PHOTO_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".jp2",
        ".j2k",
        ".jpx",
    ]
)
UNREADABLE_SUFFIXES = RAW_SUFFIXES | frozenset(
    [
        ".hdr",
        ".exr",
        ".pfm",
        ".psd",
        ".psb",
        ".xcf",
        ".svg",
        ".svgz",
        ".eps",
        ".ps",
        ".ai",
        ".pdf",
        ".jxl",
        ".jxr",
        ".dds",
        ".qoi",
        ".ico",
        ".icns",
        ".pcx",
        ".sgi",
        ".rgb",
        ".fits",
        ".fit",
        ".xpm",
        ".xbm",
        ".wmf",
        ".emf",
        ".cur",
        ".kra",
        ".ora",
    ]
)
"""Endings of pictures that `load_photo` does not read: a folder's are named, not passed over in silence."""

_NAMED = 5
"""How many files a line names."""

log = logging.getLogger(__name__)


def find_photos(inputs: Sequence[StrPath], *, warn: Callable[[str], object] = log.warning) -> list[Path]:
    """Expand files, folders and glob patterns to photos.

    Args:
        inputs: a file is taken with any suffix; a folder gives the photos directly in it,
            sorted by name, without hidden files; a pattern (``*``, ``?``, ``[...]``, ``**``) gives
            the photos it matches, sorted.
        warn: is called with a line for each folder or pattern that also gives pictures in formats that
            cannot be read.

    Returns:
        The photos in the order of the inputs, each once. A plain path that does not exist is kept:
        `load_photo` reports it, and the other photos still run.

    Raises:
        InputError: there are no inputs, or a folder or a pattern holds no photo.
    """
    if not inputs:
        raise InputError("no photo given; name a file, a folder or a pattern")
    photos: dict[str, Path] = {}
    if not all(map(os.fspath, inputs)):
        raise InputError("an empty name is no photo; is a variable of the shell unset?")
    for path in inputs:
        for photo in _expand(Path(path), warn):
            photos.setdefault(os.path.realpath(photo), photo)
    return list(photos.values())


def _expand(path: Path, warn: Callable[[str], object]) -> list[Path]:
    if "\0" in str(path):
        raise InputError("a path cannot hold a zero byte; check the spelling")
    if os.path.isdir(path):  # unlike `Path.is_dir`, False for a name that is too long
        candidates, problem = list(path.iterdir()), "the folder holds no photo"
    elif glob.has_magic(str(path)) and not os.path.exists(path):
        candidates = [Path(match) for match in glob.glob(str(path), recursive=True)]
        problem = "the pattern matches no photo"
    else:
        return [path]
    photos = _with_suffix(candidates, PHOTO_SUFFIXES)
    others = _named(_with_suffix(candidates, UNREADABLE_SUFFIXES))
    videos = _named(_with_suffix(candidates, VIDEO_SUFFIXES))
    if not photos:
        there = f" that can be read, only {others}" if others else ""
        there += f", but videos: name them ({videos})" if videos else ""
        suffixes = " ".join(sorted(PHOTO_SUFFIXES))
        raise InputError(f"{path}: {problem}{there}; photos end in one of {suffixes}")
    if others:
        warn(f"{path}: {others} cannot be read and left out; convert to JPEG, PNG or TIFF")
    if videos:
        warn(f"{path}: {videos} left out: a video is refined where it is named itself")
    return photos


def _with_suffix(paths: Sequence[Path], suffixes: frozenset[str]) -> list[Path]:
    """Return what is visible, has one of these endings and is no folder, sorted.

    A link to nothing is one: `load_photo` reports it, and it is not passed over in silence.
    """
    return sorted(
        path
        for path in paths
        if not path.name.startswith(".") and path.suffix.lower() in suffixes and not os.path.isdir(path)
    )


def _named(paths: Sequence[Path]) -> str:
    """Return the names of the first files and the number of the others."""
    names = [path.name for path in paths[:_NAMED]]
    return ", ".join(names) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")


def companions(
    photos: Sequence[StrPath], path: StrPath, what: str, suffixes: Sequence[str] = ()
) -> dict[Path, Path]:
    """Return the file that belongs to each photo, such as its mask.

    Args:
        photos: the photos.
        path: a file, for a single photo; or a folder with one file for each photo, of the photo's stem.
        what: the file's role in messages, such as ``sky mask``.
        suffixes: endings of the files in a folder that count; by default all.

    Returns:
        Photo -> file. A photo is left out if no file of the folder has its stem, or several have it.

    Raises:
        InputError: ``path`` is one file and there are several photos.
    """
    path = Path(path)
    if not os.path.isdir(path):
        if len(photos) != 1:
            raise InputError(
                f"{path}: a {what} belongs to one photo, {len(photos)} were given; give a folder with a "
                "file of each photo's name"
            )
        return {Path(photos[0]): path}
    by_stem: dict[str, list[Path]] = {}
    for file in path.iterdir():
        counts = not suffixes or file.suffix.lower() in suffixes
        if counts and not file.name.startswith(".") and os.path.isfile(file):
            by_stem.setdefault(file.stem, []).append(file)
    pairs = {}
    for photo in map(Path, photos):
        files = by_stem.get(photo.stem, [])
        if len(files) == 1:
            pairs[photo] = files[0]
    return pairs


def output_folders(photos: Sequence[StrPath], out: StrPath) -> list[Path]:
    """Return one folder per photo, ``out/<stem>``.

    If an earlier photo of this call has the stem already, or the folder's record (``run.json``, or
    ``clip.json`` of a clip) names another one, the folder gets ``-2``, ``-3`` and so on; the same photo gets
    the same folder again. Photos appended to the list leave the folders of the others unchanged. Names that
    differ only in case or in Unicode normal form count as the same, as they do on macOS and Windows.

    A stem that is no safe name of a visible folder in ``out`` (such as ``..`` of ``...jpg``, or one that is
    too long) becomes one (`hashed_name`).
    """
    taken: set[str] = set()
    folders = []
    for photo in photos:
        folder, number = _folder(out, Path(photo).stem), 1
        while _key(folder) in taken or _holds_another(folder, photo):
            number += 1
            folder = _folder(out, f"{Path(photo).stem}-{number}")
        taken.add(_key(folder))
        folders.append(folder)
    return folders


def _folder(out: StrPath, name: str) -> Path:
    return Path(out) / (name if is_safe_name(name) else hashed_name(name))


def _key(folder: Path) -> str:
    """Return the folder's name as a file system compares it that ignores case and normal form."""
    return unicodedata.normalize("NFC", as_text(folder.name)).casefold()


_SOURCES = {"run.json": "photo", "clip.json": "clip"}
"""Records of results, and where in them the source is."""


def _holds_another(folder: Path, photo: StrPath) -> bool:
    """Return whether a folder holds the results of another photo or clip."""
    for record, section in _SOURCES.items():
        try:
            source = json.loads((folder / record).read_text(encoding="utf-8"))[section]["source"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if source != as_text(os.path.realpath(photo)):
            return True
    return False
