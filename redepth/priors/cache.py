"""The cache of captions and prompt embeddings on disk, each under the hash of its inputs.

An entry is whole or absent: files are replaced atomically. It holds what it was made from and the hash of
its content, both of which are checked when it is read; an entry that does not fit is made anew, with a line
in the log. Folders and files are the user's alone. If an entry cannot be written, the run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from redepth.errors import InputError, cut
from redepth.io import atomic_path
from redepth.io.files import open_regular

log = logging.getLogger(__name__)

VARIABLE = "REDEPTH_CACHE"
"""Environment variable with another folder for the cache."""


FORMAT = 2
"""Raised when entries get another form; those of other forms are not found."""
LARGEST = 2**28
"""Largest entry in bytes."""

Origin = Sequence[Any]
"""What an entry is made from, as plain data: its name is the hash of it."""


class _Unfit(Exception):
    """An entry that is there and cannot be used; the message says why."""


def folder() -> Path:
    """Return the folder of the cache: ``REDEPTH_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("redepth"))


def key(*origin: Any) -> str:
    """Return the SHA-256, in hexadecimal, of the inputs of an entry (plain data)."""
    return digest(_described(origin).encode())


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def load_text(kind: str, origin: Origin) -> str | None:
    """Return the text of an origin, or None."""
    return _load(_path(kind, origin, "json"), lambda content: _text(content, origin))


def save_text(kind: str, origin: Origin, text: str) -> None:
    """Keep the text of an origin."""
    content = {"origin": _described(origin), "text": text, "sha256": digest(text.encode())}
    _write(_path(kind, origin, "json"), json.dumps(content).encode())


def load_tensors(
    kind: str, origin: Origin, problem: Callable[[dict[str, Tensor]], str] = lambda _: ""
) -> dict[str, Tensor] | None:
    """Return the tensors of an origin, on the CPU, or None.

    Args:
        kind: of entries.
        origin: what they were made from.
        problem: returns why tensors cannot be used, such as their shapes; empty if they can.
    """

    def parsed(content: bytes) -> dict[str, Tensor]:
        tensors = _tensors(content, origin)
        if reason := problem(tensors):
            raise _Unfit(reason)
        return tensors

    return _load(_path(kind, origin, "safetensors"), parsed)


def save_tensors(kind: str, origin: Origin, tensors: Mapping[str, Tensor]) -> None:
    """Keep the tensors of an origin."""
    from safetensors.torch import save

    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # One entry: safetensors writes several in any order.
    metadata = json.dumps({"origin": _described(origin), "sha256": _content_hash(whole)})
    _write(_path(kind, origin, "safetensors"), save(whole, {"redepth": metadata}))


def _described(origin: Origin) -> str:
    return json.dumps([FORMAT, *origin], sort_keys=True)


def _path(kind: str, origin: Origin, suffix: str) -> Path:
    return folder() / kind / f"{key(*origin)}.{suffix}"


def _load(path: Path, parse: Callable[[bytes], Any]) -> Any:
    """Return the parsed content of an entry; None if it is absent, or unfit, which is said."""
    try:
        if not os.path.lexists(path):
            return None
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST:
                raise _Unfit("it is too large")
            return parse(file.read())
    except InputError as error:
        log.warning("%s; this entry of the cache is made anew", error)
    except Exception as error:  # of a file with any content
        why = str(error) if isinstance(error, _Unfit) else "it is damaged"
        log.warning("the entry '%s' of the cache is made anew: %s", path, cut(why))
    return None


def _text(content: bytes, origin: Origin) -> str:
    found = json.loads(content)
    if found["origin"] != _described(origin):
        raise _Unfit("it was made from something else")
    text = found["text"]
    if not isinstance(text, str) or found["sha256"] != digest(text.encode()):
        raise _Unfit("it was changed")
    return text


def _tensors(content: bytes, origin: Origin) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load

    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["redepth"])
    if metadata["origin"] != _described(origin):
        raise _Unfit("it was made from something else")
    tensors = load(content)
    if metadata["sha256"] != _content_hash(tensors):
        raise _Unfit("it was changed")
    if not all(bool(torch.isfinite(values).all()) for values in tensors.values()):
        raise _Unfit("it holds values that are not finite")
    return tensors


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of names, dtypes, shapes and values."""
    import torch

    found = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        found.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        found.update(values.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _write(path: Path, content: bytes) -> None:
    try:
        for made in (folder(), path.parent):
            made.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(temporary, flags, stat.S_IRUSR | stat.S_IWUSR), "wb") as file:
                file.write(content)
    except OSError as error:
        log.warning("the cache in '%s' cannot be written to (%s); set %s", path.parent, error, VARIABLE)
