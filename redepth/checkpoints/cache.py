"""The hub's cache on this machine, in the layout of the hub's own client.

models--OWNER--NAME/blobs/ETAG              contents
snapshots/COMMIT/FILE   links to them
refs/REVISION           the commit of a branch or tag
.no_exist/COMMIT/FILE   files that a commit does not have
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from redepth.checkpoints.messages import reason
from redepth.errors import WeightsError


def repository_folder(repository: str) -> Path:
    """Return the folder of a hub repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def snapshot(repository: str, commit: str) -> Path:
    """Return the folder of a commit's files in the cache."""
    return repository_folder(repository) / "snapshots" / commit


def cached_file(repository: str, revision: str | None, name: str) -> Path | None:
    """Return the path of a file in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def cached_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit that a revision refers to in the cache."""
    reference = repository_folder(repository) / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else ""
    # The hub's own client writes the file in place, so it may be empty for a moment.
    return commit or revision


def cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """Return the folder of a revision's snapshot if there is one, complete or not."""
    commit = cached_commit(repository, revision)
    if not commit:
        return None
    folder = snapshot(repository, commit)
    return folder if folder.is_dir() else None


def unknown_files(repository: str, commit: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the files that are not cached and that the cache does not record as absent from the commit."""
    from huggingface_hub import try_to_load_from_cache

    return tuple(n for n in names if try_to_load_from_cache(repository, n, revision=commit) is None)


def note_absent(repository: str, commit: str, names: Iterable[str]) -> None:
    """Record files that a commit does not have, so that no later run requests them."""
    for name in names:
        path = repository_folder(repository) / ".no_exist" / commit / name
        with suppress(OSError):  # the cache may belong to another user
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def note_revision(repository: str, revision: str, commit: str) -> None:
    """Record the commit of a revision in one step: a reader finds the former commit or this one.

    Raises:
        WeightsError: the file cannot be written.
    """
    folder = repository_folder(repository)
    reference = folder / "refs" / revision
    # Outside refs/: a program that lists the references must not see the temporary file.
    temporary = folder / f"{uuid.uuid4().hex}.redepth.incomplete"
    try:
        if not (reference.is_file() and reference.read_text().strip() == commit):
            reference.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(commit)
            temporary.replace(reference)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WeightsError(f"cannot record the commit of '{revision}': {reason(error)}") from error


def link_blob(blob: Path, path: Path) -> None:
    """Make a snapshot's file a link to the blob, or a copy if links are not supported.

    The blob stays where it is, because other snapshots may link to it.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a broken link
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except FileExistsError:  # locks do not work on every file system: another process was faster
        if not path.is_file():
            raise
    except OSError:
        copy = path.with_name(f"{path.name}.redepth.incomplete")
        copy.unlink(missing_ok=True)
        try:
            # Windows allows hard links without privileges, and they need no space for a second copy.
            copy.hardlink_to(blob)
        except OSError:
            shutil.copyfile(blob, copy)
        copy.replace(path)


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0
