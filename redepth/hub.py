"""Checkpoints: embedded with the package, a local folder, or a Hugging Face hub id.

Weights are read from safetensors alone: a pickle can run code when it is read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import CRITICAL
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from redepth.errors import WeightsError

EMBEDDED = "embedded:"
WEIGHTS = Path(__file__).parent / "weights"

_NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")
"""DPT's first fusion layer has nothing to fuse with; some published checkpoints leave its weights out."""

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_VOCABULARIES = frozenset({"vocab.json", "merges.txt", "vocab.txt", "spiece.model"})
"""Files of a tokenizer that `tokenizer.json` holds as well."""

_CONVERT = (
    "python -c \"import torch, safetensors.torch as s; w = torch.load('{old}', weights_only=True); "
    "s.save_file({{k: v.clone() for k, v in w.items()}}, '{new}', {{'format': 'pt'}})\""
)

_HUB_SAYS = {
    "GatedRepoError": "its licence has to be accepted first: open its page on the hub, then 'hf auth login'",
    "RepositoryNotFoundError": "the hub has no such repository, or it is private: check the spelling",
    "RevisionNotFoundError": "the repository has no such revision",
    "RemoteEntryNotFoundError": "the repository has no such file",
    "EntryNotFoundError": "the repository has no such file",
    "OfflineModeIsEnabled": "it is not in the cache and HF_HUB_OFFLINE is set",
    "LocalEntryNotFoundError": "it is not in the cache and the hub was not reached",
    "SafetensorError": "a weights file is damaged: fetch it again",
}
"""What the libraries' errors mean, by class; they wrap them in errors of their own."""


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


def ensure_available(
    checkpoint: str, revision: str | None, files: Sequence[str], *, local_files_only: bool = False
) -> None:
    """Fail now, before any work, if a checkpoint cannot be had; the arguments are those of `locate`.

    Raises:
        WeightsError: with what to do about it.
    """
    locate(checkpoint, revision, files, local_files_only=local_files_only)


