"""Hashes of files: what a result was made from, and whether its files are as they were written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from redepth.io.files import StrPath

BLOCK = 2**20


def sha256_of(path: StrPath) -> str:
    """Return the SHA-256 of a regular file, ``missing`` where there is none.

    A process reads a file once, unless its size or one of its times changes.
    """
    try:
        stat = os.stat(path)
        if not os.path.isfile(path):
            return "missing"
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return _sha256(os.path.abspath(path), stamp)
    except (OSError, ValueError):
        return "missing"


@lru_cache(maxsize=4096)
def _sha256(path: str, stamp: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return one SHA-256 for several files, of their names and contents."""
    listed = sorted(paths)
    if len(listed) == 1:
        return sha256_of(listed[0])
    digest = hashlib.sha256()
    for path in listed:
        digest.update(os.fsencode(path.name) + b"\0" + sha256_of(path).encode())
    return digest.hexdigest()


def manifest(files: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """Return the size and the SHA-256 of files, by name."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(files)
        if path.is_file()
    }


def damage(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong with the files of a `manifest`; empty if they are as they were written."""
    for name, expected in files.items():
        path = folder / name
        if not os.path.isfile(path):
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
            return f"{name} was changed"
    return ""
