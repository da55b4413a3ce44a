"""The weights that ship with the package."""

from __future__ import annotations

from pathlib import Path

from redepth.errors import WeightsError

EMBEDDED = "embedded:"
WEIGHTS = Path(__file__).parent / "weights"


def embedded_folder(name: str) -> Path:
    """Return the folder of embedded weights.

    Raises:
        WeightsError: there are none of this name.
    """
    folder = WEIGHTS / name
    if not folder.is_dir():
        names = sorted(path.name for path in WEIGHTS.iterdir() if path.is_dir())
        raise WeightsError(f"no embedded checkpoint '{name}'; there are: {', '.join(names)}")
    return folder
