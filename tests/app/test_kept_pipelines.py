"""Which loaded pipelines are kept, with components that load nothing."""

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from redepth.app import pipelines
from redepth.app.pipelines import Pipelines
from redepth.app.running import Run
from redepth.optim.outcome import OnStep

PRESET: Any = None
"""Fakes need no settings."""


class Prior:
    """A prior that can be taken to float32."""

    def __init__(self) -> None:
        self.dtype = "float16"

    def describe(self) -> dict[str, str]:
        return {"dtype": self.dtype}


class Loaded:
    """Stands for a loaded pipeline; a cycle, as real ones have, leaves it to the garbage collector."""

    alive: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    largest = 0

    def __init__(self, name: str, device: str) -> None:
        Loaded.alive.add(self)
        Loaded.largest = max(Loaded.largest, len(Loaded.alive))
        self.refiner = SimpleNamespace(prior=Prior(), of=self)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pipelines:
    monkeypatch.setattr(pipelines, "Pipeline", Loaded)
    monkeypatch.setattr(pipelines, "adjusted", lambda pipeline, preset: pipeline)
    monkeypatch.setattr(Loaded, "alive", weakref.WeakSet())
    monkeypatch.setattr(Loaded, "largest", 0)
    return Pipelines("cpu")


def test_the_models_of_a_failed_run_are_gone_when_the_next_are_loaded(pool: Pipelines) -> None:
    def fails(on_step: OnStep, say: Any) -> Any:
        with pool.lent("smoke", PRESET) as pipeline:
            raise MemoryError(f"no room beside {len(vars(pipeline))} models")

    def succeeds(on_step: OnStep, say: Any) -> Any:
        with pool.lent("smoke", PRESET):
            return "result"

    def run_of(work: Any) -> Run:
        run = Run(work, threading.Semaphore(1), threading.Event())
        assert list(run.updates()) == []
        return run

    gc.disable()  # a collection that happens by chance must not help
    try:
        # Whoever shows an error may hold it while the next run begins.
        with pytest.raises(MemoryError) as held:
            run_of(fails).result()
        assert run_of(succeeds).result() == "result"
        assert held.value.args
    finally:
        gc.enable()
    assert Loaded.largest == 1


def test_a_prior_that_became_float32_is_not_kept(pool: Pipelines) -> None:
    with pool.lent("smoke", PRESET) as first:
        pass
    with pool.lent("smoke", PRESET) as second:
        assert second is first
        second.refiner.prior.dtype = "float32"
    assert not pool.is_loaded("smoke")
    with pool.lent("smoke", PRESET) as third:
        assert third.refiner.prior.dtype == "float16"
    assert pool.is_loaded("smoke")
