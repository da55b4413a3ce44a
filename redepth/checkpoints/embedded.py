"""The embedded checkpoints: a pair in the package, and priors for comparison in the repository."""

from __future__ import annotations

from pathlib import Path

from redepth.errors import InputError, WeightsError, brief
from redepth.io.assets import find_asset

EMBEDDED = "embedded:"
WEIGHTS = Path(__file__).parent / "weights"

COMPARISON = ("relief-prior", "smooth-relighting-prior", "captioned-prior", "captioned-poster-prior")
"""Priors that only experiments use; they are in the repository's ``benchmarks/checkpoints``."""


def embedded_folder(name: str) -> Path:
    """Return the folder of the checkpoint ``embedded:NAME``.

    Raises:
        WeightsError: there is no such checkpoint, or this installation does not have it.
    """
    packaged = [path.name for path in WEIGHTS.iterdir() if path.is_dir()]
    if name in packaged:
        return WEIGHTS / name
    if name in COMPARISON:
        try:
            return find_asset(f"checkpoints/{name}")
        except InputError as error:
            raise WeightsError(f"{EMBEDDED}{name}: {error}") from None
    names = ", ".join(sorted([*packaged, *COMPARISON]))
    raise WeightsError(f"no embedded checkpoint {brief(name)}; there are: {names}")
