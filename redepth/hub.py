"""Checkpoints: embedded with the package, a local folder, or a Hugging Face hub id."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from redepth.errors import WeightsError

EMBEDDED = "embedded:"
WEIGHTS = Path(__file__).parent / "weights"

_NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")
"""DPT's first fusion layer has nothing to fuse with; some published checkpoints leave its weights out."""


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
    command = " ".join(["hf download", source, *files, *(["--revision", revision] if revision else [])])
    raise WeightsError(
        f"the weights of '{source}' are not in the cache and the Hugging Face hub cannot be reached: "
        f"connect and run '{command}', give a local folder instead, "
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
    """Keep transformers' weight-loading bars and reports out of the program's own words."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
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
        raise WeightsError(f"cannot load {cls.__name__} from '{where}': {_reason(error)}") from error


def whole_model(cls: Any, checkpoint: str, *, revision: str | None = None, **options: Any) -> Any:
    """Load a transformers model as `from_pretrained` does, and refuse one whose weights are not all there.

    transformers itself would fill what is missing with random numbers.

    Raises:
        WeightsError: as for `from_pretrained`, or weights are missing or of another shape.
    """
    model, report = from_pretrained(
        cls,
        checkpoint,
        revision=revision,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
    )
    reshaped = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    lacking = sorted(k for k in {*report["missing_keys"], *reshaped} if not _NEVER_USED.search(k))
    if lacking:
        raise WeightsError(
            f"cannot load {cls.__name__} from '{resolve(checkpoint)}': {len(lacking)} of its weights are "
            f"missing or of another shape, such as {lacking[0]}: it is damaged or of another model"
        )
    return model


def fill(module: Any, path: Path, *, prefixes: Sequence[str]) -> None:
    """Load a module's weights from a safetensors file in which their names begin with one of the prefixes.

    Raises:
        WeightsError: the file is corrupted, or weights are missing or of another shape.
    """
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
        weights = {k.removeprefix(p): v for p in prefixes for k, v in stored.items() if k.startswith(p)}
        lacking = sorted(set(module.state_dict()) - set(weights))
        if not lacking:
            module.load_state_dict(weights, strict=False)
            return
    except Exception as error:  # as above
        raise WeightsError(f"cannot load the weights in '{path}': {_reason(error)}") from error
    raise WeightsError(f"'{path}' lacks {len(lacking)} weights, such as {prefixes[0]}{lacking[0]}")


def fetch(checkpoint: str, name: str, *, revision: str | None = None) -> Path:
    """Return the path of one file of a checkpoint, downloaded if need be.

    Raises:
        WeightsError: if the checkpoint has no such file, or it cannot be had.
    """
    source = resolve(checkpoint)
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            raise WeightsError(f"'{source}' has no file {name}: it is no whole checkpoint")
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except Exception as error:  # as above
        raise WeightsError(f"cannot get {name} of '{source}': {_reason(error)}") from error


def read_json(checkpoint: str, name: str, *, revision: str | None = None) -> dict[str, Any]:
    """Return the content of one JSON file of a checkpoint.

    Raises:
        WeightsError: if it cannot be had or is no JSON object.
    """
    path = fetch(checkpoint, name, revision=revision)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"'{path}' is not JSON: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' must hold a JSON object")
    return content


def _reason(error: Exception) -> str:
    """Return what a library's error says, on one line."""
    if type(error).__name__ == "RepositoryNotFoundError":
        return "the hub has no such repository, or it is private: check the spelling"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