@dataclass(frozen=True)
class Source:
    """A checkpoint whose files are there or can be had; all its parts are loaded from one commit.

    Attributes:
        checkpoint: as for `resolve`.
        revision: the commit, tag or branch that was asked for.
        commit: the one that it stands for; None for a local folder, and where the hub did not say.
        local_files_only: never ask the hub.
    """

    checkpoint: str
    revision: str | None = None
    commit: str | None = None
    local_files_only: bool = False

    def load(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load what is no model, such as a tokenizer, as `from_pretrained` does."""
        return from_pretrained(cls, self.checkpoint, subfolder=folder or "", **self._pinned, **options)

    def model(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load a model as `whole_model` does."""
        return whole_model(cls, self.checkpoint, subfolder=folder or "", **self._pinned, **options)

    def random_model(
        self, cls: Any, folder: str | None, seed: int, changes: Mapping[str, Any] | None = None
    ) -> Any:
        """Build a diffusers model from its configuration alone, in eval mode, its weights random.

        Args:
            cls: of the model.
            folder: of its configuration.
            seed: of the weights; the global generator is left as it was.
            changes: what differs from the configuration.

        Raises:
            WeightsError: if the configuration cannot be had or is of another class.
        """
        import torch

        config = _config_of(cls, self.checkpoint, folder, self._pinned)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.from_config({**config, **(changes or {})}).eval()

    def holds(self, name: str) -> bool:
        """Return whether the checkpoint has a file, as `holds` does."""
        return holds(self.checkpoint, name, **self._pinned)

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file, as `read_json` does."""
        return read_json(self.checkpoint, name, **self._pinned)

    def tensors(self, name: str) -> dict[str, Any]:
        """Return the tensors of one safetensors file by name.

        Raises:
            WeightsError: if it cannot be had or is damaged.
        """
        from safetensors.torch import load_file

        path = fetch(self.checkpoint, name, **self._pinned)
        try:
            return load_file(path)
        except Exception as error:  # as in `from_pretrained`
            raise WeightsError(f"cannot read '{path}': {_reason(error)}") from error

    def identity(self, files: Sequence[str]) -> str:
        """Return what changes when these files do: the commit, or a local folder's file sizes and times."""
        source = resolve(self.checkpoint)
        if not Path(source).is_dir():
            return f"{source}@{self.commit or self.revision}"
        paths = [Path(source) / form for name in files for form in _forms(name)]
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()]
        return json.dumps([str(Path(source).resolve()), *stats])

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and commit for a run record."""
        return {"checkpoint": self.checkpoint, "revision": self.revision, "commit": self.commit}

    @property
    def _pinned(self) -> dict[str, Any]:
        return {"revision": self.commit or self.revision, "local_files_only": self.local_files_only}


def locate(
    checkpoint: str, revision: str | None, files: Sequence[str], *, local_files_only: bool = False
) -> Source:
    """Find where a checkpoint's files come from, before any of them is read.

    A local folder and the hub's cache are looked at first. What is whole in the cache is taken as it is,
    without asking the hub for something newer: a run does not change by itself.

    Args:
        checkpoint: as for `resolve`.
        revision: commit, tag or branch of the hub repository.
        files: what will be loaded from it. Sharded weights count for the file that they are the parts of,
            a ``tokenizer.json`` for the vocabulary files beside it.
        local_files_only: never ask the hub.

    Raises:
        WeightsError: if files are missing or pickles, the repository or the revision does not exist, or it
            is neither cached nor reachable.
    """
    name = resolve(checkpoint)
    source = Source(checkpoint, revision, local_files_only=local_files_only)
    if Path(name).is_dir():
        _check_folder(Path(name), files)
        return source
    if is_cached(name, revision, files):
        return replace(source, commit=_cached_commit(name, revision, files))
    if not local_files_only and hub_reachable():
        return replace(source, commit=_ask_hub(name, revision, tuple(files)))
    cached = _cached_folder(name, revision)
    if cached is not None and (said := _pickled(cached, files)):
        raise WeightsError(said)
    raise WeightsError(
        f"the weights of '{name}' are not in the cache and the Hugging Face hub cannot be reached: "
        f"connect and run '{_download(name, revision, files)}', give a local folder instead, "
        "or run offline with --preset embedded"
    )


def is_cached(repository: str, revision: str | None, files: Sequence[str]) -> bool:
    """Return whether all these files of a hub repository have been downloaded."""
    return not _lacking(functools.partial(_from_cache, repository, revision), files)


def holds(checkpoint: str, name: str, *, revision: str | None = None, local_files_only: bool = False) -> bool:
    """Return whether a checkpoint has a file, as far as that can be known here."""
    source = resolve(checkpoint)
    if Path(source).is_dir():
        return (Path(source) / name).is_file()
    if _from_cache(source, revision, name) is not None:
        return True
    if local_files_only or not hub_reachable():
        return False
    from huggingface_hub import HfApi

    try:
        return HfApi().file_exists(source, name, revision=revision)
    except Exception:  # loading will say what is wrong
        return False


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


def from_pretrained(cls: Any, checkpoint: str, *, revision: str | None = None, **options: Any) -> Any:
    """Call ``cls.from_pretrained`` on safetensors weights, with one clear line for what goes wrong.

    Raises:
        WeightsError: missing, unreachable, corrupted, pickled or of another class.
    """
    where = _where(checkpoint, options.get("subfolder"))
    if cls.__module__.startswith("diffusers") and "use_safetensors" in options:
        # The quick way needs accelerate, which nothing else here does.
        options.setdefault("low_cpu_mem_usage", importlib.util.find_spec("accelerate") is not None)
    try:
        with _quiet():
            return cls.from_pretrained(resolve(checkpoint), revision=revision, **options)
    except Exception as error:  # the libraries raise a dozen types; each means the same to the user
        raise WeightsError(f"cannot load {cls.__name__} from '{where}': {_reason(error)}") from error


def whole_model(cls: Any, checkpoint: str, *, revision: str | None = None, **options: Any) -> Any:
    """Load a model as `from_pretrained` does, and refuse one that is of another class or not whole.

    The libraries themselves fill what is missing with random numbers.

    Raises:
        WeightsError: as for `from_pretrained`, or weights are missing or of another shape.
    """
    folder = options.get("subfolder")
    if cls.__module__.startswith("diffusers"):
        pinned = {"revision": revision, "local_files_only": bool(options.get("local_files_only"))}
        _config_of(cls, checkpoint, folder, pinned)
    else:
        options["ignore_mismatched_sizes"] = True
    model, report = from_pretrained(
        cls, checkpoint, revision=revision, use_safetensors=True, output_loading_info=True, **options
    )
    reshaped = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    if lacking := sorted(k for k in {*report["missing_keys"], *reshaped} if not _NEVER_USED.search(k)):
        raise WeightsError(
            f"cannot load {cls.__name__} from '{_where(checkpoint, folder)}': {len(lacking)} of its weights "
            f"are missing or of another shape, such as {lacking[0]}: the checkpoint is damaged or of another "
            "model"
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


def fetch(checkpoint: str, name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
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
        return Path(hf_hub_download(source, name, revision=revision, local_files_only=local_files_only))
    except Exception as error:  # as above
        raise WeightsError(f"cannot get {name} of '{source}': {_reason(error)}") from error


def read_json(
    checkpoint: str, name: str, *, revision: str | None = None, local_files_only: bool = False
) -> dict[str, Any]:
    """Return the content of one JSON file of a checkpoint.

    Raises:
        WeightsError: if it cannot be had or is no JSON object.
    """
    path = fetch(checkpoint, name, revision=revision, local_files_only=local_files_only)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"'{path}' is not JSON: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' must hold a JSON object")
    return content


# --- what is where --------------------------------------------------------------------------------


def _forms(name: str) -> list[str]:
    """Return a file's name, and the names of what may stand for it."""
    folder, slash, base = name.rpartition("/")
    if base in _VOCABULARIES:
        return [name, f"{folder}{slash}tokenizer.json"]
    if base == "preprocessor_config.json":
        return [name, f"{folder}{slash}processor_config.json"]
    if match := re.fullmatch(r"([\w-]+)((?:\.\w+)?)\.safetensors", base):
        return [name, f"{folder}{slash}{match[1]}.safetensors.index{match[2]}.json"]
    return [name]


