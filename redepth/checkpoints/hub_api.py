"""Ask the Hugging Face hub: whether it answers, which files a repository has, and what a file is."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from redepth.checkpoints.messages import chain, known_meaning, reason
from redepth.checkpoints.retries import retry
from redepth.errors import WeightsError

PROBE_TIMEOUT = 3.0
"""Seconds within which the hub has to answer a probe."""
REQUEST_TIMEOUT = 10.0
"""Seconds within which the hub has to answer any request that is not a download."""


@dataclass(frozen=True)
class Listing:
    """The files of a hub repository at a commit."""

    commit: str
    names: frozenset[str]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the hub describes it.

    Attributes:
        repository: owner/name.
        name: path inside the repository.
        url: where it is downloaded from.
        etag: its name in the cache: the SHA-256 of a large file.
        size: in bytes, if the hub states it.
    """

    repository: str
    name: str
    url: str
    etag: str
    size: int | None


_may_ask: ContextVar[bool] = ContextVar("may_ask", default=True)


@contextmanager
def this_machine_only() -> Iterator[None]:
    """Ask the hub for nothing within the context: what is not on this machine is not available."""
    token = _may_ask.set(False)
    try:
        yield
    finally:
        _may_ask.reset(token)


def unreachable() -> str:
    """Return why the hub does not answer, or an empty string if it does; the result is kept for a minute."""
    if not _may_ask.get():
        return "it was not asked"
    return _probe(int(time.monotonic() // 60))


def hub_reachable() -> bool:
    """Return whether the hub answers; False at once under HF_HUB_OFFLINE=1."""
    return not unreachable()


@functools.lru_cache(maxsize=1)
def _probe(_minute: int) -> str:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        # Any status will do, a server error too: the hub answers.
        get_session().head(constants.ENDPOINT, timeout=PROBE_TIMEOUT)
    except Exception as error:  # of an HTTP library that depends on the client's version
        return known_meaning(error) or f"it did not answer: {reason(error)}"
    return ""


@functools.lru_cache(maxsize=64)
def listing(repository: str, revision: str | None) -> Listing:
    """Request a repository's listing, once per process.

    Raises:
        WeightsError: there is no such repository or revision, access is refused, or the hub fails.
    """
    try:
        return retry(lambda: _request_listing(repository, revision), f"asking the hub about {repository}")
    except Exception as error:
        at = f" at revision '{revision}'" if revision else ""
        problem = reason(error)
        # A server that is not a hub, such as the login page of a network, answers with HTML.
        if any(isinstance(link, json.JSONDecodeError) for link in chain(error)):
            problem = "the server that answered is not a hub: check the network and HF_ENDPOINT"
        raise WeightsError(f"checkpoint '{repository}'{at}: {problem}") from error


def _request_listing(repository: str, revision: str | None) -> Listing:
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    info = api.model_info(repository, revision=revision, timeout=REQUEST_TIMEOUT)
    names = frozenset(sibling.rfilename for sibling in info.siblings or ())
    # The listing of a gated repository is public, its files are not: fail now rather than at the download.
    if getattr(info, "gated", None) and names:
        weights = sorted(name for name in names if name.endswith(".safetensors"))
        describe_file(repository, str(info.sha), weights[0] if weights else min(names))
    return Listing(str(info.sha), names)


def describe_file(repository: str, commit: str, name: str) -> RemoteFile:
    """Request the size and the ETag of a file."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT)
    metadata = get_hf_file_metadata(url, timeout=REQUEST_TIMEOUT)
    # The ETag becomes a file name in the cache; other implementations of the hub may send none, or one that
    # is not a valid name.
    etag = metadata.etag or ""
    if not re.fullmatch(r"\w[\w.-]*", etag):
        etag = hashlib.sha256(f"{repository}/{commit}/{name}".encode()).hexdigest()[:40]
    return RemoteFile(repository, name, url, etag, metadata.size)
