"""The import of matplotlib, whatever the environment says about windows."""

from __future__ import annotations

import os
from types import ModuleType


def import_matplotlib() -> ModuleType:
    """Return matplotlib.

    ``MPLBACKEND`` does not matter here, because nothing opens a window. But the import fails if it names one
    that is not installed: a notebook's, which the processes that it starts inherit.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib
