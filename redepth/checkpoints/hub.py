"""Checkpoints: embedded with the package, a local folder, or a Hugging Face hub id.

Weights are read from safetensors alone: a pickle can run code when it is read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redepth.checkpoints import downloads
from redepth.checkpoints import files as checkpoint_files
from redepth.checkpoints.embedded import EMBEDDED, embedded_folder
from redepth.checkpoints.messages import chain, reason
from redepth.errors import WeightsError

log = logging.getLogger(__name__)

_NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")
"""DPT's first fusion layer has nothing to fuse with; some published checkpoints leave its weights out."""


def source_of(checkpoint: str) -> str:
    """Return a local folder for ``embedded:NAME`` and existing folders, else the hub id unchanged.

    Raises:
        WeightsError: if the name looks like a path (or is embedded) and no such folder exists.
    """
    if checkpoint.startswith(EMBEDDED):
        return str(embedded_folder(checkpoint.removeprefix(EMBEDDED)))
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1:
        raise WeightsError(f"checkpoint '{checkpoint}': no such folder, and not a hub id (owner/name)")
    return checkpoint


def ensure_available(
    checkpoint: str,
    revision: str | None,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    local_files_only: bool = False,
) -> None:
    """Fail now, before any work, if a checkpoint cannot be had; the arguments are those of `locate`.

    Raises:
        WeightsError: with what to do about it.
    """
    locate(checkpoint, revision, files, optional=optional, local_files_only=local_files_only)


