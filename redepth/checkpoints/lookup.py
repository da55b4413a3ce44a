"""Find where a checkpoint's files are, before any of them is read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from redepth.checkpoints import hub_api
from redepth.checkpoints.cache import cached_commit, cached_file, cached_snapshot
from redepth.checkpoints.files import (
    download_command,
    files_to_download,
    folder_problem,
    listing_problem,
    missing_files,
    pickle_problem,
)
from redepth.checkpoints.names import check_revision, local_folder, resolve_name
from redepth.checkpoints.source import Source
from redepth.errors import NotDownloadedError, WeightsError

_located: ContextVar[list[Source] | None] = ContextVar("located", default=None)


@contextmanager
def sources_located() -> Iterator[list[Source]]:
    """Collect what `locate` returns within the context: the checkpoints that a component would load."""
    found: list[Source] = []
    token = _located.set(found)
    try:
        yield found
    finally:
        _located.reset(token)


def locate(
    checkpoint: str,
    revision: str | None,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    local_files_only: bool = False,
) -> Source:
    """Find where a checkpoint's files come from: a local folder, the hub's cache, or the hub.

    A repository that is complete in the cache is used without asking the hub for a newer commit: a run does
    not change by itself. Nothing is downloaded yet, and the hub is not asked yet for optional files that the
    cache lacks; `Source.path` does both.

    Args:
        checkpoint: as for `names.resolve_name`.
        revision: commit, tag or branch of the hub repository.
        files: the files that will be loaded. The shards of sharded weights replace the file itself, and a
            ``tokenizer.json`` the vocabulary files beside it.
        optional: files that are read if the checkpoint has them.
        local_files_only: never ask the hub.

    Raises:
        WeightsError: files are missing or pickles, the repository or the revision does not exist, or it is
            neither cached nor reachable.
    """
    source = _find(checkpoint, revision, files, tuple(optional), local_files_only)
    collected = _located.get()
    if collected is not None:
        collected.append(source)
    return source


def _find(
    checkpoint: str, revision: str | None, files: Sequence[str], optional: tuple[str, ...], offline: bool
) -> Source:
    check_revision(revision)
    folder = local_folder(checkpoint)
    if folder is not None:
        _raise_if(folder_problem(folder, files))
        return Source(checkpoint, revision, local_files_only=offline)
    name = resolve_name(checkpoint)
    if is_cached(name, revision, files):
        commit = cached_commit(name, revision)
        return Source(checkpoint, revision, commit, offline, optional=optional)
    unreachable = "local_files_only is set" if offline else hub_api.unreachable()
    if unreachable:
        raise _unavailable(name, revision, files, optional, unreachable)
    listing = hub_api.listing(name, revision)
    _raise_if(listing_problem(name, listing.names, files))
    pending = tuple(files_to_download(listing.names, files, optional))
    return Source(checkpoint, revision, listing.commit, offline, pending, optional)


def ensure_available(
    checkpoint: str,
    revision: str | None,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    local_files_only: bool = False,
) -> None:
    """Fail before any work if a checkpoint is not available; the arguments are those of `locate`.

    Raises:
        WeightsError: it says what to do.
    """
    locate(checkpoint, revision, files, optional=optional, local_files_only=local_files_only)


def is_cached(repository: str, revision: str | None, files: Sequence[str]) -> bool:
    """Return whether all these files of a hub repository have been downloaded."""
    return not missing_files(functools.partial(cached_file, repository, revision), files)


def _raise_if(problem: str) -> None:
    if problem:
        raise WeightsError(problem)


def _unavailable(
    name: str, revision: str | None, files: Sequence[str], optional: Sequence[str], unreachable: str
) -> WeightsError:
    """Return the error for weights that are not in the cache while the hub cannot be asked."""
    folder = cached_snapshot(name, revision)
    pickled = "" if folder is None else pickle_problem(folder, files)
    if pickled:
        return WeightsError(pickled)
    command = download_command(name, revision, [*files, *optional])
    return NotDownloadedError(
        f"the weights of '{name}' are not in the cache and the Hugging Face hub cannot be reached "
        f"({unreachable})",
        f"connect and run '{command}', give a local folder instead, or run offline with --preset embedded",
    )
