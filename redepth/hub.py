"""Checkpoints: embedded with the package, a local folder, or a Hugging Face hub id."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from redepth.errors import WeightsError

EMBEDDED = "embedded:"
WEIGHTS = Path(__file__).parent / "weights"


def resolve(checkpoint: str) -> str:
    """Return a local folder for ``embedded:NAME`` and existing folders, else the hub id unchanged.

    Raises:
        WeightsError: if the name looks like a path (or is embedded) and no such folder exists.
    """
    if checkpoint.startswith(EMBEDDED):
        folder = WEIGHTS / checkpoint.removeprefix(EMBEDDED)
        if not folder.is_dir():
            names = sorted(p.name for p in WEIGHTS.iterdir() if p.is_dir())
            raise WeightsError(f"no embedded checkpoint '{folder.name}'; there are: {', '.join(names)}")
        return str(folder)
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1:
        raise WeightsError(f"checkpoint '{checkpoint}': no such folder, and not a hub id (owner/name)")
    return checkpoint


def ensure_available(checkpoint: str, revision: str | None, files: Sequence[str]) -> None:
    """Fail now, before any work, if a checkpoint is neither local, nor cached, nor reachable.

    Args:
        checkpoint: as for `resolve`.
        revision: commit, tag or branch of the hub repository.
        files: what will be loaded from it.

    Raises:
        WeightsError: with what to do about it.
    """
    source = resolve(checkpoint)
    if Path(source).is_dir() or is_cached(source, revision, files) or hub_reachable():
        return
    raise WeightsError(
        f"the weights of '{source}' are not in the cache and the Hugging Face hub cannot be reached: "
        f"connect and run 'hf download {source} {' '.join(files)}', give a local folder instead, "
        "or run offline with --preset embedded"
    )


def is_cached(repository: str, revision: str | None, files: Sequence[str]) -> bool:
    """Return whether all these files of a hub repository have been downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, revision=revision) for name in files)
    return all(isinstance(path, str) for path in found)


@functools.lru_cache(maxsize=1)
def hub_reachable(timeout: float = 3.0) -> bool:
    """Return whether the hub answers; False at once under HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    try:
        with urlopen(Request(endpoint, method="HEAD"), timeout=timeout):
            return True
    except (URLError, OSError, ValueError):
        return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' weight-loading bars out of the program's own progress."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def from_pretrained(cls: Any, checkpoint: str, *, revision: str | None = None, **options: Any) -> Any:
    """Call ``cls.from_pretrained`` on safetensors weights, with one clear line for what goes wrong.

    Raises:
        WeightsError: missing, unreachable, corrupted, pickled or of another class.
    """
    source = resolve(checkpoint)
    where = f"{source}/{options['subfolder']}" if options.get("subfolder") else source
    if cls.__module__.startswith("diffusers") and "use_safetensors" in options:
        # Its default wants accelerate, which nothing else here needs.
        options.setdefault("low_cpu_mem_usage", False)
    try:
        with _quiet():
            return cls.from_pretrained(source, revision=revision, **options)
    except Exception as error:  # the libraries raise a dozen types; each means the same to the user
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"cannot load {cls.__name__} from '{where}': {first_line}") from error
