"""Files of hub repositories, brought into the hub's own cache: only those asked for, resumed and checked.

The hub's client drops what it has of a file when a download fails, and compares no checksum over plain
HTTP. Here a file grows beside its place in the cache until it is whole, so that the next run goes on from
there; what the hub keeps by SHA-256 (all weights) is compared with it once. The cache keeps the hub's layout:
its own commands read it, and what they downloaded is taken as it is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redepth.checkpoints.files import first_outside, is_index, shards
from redepth.checkpoints.messages import CutShort, chain, passing, reason, spoken, wait
from redepth.errors import WeightsError

log = logging.getLogger(__name__)
T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try; they begin anew once something has arrived."""
ANSWER_TIMEOUT, ASK_TIMEOUT = 3.0, 10.0
"""Seconds that the hub has to show that it is there, and to answer what is no download."""
_BLOCK = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Watcher:
    """Is told what is downloaded. This one writes lines to the log; the command line has its own."""

    def line(self, text: str) -> None:
        """Show a line that stays; gigabytes that come unasked are worth a warning."""
        log.warning("%s", text)

    def bytes(self, name: str, done: int, size: int | None) -> None:
        """Take note of how much of a file is here."""


_watcher = Watcher()


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher of all downloads within."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


@dataclass(frozen=True)
class Listing:
    """What a hub repository has at a commit."""

    commit: str
    names: frozenset[str]


@dataclass(frozen=True)
class _File:
    """A file of a repository as the hub describes it."""

    repository: str
    name: str
    url: str
    etag: str
    size: int | None


# --- what the hub has -----------------------------------------------------------------------------


