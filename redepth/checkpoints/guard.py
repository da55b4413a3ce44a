"""What a checkpoint may hold: weights in safetensors and settings in JSON, inside its own folder.

The libraries read more than that: an index of shards may name a pickle, and a configuration another file of
weights or code. So the JSON files of a folder are checked before a library sees it. Links are followed: the
hub's cache is made of them, and what they lead to is read as safetensors or JSON as well.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redepth.checkpoints.files import is_index, repair_advice, shards
from redepth.checkpoints.messages import reason
from redepth.errors import InputError, RedepthError, WeightsError, cut
from redepth.io import read_text
from redepth.io.markup import parse_json

log = logging.getLogger(__name__)

JSON_LIMIT = 16 * 2**20
"""Largest JSON file of settings in bytes."""

_REFUSED = {
    "auto_map": "code of its own",
    "custom_pipeline": "code of its own",
    "transformers_weights": "another file of weights",
}
"""Entries of a configuration that make a library read something else."""
_ADAPTER = "adapter_config.json"
_LIBRARIES = ("diffusers", "transformers")


def read_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of settings.

    Raises:
        WeightsError: it cannot be read, holds no JSON object, or names code or other weights.
    """
    try:
        # diffusers writes samplers' bounds as -Infinity; some published checkpoints have them.
        infinite = path.name == "scheduler_config.json"
        content = parse_json(read_text(path, limit=JSON_LIMIT), infinite=infinite)
    except InputError as error:
        raise WeightsError(f"{error}") from None
    except ValueError as error:
        raise WeightsError(f"'{path}' is not JSON ({error}): {repair_advice(path.resolve())}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' must hold a JSON object")
    for key, what in _REFUSED.items():
        if content.get(key) is not None:
            raise WeightsError(
                f"'{path}' names {what} ('{key}'), and redepth reads safetensors and JSON alone: remove the "
                "entry, or choose another checkpoint"
            )
    return content


def check_folder(folder: Path) -> None:
    """Check what a library would read in a folder of a checkpoint and in the folders of its parts.

    Raises:
        WeightsError: an index names a file that is not safetensors or lies outside, a configuration names
            code, other weights or a class of another library, or there is an adapter.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if path.name == _ADAPTER:
            raise WeightsError(f"'{path}' adds an adapter to the weights, which is not supported: remove it")
        if is_index(path.name):
            shards(path.name, path)
        elif path.name == "model_index.json":
            _check_parts(path, read_object(path))
        elif path.name.endswith("config.json") and path.is_file():
            read_object(path)


def _check_parts(path: Path, index: dict[str, Any]) -> None:
    """Refuse a pipeline with parts of other libraries: diffusers imports whatever module is named."""
    known = [[library] for library in (*_LIBRARIES, None)]
    for name, value in index.items():
        if not name.startswith("_") and isinstance(value, list) and value[:1] not in known:
            raise WeightsError(
                f"'{path}' takes '{cut(name)}' from {cut(repr(value[:1]))}, and parts of diffusers and "
                "transformers alone are loaded: choose another checkpoint"
            )


@contextlib.contextmanager
def one_line(checkpoint: str) -> Iterator[None]:
    """Turn whatever a library raises about a checkpoint into a WeightsError of one line.

    Values of the wrong type or size reach the libraries, which raise what their own code runs into. Errors
    of redepth and a lack of memory on a GPU pass unchanged; the traceback is in the debug log.
    """
    try:
        yield
    except RedepthError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        log.debug("loading '%s' failed", checkpoint, exc_info=True)
        raise WeightsError(
            f"'{cut(checkpoint)}' cannot be used ({type(error).__name__}: {cut(reason(error), 200)}): its "
            "files are damaged or of another model"
        ) from error
