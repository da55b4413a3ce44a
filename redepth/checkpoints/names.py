"""Resolve a checkpoint's name: weights that ship with the package, a local folder, or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from redepth.checkpoints.embedded import EMBEDDED, embedded_folder
from redepth.checkpoints.files import first_outside
from redepth.errors import InputError, WeightsError, brief, cut
from redepth.io.paths import expanded, is_folder

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_PART}/{_PART}")
_REVISION = re.compile(r"\w[\w./+=-]{0,199}")


def resolve_name(checkpoint: str) -> str:
    """Return the path of a local folder, or a hub id.

    Args:
        checkpoint: ``embedded:NAME``, a folder, or a hub id (owner/name).

    Raises:
        WeightsError: there are no such embedded weights, or the name is neither an existing folder nor of
            the form of a hub id.
    """
    if checkpoint.startswith(EMBEDDED):
        return str(embedded_folder(checkpoint.removeprefix(EMBEDDED)))
    try:
        path = expanded(checkpoint)
    except InputError as error:
        raise WeightsError(f"checkpoint {error}") from None
    if checkpoint and is_folder(path):
        return str(path)
    # The hub's own rules; its client raises other errors for the rest.
    wrong = ".." in checkpoint or "--" in checkpoint or checkpoint.endswith(".git")
    if wrong or not _HUB_ID.fullmatch(checkpoint):
        hint = "; give a revision apart from the name" if "@" in checkpoint else ""
        raise WeightsError(
            f"checkpoint '{cut(checkpoint)}': no such folder, and not a hub id (owner/name){hint}"
            if checkpoint.isprintable()
            else f"checkpoint {brief(checkpoint)}: no such folder, and not a hub id (owner/name)"
        )
    return checkpoint


def check_revision(revision: str | None) -> None:
    """Raise WeightsError unless a revision can be the name of a commit, tag or branch."""
    if revision is None:
        return
    if not _REVISION.fullmatch(revision) or first_outside([revision]) is not None:
        raise WeightsError(f"revision {brief(revision)}: not the name of a commit, a tag or a branch")


def local_folder(checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint on this machine, or None for a hub id.

    Raises:
        WeightsError: as for `resolve_name`.
    """
    folder = Path(resolve_name(checkpoint))
    return folder if folder.is_dir() else None
