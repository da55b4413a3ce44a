"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from redepth.pipeline import Pipeline


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def never_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call under this fixture fails the test if it gets as far as loading weights."""

    def explode(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded weights")

    monkeypatch.setattr(Pipeline, "__init__", explode)