def _lacking(find: Callable[[str], Path | None], files: Iterable[str]) -> list[str]:
    """Return the files of which no form is found, and the missing parts of sharded ones."""
    lacking = []
    for name in files:
        found = next((path for form in _forms(name) if (path := find(form)) is not None), None)
        if found is None:
            lacking.append(name)
        elif ".safetensors.index" in found.name:
            folder, slash, _ = name.rpartition("/")
            lacking += [s for part in _shards(found) if find(s := f"{folder}{slash}{part}") is None]
    return lacking


def _download(repository: str, revision: str | None, files: Iterable[str]) -> str:
    """Return the command that downloads files, by patterns: whether weights are sharded is not known here."""
    patterns: dict[str, None] = {}
    for name in files:
        folder, slash, base = name.rpartition("/")
        if base in _VOCABULARIES or base == "tokenizer_config.json":
            new = [f"{folder}/*"] if slash else ["*.json", "*.txt"]
        elif name.endswith(".safetensors"):
            new = [f"{name}*", f"{name.removesuffix('.safetensors')}-*.safetensors"]
        else:
            new = [name]
        patterns |= dict.fromkeys(new)
    at = f" --revision {revision}" if revision else ""
    return f"hf download {repository}{at}" + "".join(f' --include "{pattern}"' for pattern in patterns)


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError):
        return []  # loading will say that the index is damaged


def _check_folder(folder: Path, files: Sequence[str]) -> None:
    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    lacking = _lacking(find, files)
    if not lacking:
        return
    if said := _pickled(folder, lacking):
        raise WeightsError(said)
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    raise WeightsError(f"'{folder}' has no {lacking[0]}{more}: it is no whole checkpoint of this kind")