@dataclass(frozen=True)
class Source:
    """A checkpoint whose files are there or can be had; all its parts are loaded from one commit.

    Attributes:
        checkpoint: as for `resolve`.
        revision: the commit, tag or branch that was asked for.
        commit: the one that it stands for; None for a local folder.
        local_files_only: never ask the hub.
        pending: files of the repository that are downloaded before the first of them is read.
        optional: files that are read if the checkpoint has them.
    """

    checkpoint: str
    revision: str | None = None
    commit: str | None = None
    local_files_only: bool = False
    pending: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def path(self) -> Path:
        """Return the folder of the files, which are downloaded if need be.

        Raises:
            WeightsError: they cannot be had.
        """
        name = source_of(self.checkpoint)
        if self.is_local:
            return Path(name)
        if self.commit is None:
            raise WeightsError(f"'{name}' was not looked for")
        if self.pending:
            folder = downloads.download(name, self.revision, self.commit, self.pending)
            downloads.note_absent(name, self.commit, set(self.optional) - set(self.pending))
            return folder
        self.defaults_for()
        return downloads.snapshot(name, self.commit)

    def defaults_for(self) -> tuple[str, ...]:
        """Return the optional files for which defaults stand because it is not known what is in them.

        What is in the cache may have come without them, by another program: then the hub is asked, once per
        process, and has the last word. Where it cannot be asked, a warning says so.
        """
        if self.commit is None or self.pending:
            return ()
        unknown = _unknown(self.name, self.commit, self.optional)
        return _asked_for(self.name, self.commit, unknown, self.local_files_only) if unknown else ()

    def load(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load what is no model, such as a tokenizer, as `from_pretrained` does."""
        return from_pretrained(cls, str(self.path()), name=self.name, subfolder=folder or "", **options)

    def model(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load a model as `whole_model` does."""
        return whole_model(cls, str(self.path()), name=self.name, subfolder=folder or "", **options)

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

        config = _config_of(cls, str(self.path()), folder, self.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.from_config({**config, **(changes or {})}).eval()

    def holds(self, name: str) -> bool:
        """Return whether the checkpoint has a file, as `holds` does; of one that was located, it is known."""
        if self.commit is None:
            return holds(
                self.checkpoint, name, revision=self.revision, local_files_only=self.local_files_only
            )
        return name in self.pending or (self.path() / name).is_file()

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file, as `read_json` does."""
        return read_json(str(self.path()), name)

    def file(self, name: str) -> Path:
        """Return the path of a file, as `fetch` does."""
        return fetch(str(self.path()), name)

    def tensors(self, name: str) -> dict[str, Any]:
        """Return the tensors of one safetensors file by name.

        Raises:
            WeightsError: if it cannot be had or is damaged.
        """
        from safetensors.torch import load_file

        path = self.file(name)
        try:
            return load_file(path)
        except Exception as error:  # as in `from_pretrained`
            raise WeightsError(f"cannot read '{path}': {_said(error, path.parent)}") from error

    def identity(self, files: Sequence[str]) -> str:
        """Return what changes when these files do: the commit, or a local folder's file sizes and times."""
        source = source_of(self.checkpoint)
        if not Path(source).is_dir():
            lacking = "".join(f" without {name}" for name in self.defaults_for())
            return f"{source}@{self.commit or self.revision}{lacking}"
        paths = [Path(source) / form for name in files for form in checkpoint_files.forms(name)]
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()]
        return json.dumps([str(Path(source).resolve()), *stats])

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and commit for a run record, and what `defaults_for` does if any."""
        found = {"checkpoint": self.checkpoint, "revision": self.revision, "commit": self.commit}
        return found | ({"defaults_for": list(names)} if (names := self.defaults_for()) else {})

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return Path(source_of(self.checkpoint)).is_dir()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return source_of(self.checkpoint)


def locate(
    checkpoint: str,
    revision: str | None,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    local_files_only: bool = False,
) -> Source:
    """Find where a checkpoint's files come from, before any of them is read.

    A local folder and the hub's cache are looked at first. What is whole in the cache is taken as it is,
    without asking the hub for something newer: a run does not change by itself. Nothing is downloaded yet,
    nor is the hub asked for optional files that the cache lacks: `Source.path` does both.

    Args:
        checkpoint: as for `resolve`.
        revision: commit, tag or branch of the hub repository.
        files: what will be loaded from it. Sharded weights count for the file that they are the parts of,
            a ``tokenizer.json`` for the vocabulary files beside it.
        optional: what is read as well if the checkpoint has it.
        local_files_only: never ask the hub.

    Raises:
        WeightsError: if files are missing or pickles, the repository or the revision does not exist, or it
            is neither cached nor reachable.
    """
    name = source_of(checkpoint)
    if Path(name).is_dir():
        if said := checkpoint_files.folder_complaint(Path(name), files):
            raise WeightsError(said)
        return Source(checkpoint, revision, local_files_only=local_files_only)
    if is_cached(name, revision, files):
        commit = _cached_commit(name, revision)
        return Source(checkpoint, revision, commit, local_files_only, optional=tuple(optional))
    away = "local_files_only is set" if local_files_only else downloads.unreachable()
    if not away:
        found = downloads.listing(name, revision)
        if said := checkpoint_files.listing_complaint(name, found.names, files):
            raise WeightsError(said)
        pending = tuple(checkpoint_files.chosen(found.names, files, optional))
        return Source(checkpoint, revision, found.commit, local_files_only, pending, tuple(optional))
    cached = _cached_folder(name, revision)
    if cached is not None and (said := checkpoint_files.pickled(cached, files)):
        raise WeightsError(said)
    command = checkpoint_files.download_command(name, revision, [*files, *optional])
    raise WeightsError(
        f"the weights of '{name}' are not in the cache and the Hugging Face hub cannot be reached ({away}): "
        f"connect and run '{command}', give a local folder instead, or run offline with --preset embedded"
    )


def is_cached(repository: str, revision: str | None, files: Sequence[str]) -> bool:
    """Return whether all these files of a hub repository have been downloaded."""
    return not checkpoint_files.lacking(functools.partial(_from_cache, repository, revision), files)


def holds(checkpoint: str, name: str, *, revision: str | None = None, local_files_only: bool = False) -> bool:
    """Return whether a checkpoint has a file, as far as that can be known here."""
    source = source_of(checkpoint)
    if Path(source).is_dir():
        return (Path(source) / name).is_file()
    if _from_cache(source, revision, name) is not None:
        return True
    if local_files_only or not hub_reachable():
        return False
    try:
        return name in downloads.listing(source, revision).names
    except WeightsError:  # loading will say what is wrong
        return False


def hub_reachable() -> bool:
    """Return whether the hub answers; False at once under HF_HUB_OFFLINE=1."""
    return not downloads.unreachable()


def from_pretrained(
    cls: Any, checkpoint: str, *, revision: str | None = None, name: str | None = None, **options: Any
) -> Any:
    """Call ``cls.from_pretrained`` on safetensors weights, with one clear line for what goes wrong.

    ``name`` is what the checkpoint is called in messages.

    Raises:
        WeightsError: missing, unreachable, corrupted, pickled or of another class.
    """
    folder = options.get("subfolder")
    where = _where(name or checkpoint, folder)
    if cls.__module__.startswith("diffusers") and "use_safetensors" in options:
        # The quick way needs accelerate, which nothing else here does.
        options.setdefault("low_cpu_mem_usage", importlib.util.find_spec("accelerate") is not None)
    source = source_of(checkpoint)
    try:
        with _quiet():
            return cls.from_pretrained(source, revision=revision, **options)
    except Exception as error:  # the libraries raise a dozen types; each means the same to the user
        said = _said(error, Path(source) / (folder or ""))
        raise WeightsError(f"cannot load {cls.__name__} from '{where}': {said}") from error


def whole_model(
    cls: Any, checkpoint: str, *, revision: str | None = None, name: str | None = None, **options: Any
) -> Any:
    """Load a model as `from_pretrained` does, and refuse one that is of another class or not whole.

    The libraries themselves fill what is missing with random numbers.

    Raises:
        WeightsError: as for `from_pretrained`, or weights are missing or of another shape.
    """
    folder = options.get("subfolder")
    if cls.__module__.startswith("diffusers"):
        _config_of(cls, checkpoint, folder, name or checkpoint)
    else:
        options["ignore_mismatched_sizes"] = True
    model, report = from_pretrained(
        cls,
        checkpoint,
        revision=revision,
        name=name,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    reshaped = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    if lacking := sorted(k for k in {*report["missing_keys"], *reshaped} if not _NEVER_USED.search(k)):
        where = _where(name or checkpoint, folder)
        raise WeightsError(
            f"cannot load {cls.__name__} from '{where}': {len(lacking)} of its weights are missing or of "
            f"another shape, such as {lacking[0]}: the checkpoint is damaged or of another model"
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
        raise WeightsError(f"cannot load the weights in '{path}': {_said(error, path.parent)}") from error
    raise WeightsError(f"'{path}' lacks {len(lacking)} weights, such as {prefixes[0]}{lacking[0]}")


def fetch(checkpoint: str, name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the path of one file of a checkpoint, downloaded if need be.

    Raises:
        WeightsError: if the checkpoint has no such file, or it cannot be had.
    """
    source = source_of(checkpoint)
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            raise WeightsError(f"'{source}' has no file {name}: it is no whole checkpoint")
        return path
    return locate(checkpoint, revision, [name], local_files_only=local_files_only).path() / name


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
        raise WeightsError(
            f"'{path}' is not JSON ({reason(error)}): {checkpoint_files.cure(path.resolve())}"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' must hold a JSON object")
    return content


# --- the cache ------------------------------------------------------------------------------------


def _from_cache(repository: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _cached_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit that a revision stands for in the cache."""
    reference = downloads.repository_folder(repository) / "refs" / (revision or "main")
    # The hub's own client writes it in place, so that it may be empty for a moment.
    return (reference.read_text().strip() if reference.is_file() else "") or revision


def _unknown(repository: str, commit: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the files that are not in the cache, nor noted there as files that the commit does not have."""
    from huggingface_hub import try_to_load_from_cache

    return tuple(n for n in names if try_to_load_from_cache(repository, n, revision=commit) is None)


@functools.lru_cache(maxsize=64)
def _asked_for(
    repository: str, commit: str, names: tuple[str, ...], local_files_only: bool
) -> tuple[str, ...]:
    """Bring small files that a cached commit lacks into the cache; return those that could not be had."""
    away = "local_files_only is set" if local_files_only else downloads.unreachable()
    if not away:
        try:
            there = downloads.listing(repository, commit).names
            downloads.note_absent(repository, commit, set(names) - there)
            downloads.download(repository, commit, commit, [name for name in names if name in there])
        except WeightsError as error:  # what is needed is here, so that the run can go on
            away = str(error)
    left = _unknown(repository, commit, names) if away else ()
    if left:
        log.warning(
            "'%s' is in the cache without %s, which the hub could not be asked for (%s): defaults stand, and "
            "results may differ from those of other machines; run once where the hub can be reached",
            repository,
            ", ".join(left),
            away,
        )
    return left


def _cached_folder(repository: str, revision: str | None) -> Path | None:
    """Return the folder of a repository's snapshot, whatever it holds."""
    commit = _cached_commit(repository, revision)
    folder = downloads.snapshot(repository, commit) if commit else None
    return folder if folder is not None and folder.is_dir() else None


# --- loading --------------------------------------------------------------------------------------


def _config_of(cls: Any, checkpoint: str, folder: str | None, name: str) -> dict[str, Any]:
    """Return a diffusers model's configuration, once it says that it is of this class."""
    config = read_json(checkpoint, f"{folder}/config.json" if folder else "config.json")
    if (found := config.get("_class_name")) != cls.__name__:
        where = _where(name, folder)
        raise WeightsError(f"'{where}' is a '{found}', and {cls.__name__} is needed: is it another model's?")
    return config


def _where(checkpoint: str, folder: str | None) -> str:
    return f"{source_of(checkpoint)}/{folder}" if folder else source_of(checkpoint)


def _said(error: Exception, folder: Path) -> str:
    """Return what an error says; of a damaged file, which it is and what to do about it."""
    names = {type(link).__name__ for link in chain(error)}
    if "SafetensorError" in names and folder.is_dir() and (path := checkpoint_files.damaged(folder)):
        return f"a weights file is damaged: {checkpoint_files.cure(path)}"
    return reason(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' bars and warnings out of the program's own words; what matters is raised."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    levels = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # diffusers asks the hub's client with an argument of its former versions.
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument", UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        if shown:
            transformers_logging.enable_progress_bar()
