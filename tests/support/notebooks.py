"""A kernel that is not there: what code shows in a notebook is collected."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import IPython.display
import pytest


def pretend_notebook(monkeypatch: pytest.MonkeyPatch, *, kernel: bool = True) -> list[Any]:
    """Let IPython run, with a kernel or in a terminal; return the list of what is displayed from now on."""
    shown: list[Any] = []
    running = ModuleType("IPython")
    shell = SimpleNamespace(kernel=object()) if kernel else SimpleNamespace()
    running.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", running)
    monkeypatch.setattr(IPython.display, "display", shown.append)
    return shown
