"""Translate errors of the hub's libraries to one line with advice, and recognise transient errors."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

from redepth.errors import printable

_LICENCE = (
    "its licence has to be accepted first: open its page on the hub, then log in with 'hf auth login' or set "
    "HF_TOKEN"
)
_NO_REPOSITORY = (
    "the hub has no such repository, or it is private: check the spelling, and log in with 'hf auth login' "
    "if it is yours"
)
_NO_FILE = "the repository has no such file: check the revision, or choose another checkpoint"
_NOT_REACHED = "the hub cannot be reached: check the connection, HTTPS_PROXY and HF_ENDPOINT"
_BY_CLASS = {
    "GatedRepoError": _LICENCE,
    "DisabledRepoError": "the hub has disabled this repository: choose another checkpoint",
    "RepositoryNotFoundError": _NO_REPOSITORY,
    "RevisionNotFoundError": "the repository has no such revision: check it on the repository's page",
    "RemoteEntryNotFoundError": _NO_FILE,
    "EntryNotFoundError": _NO_FILE,
    "OfflineModeIsEnabled": "it is not in the cache and HF_HUB_OFFLINE is set: unset it or give a folder",
    "LocalEntryNotFoundError": "it is not in the cache and the hub was not reached: connect and run again",
    "SafetensorError": "a weights file is damaged: delete it and run again",
    "ProxyError": "the proxy did not let it through: check HTTPS_PROXY and NO_PROXY",
    "ConnectError": _NOT_REACHED,
    "ConnectTimeout": _NOT_REACHED,
}
"""Class name -> meaning; the libraries wrap these errors in others of their own."""

_LOST = frozenset(
    {
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "WriteError",
        "WriteTimeout",
        "PoolTimeout",
        "ConnectionCut",
    }
)
_TRANSIENT = _LOST | {"ConnectError", "ConnectTimeout"}
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_CERTIFICATE = (
    "the hub's certificate was not accepted: behind a proxy that decrypts connections, set SSL_CERT_FILE to "
    "its certificate; otherwise check the clock"
)
_UNSAFE = "there is no safe connection (SSL): check HF_ENDPOINT and HTTPS_PROXY"
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST})
_LONGEST_WAIT = 60.0


class ConnectionCut(Exception):
    """A connection ended before the end of a file."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def known_meaning(error: BaseException) -> str | None:
    """Return what an error means and what to do, or None for an error that is not known here."""
    # A refused certificate is a ConnectError, so it is checked first.
    certificate = _certificate(error)
    if certificate:
        return certificate
    for link in chain(error):
        name = type(link).__name__
        # Any class of error may be caused by a full disk, so the storage is checked before the class.
        meaning = _storage(link) or _BY_CLASS.get(name) or _status(link)
        if meaning:
            return meaning
        if name in _LOST:
            return "the connection was lost: run again, the download resumes where it stopped"
    return None


def reason(error: BaseException) -> str:
    """Return the meaning of a library's error, or its text, on one line."""
    meaning = known_meaning(error)
    if meaning:
        return meaning
    text = str(error).strip() or type(error).__name__
    first, *more = text.splitlines()
    # A first line that ends with a colon needs the next one.
    return printable(f"{first} {more[0].strip()}" if first.endswith(":") and more else first)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed: a fault of the hub, its rate limit, a lost connection."""
    if _certificate(error):
        return False
    return type(error).__name__ in _TRANSIENT or _status_of(error) in _TRANSIENT_STATUS


def retry_delay(error: BaseException, default: float) -> float:
    """Return the seconds that the hub's ``Retry-After`` demands, at most a minute; the default without it."""
    header = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return min(float(header), _LONGEST_WAIT) if str(header).isdigit() else default


def _status_of(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _status(error: BaseException) -> str | None:
    status = _status_of(error)
    if status is None:
        return None
    if status == 429:
        return (
            "the hub's rate limit is reached: wait some minutes and run again; the limit is higher for users "
            "who log in ('hf auth login')"
        )
    if status >= 500:
        return (
            f"the hub has an internal error (status {status}): run again later, downloads resume where they "
            "stopped"
        )
    if status in (401, 403):
        return f"the hub refuses access (status {status}): check your token, 'hf auth login' or HF_TOKEN"
    return None


def _certificate(error: BaseException) -> str | None:
    if any("CERTIFICATE_VERIFY_FAILED" in str(link) for link in chain(error)):
        return _CERTIFICATE
    # The libraries may replace the class of an error and keep its text.
    unsafe = any(isinstance(link, ssl.SSLError) or "[SSL" in str(link) for link in chain(error))
    return _UNSAFE if unsafe else None


def _storage(error: BaseException) -> str | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space or set HF_HOME to a folder elsewhere, then run again"
    if error.errno in _NOT_WRITABLE and error.filename:
        return f"'{error.filename}' cannot be written to: set HF_HOME to a folder that can"
    return None
