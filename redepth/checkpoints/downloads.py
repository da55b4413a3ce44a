"""Download files of hub repositories into the hub's cache: only those requested, resumed and verified.

The hub's own client discards a partial file when a download fails, and verifies no checksum over plain HTTP.
Here a file grows beside its place in the cache until it is complete, so that the next run resumes it; a file
that the hub stores under its SHA-256 (all weights are) is compared with it once. The cache keeps the hub's
layout: its own commands can read it, and files that they downloaded are used.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from redepth.checkpoints import progress, retries
from redepth.checkpoints.cache import file_size, link_blob, note_revision, repository_folder, snapshot
from redepth.checkpoints.files import first_outside, is_index, shards
from redepth.checkpoints.hub_api import RemoteFile, describe_file
from redepth.checkpoints.messages import ConnectionCut, is_transient, reason
from redepth.checkpoints.progress import size_text
from redepth.errors import WeightsError

_BLOCK = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(repository: str, revision: str | None, commit: str, names: Sequence[str]) -> Path:
    """Download files of a repository into the cache; return the folder of the commit.

    Args:
        repository: owner/name on the hub.
        revision: the requested revision. The cache records its commit after all files have arrived, so that
            an interrupted download leaves the former commit in place.
        commit: of the files.
        names: of the files; the shards of an index are downloaded too.

    Raises:
        WeightsError: the hub fails or refuses, the disk is full, or a file arrives damaged.
    """
    _download_missing(repository, commit, _with_shards(repository, commit, names))
    if revision != commit:
        note_revision(repository, revision or "main", commit)
    return snapshot(repository, commit)


def remaining(repository: str, commit: str, names: Sequence[str]) -> tuple[int, int]:
    """Return the number of files that `download` would fetch, and their bytes that are still to come.

    The hub states the sizes; the index of sharded weights is downloaded to know the shards.

    Raises:
        WeightsError: as `download` does.
    """
    blobs = repository_folder(repository) / "blobs"
    pending = _not_in(blobs, _described(repository, commit, _with_shards(repository, commit, names)))
    return len(pending), _remaining_bytes(pending, blobs)


def _with_shards(repository: str, commit: str, names: Sequence[str]) -> list[str]:
    """Return the names and those of the shards, which are in the indices: these are downloaded first."""
    indices = [name for name in names if is_index(name)]
    if indices:
        _download_missing(repository, commit, indices, quiet=True)
    folder = snapshot(repository, commit)
    parts = [part for name in indices for part in shards(name, folder / name)]
    return list(dict.fromkeys([*names, *parts]))


def _described(repository: str, commit: str, names: Sequence[str]) -> list[RemoteFile]:
    """Ask the hub about the files that are not in the cache."""
    folder = snapshot(repository, commit)
    outside = first_outside(names)
    if outside is not None:
        raise WeightsError(f"'{repository}' names a file outside itself, {outside!r}: do not use it")
    files = []
    for name in names:
        if (folder / name).is_file():
            continue
        request = functools.partial(describe_file, repository, commit, name)
        try:
            files.append(retries.retry(request, f"asking the hub about {name}"))
        except Exception as error:  # from the HTTP library or the hub's client
            raise _cannot_get(name, repository, error) from error
    return files


def _not_in(blobs: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files whose content is not in the cache, where another name may have it; each once."""
    return list({file.etag: file for file in files if not (blobs / file.etag).is_file()}.values())


def _cannot_get(name: str, repository: str, error: Exception) -> WeightsError:
    return WeightsError(f"cannot get {name} of '{repository}': {reason(error)}")


def _download_missing(repository: str, commit: str, names: Sequence[str], *, quiet: bool = False) -> None:
    """Download the files that are not in the cache, small ones first."""
    folder, blobs = snapshot(repository, commit), repository_folder(repository) / "blobs"
    files = _described(repository, commit, names)
    name = ""
    try:
        pending = _not_in(blobs, files)
        _check_space(repository, pending, blobs)
        if pending and not quiet:
            plural = "s" if len(pending) > 1 else ""
            size = size_text(_remaining_bytes(pending, blobs))
            progress.watcher().line(
                f"downloading {len(pending)} file{plural} of {repository}, {size}, to {blobs.parents[1]}"
            )
        for file in sorted(files, key=lambda file: file.size or 0):
            name = file.name
            _fetch(file, blobs, folder / name)
    except WeightsError:
        raise
    except Exception as error:  # from the HTTP library, the hub's client or the system
        raise _cannot_get(name, repository, error) from error


