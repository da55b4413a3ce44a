"""Fetch the checkpoints of components ahead of a run: what is to come, whether it fits, the download."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from redepth.checkpoints.downloads import remaining
from redepth.checkpoints.lookup import sources_located
from redepth.checkpoints.progress import size_text
from redepth.checkpoints.source import Source
from redepth.contracts import HasNeeds
from redepth.errors import InputError, WeightsError


@dataclass(frozen=True)
class Pending:
    """A checkpoint and what is still to come of it.

    Attributes:
        source: the checkpoint.
        files: number of files that are not on this machine.
        bytes: of these files.
    """

    source: Source
    files: int = 0
    bytes: int = 0


def sources_of(component: object) -> list[Source]:
    """Return the checkpoints that a component would load, each once. Asks the hub for what is not cached.

    Raises:
        WeightsError: one is neither on this machine nor on the hub, or the hub cannot be reached.
        MissingDependencyError: the component needs a package.
    """
    if not isinstance(component, HasNeeds):
        return []
    # An InputError is about a file of the user's, such as the map of a photo, and not about a checkpoint.
    with sources_located() as sources, suppress(InputError):
        component.ensure_available()
    return list(dict.fromkeys(sources))


def pending(source: Source) -> Pending:
    """Return what is still to come of a checkpoint.

    Raises:
        WeightsError: the hub fails.
    """
    if source.commit is None or not source.pending:
        return Pending(source)
    files, size = remaining(source.name, source.commit, source.pending)
    return Pending(source, files, size)


def free_space() -> tuple[Path, int]:
    """Return the folder of the hub's cache, and the bytes that are free on its disk."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return folder, shutil.disk_usage(existing).free


def fetch(items: Iterable[Pending]) -> None:
    """Download what is still to come; an interrupted download goes on where it stopped.

    Raises:
        WeightsError: it does not fit on the disk, or the hub fails.
    """
    items = list(items)
    needed, (folder, free) = sum(item.bytes for item in items), free_space()
    if needed > free:
        raise WeightsError(
            f"{size_text(needed)} are to come and '{folder}' has {size_text(free)} left: free some space or "
            "set HF_HOME to a folder elsewhere"
        )
    for item in items:
        item.source.path()
