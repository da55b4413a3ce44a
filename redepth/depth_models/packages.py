"""Depth models from optional packages that extras cannot install with all that they declare."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from redepth.errors import MissingDependencyError


def packaged(package: str, module: str, name: str, needed: str) -> Any:
    """Return a class or function of an optional package, without the warnings of its import.

    Args:
        package: its name for import.
        module: of the package.
        name: of the class or function.
        needed: what it is needed for, and how to install it.

    Raises:
        MissingDependencyError: the package, or one that it needs, is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(f"{package}.{module}"), name)
    except ImportError as error:
        raise MissingDependencyError(f"{error.name or package} is needed {needed}") from error