def _remaining_bytes(files: Sequence[RemoteFile], blobs: Path) -> int:
    return sum(max(0, (file.size or 0) - file_size(_partial(file, blobs))) for file in files)


def _check_space(repository: str, files: Sequence[RemoteFile], blobs: Path) -> None:
    """Refuse a download that does not fit on the disk, before it starts."""
    blobs.mkdir(parents=True, exist_ok=True)
    needed, free = _remaining_bytes(files, blobs), shutil.disk_usage(blobs).free
    if needed > free:
        raise WeightsError(
            f"'{repository}' needs {size_text(needed)} more and '{blobs.parents[1]}' has {size_text(free)} "
            "left: free some space or set HF_HOME to a folder elsewhere"
        )


def _partial(file: RemoteFile, blobs: Path) -> Path:
    """Return the path of an incomplete download."""
    return blobs / f"{file.etag}.redepth.incomplete"


def _fetch(file: RemoteFile, blobs: Path, path: Path) -> None:
    """Download a file as a blob of the cache and link the snapshot's path to it."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    blob = blobs / file.etag
    # Two processes must not write one file; the hub's own client keeps its locks there too.
    lock = blobs.parents[1] / ".locks" / blobs.parent.name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        # Without links, a user who deletes a damaged file of a snapshot leaves its damaged blob behind.
        if not path.is_file() and blob.is_file() and not _is_intact(file, blob):
            blob.unlink()
        if not blob.is_file():
            _download_intact(file, _partial(file, blobs))
            _partial(file, blobs).replace(blob)
        link_blob(blob, path)


def _download_intact(file: RemoteFile, partial: Path) -> None:
    """Download a file and verify it. If the part from an earlier run is damaged, download all of it again."""
    resumed = partial.exists()
    _download(file, partial)
    intact = _is_intact(file, partial)
    if resumed and not intact:
        partial.unlink()
        _download(file, partial)
        intact = _is_intact(file, partial)
    if not intact:
        partial.unlink()
        raise WeightsError(
            f"{file.name} of '{file.repository}' arrived damaged (its SHA-256 is not the hub's): "
            "run again; if that does not help, a proxy or the disk damages it"
        )


def _download(file: RemoteFile, partial: Path) -> None:
    """Download the missing part of a file, with retries; the bytes that arrived are kept on every error."""
    tries = 0
    while True:
        before = file_size(partial)
        try:
            return _resume(file, partial)
        except Exception as error:
            if file_size(partial) > before:
                tries = 0
            if not is_transient(error) or tries == len(retries.WAITS):
                raise
            stopped = f"{file.name} stopped at {size_text(file_size(partial))}"
            retries.pause(error, retries.WAITS[tries], stopped)
            tries += 1


def _resume(file: RemoteFile, partial: Path) -> None:
    """Request the missing part of a file once and append it."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    # A file of unknown size is downloaded from its start: nothing shows whether the part is complete.
    have = file_size(partial)
    if file.size is None or have > file.size:
        have = 0
    if have and have == file.size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The HTTP library drops the token if the hub redirects to another host.
    with get_session().stream(
        "GET", file.url, headers=headers, timeout=limit, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:
            have = 0  # the server ignored the range and sends the whole file
        with partial.open("ab" if have else "wb") as out:
            for block in response.iter_bytes():
                out.write(block)
                have += len(block)
                progress.watcher().bytes(file.name, have, file.size)
    if file.size is not None and have != file.size:
        raise ConnectionCut(f"{have} of {file.size} bytes")


def _is_intact(file: RemoteFile, path: Path) -> bool:
    """Return whether a file has the hub's size and SHA-256; the ETag of a small file is no SHA-256."""
    if file.size is not None and file_size(path) != file.size:
        return False
    if not _SHA256.fullmatch(file.etag):
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.etag
