"""Files of the repository that the wheel leaves out: comparison priors, path-traced scenes."""

from __future__ import annotations

import os
from pathlib import Path

from redepth.errors import InputError

VARIABLE = "REDEPTH_ASSETS"
CHECKOUT = Path(__file__).parents[2] / "benchmarks"

SOURCE = (
    "it is part of redepth's repository, not of the wheel: run redepth from a clone, or set "
    f"{VARIABLE} to the benchmarks folder of one"
)
"""Where to get a missing asset, for messages."""


def assets_folder() -> Path:
    """Return the folder of the assets: ``$REDEPTH_ASSETS``, by default the checkout's ``benchmarks``."""
    folder = os.environ.get(VARIABLE)
    return Path(folder).expanduser() if folder else CHECKOUT


def find_asset(name: str) -> Path:
    """Return the path of a file or folder that is stored in the repository and not in the wheel.

    Args:
        name: relative to the ``benchmarks`` folder, such as ``data/path_traced.npz``.

    Raises:
        InputError: it is not there, with where to get it.
    """
    path = assets_folder() / name
    if not path.exists():
        raise InputError(f"no {path}: {SOURCE}")
    return path