def unreachable() -> str:
    """Return why the hub does not answer, an empty string if it does; what was found holds for a minute."""
    return _asked(int(time.monotonic() // 60))


@functools.lru_cache(maxsize=1)
def _asked(_minute: int) -> str:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        # Any status will do, a fault of the hub's too: it answers.
        get_session().head(constants.ENDPOINT, timeout=ANSWER_TIMEOUT)
    except Exception as error:  # of an HTTP library that depends on the client's version
        return spoken(error) or f"it did not answer: {reason(error)}"
    return ""


@functools.lru_cache(maxsize=64)
def listing(repository: str, revision: str | None) -> Listing:
    """Ask the hub for a repository's listing, once per process.

    Raises:
        WeightsError: there is no such repository or revision, it may not be read, or the hub fails.
    """
    from huggingface_hub import HfApi, constants

    def ask() -> Listing:
        api = HfApi(endpoint=constants.ENDPOINT)
        info = api.model_info(repository, revision=revision, timeout=ASK_TIMEOUT)
        names = frozenset(sibling.rfilename for sibling in info.siblings or ())
        # The listing of a gated repository is public, its files are not: better known before any work.
        if getattr(info, "gated", None) and names:
            weights = (name for name in sorted(names) if name.endswith(".safetensors"))
            _described(repository, str(info.sha), next(weights, min(names)))
        return Listing(str(info.sha), names)

    try:
        return _patiently(ask, f"asking the hub about {repository}")
    except Exception as error:
        at = f" at revision '{revision}'" if revision else ""
        # A login page of the network, say, answers everything.
        foreign = any(isinstance(link, json.JSONDecodeError) for link in chain(error))
        said = "what answered is no hub: check the network and HF_ENDPOINT" if foreign else reason(error)
        raise WeightsError(f"checkpoint '{repository}'{at}: {said}") from error


def _described(repository: str, commit: str, name: str) -> _File:
    """Ask the hub about a file."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT)
    found = get_hf_file_metadata(url, timeout=ASK_TIMEOUT)
    # It is the file's name in the cache; a hub of other making may have none, or one that is no name.
    etag = found.etag or ""
    if not re.fullmatch(r"\w[\w.-]*", etag):
        etag = hashlib.sha256(f"{repository}/{commit}/{name}".encode()).hexdigest()[:40]
    return _File(repository, name, url, etag, found.size)


# --- bringing it here -----------------------------------------------------------------------------


def repository_folder(repository: str) -> Path:
    """Return the folder of a hub repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def snapshot(repository: str, commit: str) -> Path:
    """Return the folder of a commit's files in the cache."""
    return repository_folder(repository) / "snapshots" / commit


def download(repository: str, revision: str | None, commit: str, names: Sequence[str]) -> Path:
    """Bring files of a repository into the cache; return the folder of the commit.

    Args:
        repository: owner/name on the hub.
        revision: what was asked for; it is noted as this commit once all is here, so that a download that
            ends early leaves what was whole before as it was.
        commit: of the files.
        names: of the files; of an index, its shards come too.

    Raises:
        WeightsError: the hub fails or refuses, the disk is full, or what arrives is not what the hub has.
    """
    folder = snapshot(repository, commit)
    # Which shards there are is known once the index is here.
    indices = [name for name in names if is_index(name)]
    _bring(repository, commit, indices, quiet=True)
    parts = [part for name in indices for part in shards(name, folder / name)]
    _bring(repository, commit, [*dict.fromkeys([*names, *parts])])
    if revision != commit:
        _note(repository_folder(repository), revision or "main", commit)
    return folder


def note_absent(repository: str, commit: str, names: Iterable[str]) -> None:
    """Note, where the hub's own client does, which files a commit does not have: nobody need ask again."""
    for name in names:
        path = repository_folder(repository) / ".no_exist" / commit / name
        with suppress(OSError):  # of a cache that others fill
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _bring(repository: str, commit: str, names: Sequence[str], *, quiet: bool = False) -> None:
    """Download those of the files that are not here, small ones first."""
    folder, blobs = snapshot(repository, commit), repository_folder(repository) / "blobs"
    if (outside := first_outside(names)) is not None:
        raise WeightsError(f"'{repository}' names a file outside itself, {outside!r}: do not use it")
    missing = [name for name in names if not (folder / name).is_file()]
    name = ""
    try:
        files = []
        for name in missing:
            ask = functools.partial(_described, repository, commit, name)
            files.append(_patiently(ask, f"asking the hub about {name}"))
        # What is here under another name, or comes twice, is one file.
        wanted = list({file.etag: file for file in files if not (blobs / file.etag).is_file()}.values())
        _make_room(repository, wanted, blobs)
        if wanted and not quiet:
            count = f"{len(wanted)} file{'s' if len(wanted) > 1 else ''} of {repository}"
            _watcher.line(f"downloading {count}, {size_text(_rest_of(wanted, blobs))}, to {blobs.parents[1]}")
        for file in sorted(files, key=lambda file: file.size or 0):
            name = file.name
            _fetch(file, blobs, folder / name)
    except WeightsError:
        raise
    except Exception as error:  # the HTTP library's, the client's, the system's: each means the same here
        raise WeightsError(f"cannot get {name} of '{repository}': {reason(error)}") from error


def _rest_of(files: Sequence[_File], blobs: Path) -> int:
    """Return how many bytes of files are still to come."""
    return sum(max(0, (file.size or 0) - _size(_partial(file, blobs))) for file in files)


def _make_room(repository: str, files: Sequence[_File], blobs: Path) -> None:
    """Refuse what will not fit the disk before hours go into it."""
    blobs.mkdir(parents=True, exist_ok=True)
    needed, free = _rest_of(files, blobs), shutil.disk_usage(blobs).free
    if needed > free:
        raise WeightsError(
            f"'{repository}' needs {size_text(needed)} more and '{blobs.parents[1]}' has {size_text(free)} "
            "left: free some space or set HF_HOME to a folder elsewhere"
        )


def _fetch(file: _File, blobs: Path, path: Path) -> None:
    """Bring a file to its place in the cache, whole, and let a snapshot's path lead there."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    blob, partial = blobs / file.etag, _partial(file, blobs)
    # Two processes must not write to one file; the hub's own client has its locks there too.
    lock = blobs.parents[1] / ".locks" / blobs.parent.name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        # Where files are no links, what was deleted for its damage has left a blob that is damaged too.
        if not path.is_file() and blob.is_file() and not _as_published(file, blob):
            blob.unlink()
        if not blob.is_file():
            # What an earlier run left may have been spoilt since: then it is downloaded once more.
            for last in (not partial.exists(), True):
                _stream(file, partial)
                if _as_published(file, partial):
                    break
                partial.unlink()
                if last:
                    raise WeightsError(
                        f"{file.name} of '{file.repository}' arrived damaged (its SHA-256 is not the hub's): "
                        "run again; if that does not help, a proxy or the disk spoils it"
                    )
            partial.replace(blob)
        _link(blob, path)


def _stream(file: _File, partial: Path) -> None:
    """Download what is missing of a file; what has arrived stays, whatever happens."""
    tries = 0
    while True:
        before = _size(partial)
        try:
            return _go_on(file, partial)
        except Exception as error:
            if _size(partial) > before:
                tries = 0
            if not passing(error) or tries == len(WAITS):
                raise
            _rest(error, WAITS[tries], f"{file.name} stopped at {size_text(_size(partial))}")
            tries += 1


def _go_on(file: _File, partial: Path) -> None:
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    # Where its size is not known, whether it is whole is not known either.
    have = _size(partial) if file.size is not None and _size(partial) <= file.size else 0
    if have and have == file.size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The HTTP library takes the token out where the hub sends it on to another host.
    with get_session().stream(
        "GET", file.url, headers=headers, timeout=limit, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        have = have if response.status_code == 206 else 0
        with partial.open("ab" if have else "wb") as out:
            for block in response.iter_bytes():
                out.write(block)
                have += len(block)
                _watcher.bytes(file.name, have, file.size)
    if file.size is not None and have != file.size:
        raise CutShort(f"{have} of {file.size} bytes")


def _as_published(file: _File, path: Path) -> bool:
    """Return whether a file is what the hub has, by size and SHA-256, which small files do not have."""
    if file.size is not None and _size(path) != file.size:
        return False
    if not _SHA256.fullmatch(file.etag):
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.etag


def _patiently(attempt: Callable[[], T], doing: str) -> T:
    """Try again after what passes."""
    for seconds in WAITS:
        try:
            return attempt()
        except Exception as error:
            if not passing(error):
                raise
            _rest(error, seconds, doing)
    return attempt()


def _rest(error: BaseException, seconds: float, doing: str) -> None:
    seconds = wait(error, seconds)
    what = (spoken(error) or reason(error)).partition(":")[0]
    _watcher.line(f"{doing}: {what}; trying again in {seconds:.0f} s")
    time.sleep(seconds)


# --- the cache ------------------------------------------------------------------------------------


def _partial(file: _File, blobs: Path) -> Path:
    return blobs / f"{file.etag}.redepth.incomplete"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _link(blob: Path, path: Path) -> None:
    """Let a snapshot's file be a link to the blob, or a copy where there are no links.

    The blob stays where it is: other snapshots may link to it.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link to what is gone
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except FileExistsError:  # locks do not hold on every file system: another process was quicker
        if not path.is_file():
            raise
    except OSError:
        copy = path.with_name(f"{path.name}.redepth.incomplete")
        copy.unlink(missing_ok=True)
        try:
            # On Windows anybody may do this, and it takes no second room for gigabytes.
            copy.hardlink_to(blob)
        except OSError:
            shutil.copyfile(blob, copy)
        copy.replace(path)


def _note(folder: Path, revision: str, commit: str) -> None:
    """Note which commit a revision stands for, so that a reader finds the former one or this one."""
    reference = folder / "refs" / revision
    # Whoever lists the references must not find what is gone a moment later.
    beside = folder / f"{uuid.uuid4().hex}.redepth.incomplete"
    try:
        if not (reference.is_file() and reference.read_text().strip() == commit):
            reference.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(commit)
            beside.replace(reference)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WeightsError(f"cannot note what '{revision}' stands for: {reason(error)}") from error


def size_text(size: int) -> str:
    """Return bytes as people read them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
