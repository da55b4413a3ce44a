"""A checkpoint whose files are on this machine or can be downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redepth.checkpoints import hub_api, loading
from redepth.checkpoints.cache import cached_file, note_absent, snapshot, unknown_files
from redepth.checkpoints.downloads import download
from redepth.checkpoints.files import alternatives, companions
from redepth.checkpoints.names import check_revision, local_folder, resolve_name
from redepth.checkpoints.optional_files import request_optional
from redepth.errors import WeightsError


@dataclass(frozen=True)
class Source:
    """A checkpoint; all its parts are loaded from one commit.

    Attributes:
        checkpoint: as for `resolve_name`.
        revision: the requested commit, tag or branch.
        commit: the commit that it refers to; None for a local folder, and before `lookup.locate`.
        local_files_only: never ask the hub.
        pending: files of the repository that are downloaded before the first of them is read.
        optional: files that are read if the checkpoint has them.

    Raises:
        WeightsError: the revision cannot be the name of one.
    """

    checkpoint: str
    revision: str | None = None
    commit: str | None = None
    local_files_only: bool = False
    pending: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_revision(self.revision)

    @property
    def is_local(self) -> bool:
        """Whether the checkpoint is a folder."""
        return local_folder(self.checkpoint) is not None

    @property
    def name(self) -> str:
        """The checkpoint's name in messages."""
        return resolve_name(self.checkpoint)

    def path(self) -> Path:
        """Return the folder of the files, after the download of those that are pending.

        Raises:
            WeightsError: the files are not available.
        """
        folder = local_folder(self.checkpoint)
        if folder is not None:
            return folder
        if self.commit is None:
            raise WeightsError(f"'{self.name}' has not been located")
        if self.pending:
            folder = download(self.name, self.revision, self.commit, self.pending)
            note_absent(self.name, self.commit, set(self.optional) - set(self.pending))
            return folder
        self.defaults_for()
        return snapshot(self.name, self.commit)

    def defaults_for(self) -> tuple[str, ...]:
        """Return the optional files that are unknown, so that defaults are used in their place.

        Another program may have filled the cache without them. Then the hub is asked once per process; if it
        cannot be asked, a warning is logged.
        """
        if self.commit is None or self.pending:
            return ()
        unknown = unknown_files(self.name, self.commit, self.optional)
        if not unknown:
            return ()
        return request_optional(self.name, self.commit, unknown, self.local_files_only)

    def holds(self, name: str) -> bool:
        """Return whether the checkpoint has a file, as far as this can be known before it is located."""
        if self.commit is not None:
            return name in self.pending or (self.path() / name).is_file()
        folder = local_folder(self.checkpoint)
        if folder is not None:
            return (folder / name).is_file()
        if cached_file(self.name, self.revision, name) is not None:
            return True
        if self.local_files_only or not hub_api.hub_reachable():
            return False
        try:
            return name in hub_api.listing(self.name, self.revision).names
        except WeightsError:  # loading reports it
            return False

    def load(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load an object that is no model, such as a tokenizer, as `loading.from_pretrained` does."""
        return loading.from_pretrained(cls, self.path(), name=self.name, subfolder=folder or "", **options)

    def model(self, cls: Any, folder: str | None, **options: Any) -> Any:
        """Load a model as `loading.load_model` does."""
        return loading.load_model(cls, self.path(), name=self.name, subfolder=folder or "", **options)

    def random_model(
        self, cls: Any, folder: str | None, seed: int, changes: Mapping[str, Any] | None = None
    ) -> Any:
        """Build a diffusers model from its configuration alone, in eval mode, with random weights.

        Args:
            cls: of the model.
            folder: of its configuration.
            seed: of the weights; the global generator keeps its state.
            changes: entries that replace those of the configuration.

        Raises:
            WeightsError: the configuration is not available or of another class.
        """
        config = loading.read_diffusers_config(cls, self.path(), folder or "", self.name)
        return loading.load_random_model(cls, {**config, **(changes or {})}, seed)

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file, as `loading.read_json` does."""
        return loading.read_json(self.path(), name)

    def file(self, name: str) -> Path:
        """Return the path of a file, as `loading.require_file` does."""
        return loading.require_file(self.path(), name)

    def tensors(self, name: str) -> dict[str, Any]:
        """Return the tensors of one safetensors file by name.

        Raises:
            WeightsError: the file is missing or damaged.
        """
        return loading.read_tensors(self.file(name))

    def identity(self, files: Sequence[str]) -> str:
        """Return a text that changes when these files do: the commit, or sizes and times of local files.

        What the libraries read beside a local file counts too. All variants of a file are in one commit.
        """
        folder = local_folder(self.checkpoint)
        if folder is None:
            without = "".join(f" without {name}" for name in self.defaults_for())
            return f"{self.name}@{self.commit or self.revision}{without}"
        names = dict.fromkeys(form for name in files for form in (*alternatives(name), *companions(name)))
        paths = [folder / name for name in names]
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()]
        return json.dumps([str(folder.resolve()), *stats])

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and commit for a run record, and `defaults_for` if there are any."""
        record: dict[str, Any] = {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "commit": self.commit,
        }
        defaults = self.defaults_for()
        if defaults:
            record["defaults_for"] = list(defaults)
        return record
