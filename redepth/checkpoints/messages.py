"""What the errors of the hub's libraries mean, in one line that says what to do, and which of them pass."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

_LICENCE = (
    "its licence has to be accepted first: open its page on the hub, then log in with 'hf auth login' or set "
    "HF_TOKEN"
)
_GONE = (
    "the hub has no such repository, or it is private: check the spelling, and log in with 'hf auth login' "
    "if it is yours"
)
_NO_FILE = "the repository has no such file: check the revision, or choose another checkpoint"
_NOT_REACHED = "the hub cannot be reached: check the connection, HTTPS_PROXY and HF_ENDPOINT"
_BY_CLASS = {
    "GatedRepoError": _LICENCE,
    "DisabledRepoError": "the hub has disabled this repository: choose another checkpoint",
    "RepositoryNotFoundError": _GONE,
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
"""By class: the libraries wrap these errors in others of their own."""

_LOST = frozenset(
    {
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "WriteError",
        "WriteTimeout",
        "PoolTimeout",
        "CutShort",
    }
)
_PASSING = _LOST | {"ConnectError", "ConnectTimeout"}
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_CERTIFICATE = (
    "the hub's certificate was not accepted: where a proxy opens connections, set SSL_CERT_FILE to its "
    "certificate; otherwise check the clock"
)
_UNSAFE = "there is no safe connection (SSL): check HF_ENDPOINT and HTTPS_PROXY"
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST})
_LONGEST_WAIT = 60.0


class CutShort(Exception):
    """A connection ended before the end of a file."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def spoken(error: BaseException) -> str | None:
    """Return what an error means in our words, if it is one of those that we know."""
    for link in chain(error):
        # A certificate shows as a ConnectError, so it comes first; a full disk may hide in anything.
        if (
            said := _certificate(error)
            or _storage(link)
            or _BY_CLASS.get(type(link).__name__)
            or _status(link)
        ):
            return said
        if type(link).__name__ in _LOST:
            return "the connection was lost: run again, it goes on where it stopped"
    return None


def reason(error: BaseException) -> str:
    """Return what a library's error says, on one line."""
    if said := spoken(error):
        return said
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    # A heading says nothing without what it heads.
    return f"{first} {more[0].strip()}" if first.endswith(":") and more else first


def passing(error: BaseException) -> bool:
    """Return whether it may be gone a moment later: the hub's own faults, its limits, a lost connection."""
    if _certificate(error):
        return False
    return type(error).__name__ in _PASSING or _status_of(error) in _PASSING_STATUS


def wait(error: BaseException, otherwise: float) -> float:
    """Return the seconds after which the hub wants to be asked again, at most a minute."""
    told = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return min(float(told), _LONGEST_WAIT) if str(told).isdigit() else otherwise


def _status_of(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _status(error: BaseException) -> str | None:
    status = _status_of(error)
    if status is None:
        return None
    if status == 429:
        return (
            "the hub's limit of requests is reached: wait some minutes and run again; those who log in "
            "('hf auth login') may ask for more"
        )
    if status >= 500:
        return (
            f"the hub has a fault of its own (status {status}): run again later, it goes on where it stopped"
        )
    if status in (401, 403):
        return f"the hub refuses access (status {status}): check your token, 'hf auth login' or HF_TOKEN"
    return None


def _certificate(error: BaseException) -> str | None:
    if any("CERTIFICATE_VERIFY_FAILED" in str(link) for link in chain(error)):
        return _CERTIFICATE
    # On the way through the libraries the class may be lost and the text is kept.
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
