"""Load models and small files from a checkpoint's folder, with one clear line for every error.

Weights are read from safetensors: a pickle can run code when it is read. `pickled` has the one exception.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth.checkpoints.files import first_damaged, repair_advice
from redepth.checkpoints.guard import check_folder, one_line, read_object
from redepth.checkpoints.messages import chain, reason
from redepth.errors import WeightsError

_NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")
"""DPT's first fusion layer has nothing to fuse with; some published checkpoints omit its weights."""


def from_pretrained(cls: Any, folder: Path, *, name: str, subfolder: str = "", **options: Any) -> Any:
    """Call ``cls.from_pretrained`` of diffusers or transformers.

    Args:
        cls: the class to load.
        folder: of the checkpoint.
        name: of the checkpoint in messages.
        subfolder: of the model inside the checkpoint.
        options: for ``from_pretrained``.

    Raises:
        WeightsError: the weights are missing, damaged, pickled or of another class, or `guard.check_folder`
            refuses the folder.
    """
    check_folder(folder / subfolder)
    if cls.__module__.startswith("diffusers") and "use_safetensors" in options:
        # The fast path needs accelerate, which is an optional package.
        options.setdefault("low_cpu_mem_usage", importlib.util.find_spec("accelerate") is not None)
    try:
        with _quiet():
            return cls.from_pretrained(str(folder), subfolder=subfolder, **options)
    except Exception as error:  # the libraries raise a dozen types, with one meaning for the user
        problem = _problem(error, folder / subfolder)
        place = _place(name, subfolder)
        raise WeightsError(f"cannot load {cls.__name__} from '{place}': {problem}") from error


def load_model(cls: Any, folder: Path, *, name: str, subfolder: str = "", **options: Any) -> Any:
    """Load a model as `from_pretrained` does, and refuse one of another class or with missing weights.

    The libraries themselves fill missing weights with random numbers.

    Raises:
        WeightsError: as for `from_pretrained`, or weights are missing or of another shape.
    """
    if cls.__module__.startswith("diffusers"):
        read_diffusers_config(cls, folder, subfolder, name)
    else:
        options["ignore_mismatched_sizes"] = True
    model, report = from_pretrained(
        cls,
        folder,
        name=name,
        subfolder=subfolder,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    reshaped = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    missing = sorted(key for key in {*report["missing_keys"], *reshaped} if not _NEVER_USED.search(key))
    if missing:
        raise WeightsError(
            f"cannot load {cls.__name__} from '{_place(name, subfolder)}': {len(missing)} of its weights are "
            f"missing or of another shape, such as {missing[0]}: the checkpoint is damaged or of another "
            "model"
        )
    return model


def load_random_model(cls: Any, config: dict[str, Any], seed: int) -> Any:
    """Build a diffusers model from its configuration, in eval mode, with random weights.

    The seed is local: the global generator keeps its state.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with one_line(cls.__name__):
            return cls.from_config(config).eval()


def fill(module: Any, path: Path, stored: Mapping[str, Any], *, prefixes: Sequence[str]) -> None:
    """Load a module's weights from those of a safetensors file whose names start with one of the prefixes.

    Args:
        module: to fill.
        path: of the file, for messages.
        stored: its tensors, as `read_tensors` returns them.
        prefixes: of the module's names.

    Raises:
        WeightsError: weights are missing or of another shape.
    """
    weights = {k.removeprefix(p): v for p in prefixes for k, v in stored.items() if k.startswith(p)}
    missing = sorted(set(module.state_dict()) - set(weights))
    if not missing:
        try:
            module.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise WeightsError(f"cannot load the weights in '{path}': {reason(error)}") from error
        return
    raise WeightsError(f"'{path}' lacks {len(missing)} weights, such as {prefixes[0]}{missing[0]}")


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file by name.

    Raises:
        WeightsError: the file is damaged.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # as in `from_pretrained`
        raise WeightsError(f"cannot read '{path}': {_problem(error, path.parent)}") from error


def require_file(folder: Path, name: str) -> Path:
    """Return the path of a file of a checkpoint.

    Raises:
        WeightsError: the checkpoint has no such file.
    """
    path = folder / name
    if not path.is_file():
        raise WeightsError(f"'{folder}' has no file {name}: the checkpoint is incomplete")
    return path


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of a checkpoint.

    Raises:
        WeightsError: there is no such file, or `guard.read_object` refuses it.
    """
    return read_object(require_file(folder, name))


def read_diffusers_config(cls: Any, folder: Path, subfolder: str, name: str) -> dict[str, Any]:
    """Return a diffusers model's configuration.

    Raises:
        WeightsError: it cannot be read, or is of another class.
    """
    config = read_json(folder, f"{subfolder}/config.json" if subfolder else "config.json")
    class_name = config.get("_class_name")
    if class_name != cls.__name__:
        raise WeightsError(
            f"'{_place(name, subfolder)}' is a '{class_name}', and {cls.__name__} is needed: "
            "check that the checkpoint is of this model"
        )
    return config


def _place(name: str, subfolder: str) -> str:
    return f"{name}/{subfolder}" if subfolder else name


def _problem(error: Exception, folder: Path) -> str:
    """Return an error's meaning; for damaged weights, name the file and what to do about it."""
    class_names = {type(link).__name__ for link in chain(error)}
    if "SafetensorError" in class_names and folder.is_dir():
        path = first_damaged(folder)
        if path is not None:
            return f"a weights file is damaged: {repair_advice(path)}"
    return reason(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' progress bars and warnings; errors are raised anyway."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = transformers_logging, diffusers_logging
    bars = [library for library in libraries if library.is_progress_bar_enabled()]
    levels = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    for library in libraries:
        library.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # diffusers passes an argument that newer versions of the hub's client ignore.
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument", UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        for library in bars:
            library.enable_progress_bar()
