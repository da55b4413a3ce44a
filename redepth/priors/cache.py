"""The cache of captions and prompt embeddings on disk, each under the hash of its inputs.

An entry is whole or absent: files are replaced atomically. An unreadable entry counts as absent and is
written anew. If an entry cannot be written, the run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from redepth.io import atomic_path

log = logging.getLogger(__name__)

VARIABLE = "REDEPTH_CACHE"
"""Environment variable with another folder for the cache."""


def folder() -> Path:
    """Return the folder of the cache: ``REDEPTH_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("redepth"))


def key(*origin: Any) -> str:
    """Return the SHA-256, in hexadecimal, of the inputs of an entry (plain data)."""
    return digest(json.dumps(origin, sort_keys=True).encode())


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def load_text(kind: str, name: str) -> str | None:
    """Return the text under a key, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_path(kind, name, "json").read_text(encoding="utf-8"))["text"]
        return found if isinstance(found, str) else None
    return None


def save_text(kind: str, name: str, text: str) -> None:
    """Keep a text under a key."""
    _write(_path(kind, name, "json"), json.dumps({"text": text}).encode())


def load_tensors(kind: str, name: str) -> dict[str, Tensor] | None:
    """Return the tensors under a key, on the CPU, or None."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with suppress(OSError, SafetensorError, KeyError, ValueError):
        return load(_path(kind, name, "safetensors").read_bytes())
    return None


def save_tensors(kind: str, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors under a key."""
    from safetensors.torch import save

    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    _write(_path(kind, name, "safetensors"), save(whole))


def _path(kind: str, name: str, suffix: str) -> Path:
    return folder() / kind / f"{name}.{suffix}"


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        log.warning("the cache in '%s' cannot be written to (%s); set %s", path.parent, error, VARIABLE)