def _pickled(folder: Path, lacking: Iterable[str]) -> str:
    """Return the complaint about weights that a folder has as a pickle only, or an empty string."""
    for name in lacking:
        stem = folder / name.removesuffix(".safetensors")
        alike = stem.parent.glob("*") if name.endswith(".safetensors") and stem.parent.is_dir() else ()
        pickles = sorted(path for path in alike if path.suffix in _PICKLES)
        if pickles and not (folder / name).is_file():
            command = _CONVERT.format(old=pickles[0].as_posix(), new=(folder / name).as_posix())
            return f"'{pickles[0]}' is a pickle, which can run code when it is read; convert it: {command}"
    return ""


def _from_cache(repository: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _cached_commit(repository: str, revision: str | None, files: Sequence[str]) -> str | None:
    """Return the commit that cached files are of: the name of the snapshot's folder."""
    found = (_from_cache(repository, revision, form) for name in files for form in _forms(name))
    path = next((path for path in found if path is not None), None)
    return None if path is None else path.parts[path.parts.index("snapshots") + 1]


def _cached_folder(repository: str, revision: str | None) -> Path | None:
    """Return the folder of a repository's snapshot, whatever it holds."""
    from huggingface_hub import constants

    base = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = base / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = base / "snapshots" / commit if commit else None
    return folder if folder is not None and folder.is_dir() else None


@functools.lru_cache(maxsize=64)
def _ask_hub(repository: str, revision: str | None, files: tuple[str, ...]) -> str | None:
    """Check a repository's listing before anything is downloaded; return the commit."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, revision=revision)
    except Exception as error:
        if (said := _spoken(error)) is None or type(error).__name__ == "OfflineModeIsEnabled":
            return revision  # a passing fault: the download will try again, and say so if it fails
        at = f" at revision '{revision}'" if revision else ""
        raise WeightsError(f"checkpoint '{repository}'{at}: {said}") from error
    names = {sibling.rfilename for sibling in info.siblings or ()}
    lacking = [name for name in files if not names & set(_forms(name))]
    for name in lacking:
        folder, slash, _ = name.rpartition("/")
        here = (n for n in sorted(names) if n.endswith(_PICKLES) and n.rpartition("/")[:2] == (folder, slash))
        if name.endswith(".safetensors") and (pickle := next(here, None)):
            raise WeightsError(
                f"'{repository}' has {pickle} only, a pickle, which can run code when it is read; "
                "https://huggingface.co/spaces/safetensors/convert makes a safetensors revision of it: give "
                "that as the revision, such as refs/pr/1"
            )
    if lacking:
        raise WeightsError(f"'{repository}' has no {lacking[0]}: it is no checkpoint of this kind")
    return info.sha


# --- loading --------------------------------------------------------------------------------------


def _config_of(cls: Any, checkpoint: str, folder: str | None, pinned: Mapping[str, Any]) -> dict[str, Any]:
    """Return a diffusers model's configuration, once it says that it is of this class."""
    config = read_json(checkpoint, f"{folder}/config.json" if folder else "config.json", **pinned)
    if (found := config.get("_class_name")) != cls.__name__:
        where = _where(checkpoint, folder)
        raise WeightsError(f"'{where}' is a '{found}', and {cls.__name__} is needed: is it another model's?")
    return config


def _where(checkpoint: str, folder: str | None) -> str:
    return f"{resolve(checkpoint)}/{folder}" if folder else resolve(checkpoint)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' bars and warnings out of the program's own words; what matters is raised."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    levels = logging.get_verbosity(), diffusers_logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(CRITICAL)
    diffusers_logging.set_verbosity(CRITICAL)
    try:
        with warnings.catch_warnings():
            # diffusers asks the hub's client with an argument of its former versions.
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument", UserWarning)
            yield
    finally:
        logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        if shown:
            logging.enable_progress_bar()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _spoken(error: BaseException) -> str | None:
    """Return what an error means in our words, if it is one of those that we know."""
    return next((_HUB_SAYS[n] for e in _chain(error) if (n := type(e).__name__) in _HUB_SAYS), None)


def _reason(error: Exception) -> str:
    """Return what a library's error says, on one line."""
    if said := _spoken(error):
        return said
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    # A heading says nothing without what it heads.
    return f"{first} {more[0].strip()}" if first.endswith(":") and more else first
