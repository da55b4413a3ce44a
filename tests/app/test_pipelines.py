"""Loaded pipelines, with the models that ship."""

import weakref

import numpy as np
import pytest
import torch

from redepth.app import pipelines
from redepth.app.pipelines import Pipelines, adjusted
from redepth.app.settings import RunSettings
from redepth.pipeline import Pipeline, refine
from tests.support.helpers import photo

pytestmark = pytest.mark.slow

FEW = RunSettings("smoke", members=1, steps=1)


@pytest.fixture
def pixels() -> np.ndarray:
    return photo(96, 96)[0].permute(1, 2, 0).numpy()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    class Counted(Pipeline):
        def __init__(self, preset: str, device: str) -> None:
            names.append(preset)
            super().__init__(preset, device=device)

    monkeypatch.setattr(pipelines, "Pipeline", Counted)
    return names


def test_the_last_pipeline_is_kept_and_no_other(loads: list[str]) -> None:
    pool = Pipelines("cpu")
    with pool.lent("smoke", FEW.resolved()) as first:
        model = weakref.ref(first.refiner.depth_model)
    assert pool.is_loaded("smoke")
    with pool.lent("smoke", RunSettings("smoke", members=2).resolved()) as second:
        assert second.refiner.depth_model is model()
        assert second.refiner.optim.members == 2
    assert loads == ["smoke"]
    del first, second
    with pool.lent("embedded", RunSettings("embedded").resolved()):
        assert model() is None, "two models are loaded at the same time"
    assert loads == ["smoke", "embedded"]
    pool.release()
    assert not pool.is_loaded("embedded")


def test_a_pipeline_is_not_kept_after_an_error(loads: list[str]) -> None:
    pool = Pipelines("cpu")
    with pytest.raises(MemoryError), pool.lent("smoke", FEW.resolved()):
        raise MemoryError
    assert not pool.is_loaded("smoke")


def test_an_adjusted_pipeline_refines_as_a_new_one_does(pixels: np.ndarray) -> None:
    preset = RunSettings("smoke", members=2, steps=2, seed=3).resolved()
    loaded = Pipeline("smoke", device="cpu")
    loaded.refine(pixels, seed=1)  # which must leave nothing behind
    ours = adjusted(loaded, preset).refine(pixels, seed=3)
    theirs = refine(pixels, preset, seed=3, device="cpu")
    torch.testing.assert_close(ours.outcome.members, theirs.outcome.members)
    assert ours.preset == theirs.preset
    assert ours.components["execution"] == theirs.components["execution"]
    assert loaded.preset.optim.members == 2
