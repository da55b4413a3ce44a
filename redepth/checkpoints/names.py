"""Resolve a checkpoint's name: weights that ship with the package, a local folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

from redepth.checkpoints.embedded import EMBEDDED, embedded_folder
from redepth.errors import WeightsError


def resolve_name(checkpoint: str) -> str:
    """Return the path of a local folder, or a hub id.

    Args:
        checkpoint: ``embedded:NAME``, a folder, or a hub id (owner/name).

    Raises:
        WeightsError: there are no such embedded weights, or the name looks like a path and no such folder
            exists.
    """
    if checkpoint.startswith(EMBEDDED):
        return str(embedded_folder(checkpoint.removeprefix(EMBEDDED)))
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1:
        raise WeightsError(f"checkpoint '{checkpoint}': no such folder, and not a hub id (owner/name)")
    return checkpoint


def local_folder(checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint on this machine, or None for a hub id.

    Raises:
        WeightsError: as for `resolve_name`.
    """
    folder = Path(resolve_name(checkpoint))
    return folder if folder.is_dir() else None
