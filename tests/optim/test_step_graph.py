"""Steps as graphs, with the capture put aside: what replays is the call itself, on the CPU."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from redepth.config import Optim
from redepth.contracts import Illumination, StepDraws
from redepth.errors import ConfigError
from redepth.optim import execution, loop
from redepth.optim.group import Group
from redepth.optim.outcome import Outcome, StepReport
from redepth.optim.refiner import Refiner
from redepth.optim.step_graph import EAGER_STEPS, Advance, StepGraph, Taken
from redepth.renderers.mesh import Mesh
from tests.optim.test_performance import Narrow
from tests.optim.test_refiner import Exhausting
from tests.priors.test_rules_on_models import latent_prior
from tests.support.helpers import CPU, TargetPrior, make_refiner, photo, tiny_depth_model, tiny_prior

STEPS = EAGER_STEPS + 5


class Replaying(StepGraph):
    """A graph whose replay makes the captured call again, with what it was captured with."""

    captures = 0
    error: Exception | None = None

    def capture(self, call: Callable[[], Taken]) -> tuple[Any, Callable[[], None]]:
        Replaying.captures += 1
        if self.error is not None:
            raise self.error

        written: list[Taken] = []

        def replay() -> None:
            taken = call()
            if not written:
                written.append(taken.clone())
                self._outputs = written[0]
            # As a graph does: it writes where it wrote before.
            losses = [(written[0].losses[name], taken.losses[name]) for name in taken.losses]
            for own, new in [*losses, *zip(written[0][1:], taken[1:], strict=True)]:
                own.copy_(new)

        return object(), replay


@pytest.fixture(autouse=True)
def _none_captured() -> None:
    Replaying.captures = 0


def eager(*given: Any, **settings: Any) -> Refiner:
    """A refiner whose rates are tensors, as a graph needs them; on a CPU its steps are eager."""
    refiner = make_refiner(*given, **settings)
    refiner.execution["cuda_graphs"] = "step"
    return refiner


def with_graphs(monkeypatch: pytest.MonkeyPatch, *given: Any, **settings: Any) -> Refiner:
    refiner = eager(*given, **settings)
    monkeypatch.setattr(refiner, "stepper", lambda advance: Replaying(advance, CPU))
    return refiner


def same(found: Outcome, expected: Outcome) -> bool:
    return torch.equal(found.members, expected.members) and found.history == expected.history


@pytest.mark.parametrize("prior", ["target", "latent"])
@pytest.mark.parametrize("more", [{}, {"early_stop": {"enabled": True, "window": 2}}])
def test_replayed_steps_are_the_eager_ones(
    prior: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other draws, another rate and other parameters at each step."""
    settings: dict[str, Any] = {
        "steps": STEPS,
        "schedule": "cosine",
        "parameterization": "embeddings+decoder",
    }
    settings |= more
    given = TargetPrior() if prior == "target" else latent_prior("sds")
    expected = eager(given, **settings).run(photo(), prompt="a tiger", seed=3)
    found = with_graphs(monkeypatch, given, **settings).run(photo(), prompt="a tiger", seed=3)
    assert Replaying.captures == 1
    assert torch.equal(found.offsets, expected.offsets)
    assert same(found, expected)


def test_each_group_of_members_has_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": STEPS, "members_per_batch": 2}
    found = with_graphs(monkeypatch, **settings).run(photo())
    assert Replaying.captures == 2
    assert same(found, eager(**settings).run(photo()))


def test_what_is_reported_stays_when_the_next_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[StepReport] = []
    with_graphs(monkeypatch, steps=STEPS).run(photo(), on_step=reports.append)
    expected: list[StepReport] = []
    eager(steps=STEPS).run(photo(), on_step=expected.append)
    for name in ("raw", "depth", "relit"):
        assert all(
            torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(reports, expected, strict=True)
        )


def test_a_prior_that_widens_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": 3 * EAGER_STEPS, "parameterization": "depth"}
    found = with_graphs(monkeypatch, Narrow(EAGER_STEPS + 2, False), **settings).run(photo(), seed=2)
    assert Replaying.captures == 2
    assert same(found, eager(**settings).run(photo(), seed=2))


def test_draws_that_are_read_as_numbers_keep_the_steps_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_graphs(monkeypatch, tiny_prior(), steps=STEPS).run(photo())
    assert Replaying.captures == 0
    assert same(found, eager(tiny_prior(), steps=STEPS).run(photo()))


def test_draws_of_another_order_or_kind_give_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded run may hold its tensors in another order, or more of them from some step on."""
    recorded: list[StepDraws] = []
    eager(steps=STEPS).run(photo(), on_step=lambda report: recorded.append(report.draws))
    expected = eager(steps=STEPS).run(photo(), draws=recorded)

    def turned(draws: StepDraws, more: bool) -> StepDraws:
        light = dict(reversed(draws.illumination.tensors.items()))
        extra = {"unread": torch.zeros(3, 1)} if more else {}
        return StepDraws(Illumination(light | extra), draws.noise)

    other = [turned(d, step == STEPS - 1) if step > EAGER_STEPS else d for step, d in enumerate(recorded)]
    found = with_graphs(monkeypatch, steps=STEPS).run(photo(), draws=other)
    assert Replaying.captures == 1
    assert same(found, expected)


def test_a_group_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collector of cycles: what is freed late is not there when memory has run out."""
    alive: list[weakref.ref[Any]] = []
    left: list[int] = []

    class Watched(Group):
        def __init__(self, *args: Any) -> None:
            left.append(sum(ref() is not None for ref in alive))
            super().__init__(*args)
            alive.append(weakref.ref(self))

    monkeypatch.setattr(loop, "Group", Watched)
    gc.collect()
    gc.disable()
    try:
        with_graphs(monkeypatch, members=4, members_per_batch=1, steps=STEPS).run(photo())
        make_refiner(Exhausting(), members=5).run(photo())
    finally:
        gc.enable()
    assert left == [0] * len(left)
    assert len(left) == 4 + 4


def test_what_cannot_be_captured_stays_eager_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Replaying, "error", RuntimeError("operation not permitted when stream is capturing"))
    refiner = with_graphs(monkeypatch, steps=STEPS)
    with caplog.at_level(logging.WARNING):
        found = refiner.run(photo())
    assert Replaying.captures == 1
    assert "a step cannot become a CUDA graph and stays eager: operation not permitted" in caplog.text
    assert refiner.execution["cuda_graphs"] == "off"
    assert same(found, eager(steps=STEPS).run(photo()))


def test_memory_that_runs_out_in_a_capture_halves_the_members(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Replaying):
        def capture(self, call: Callable[[], Taken]) -> tuple[Any, Callable[[], None]]:
            if Replaying.captures == 0:
                Full.error = torch.OutOfMemoryError()
            else:
                Full.error = None
            return super().capture(call)

    def stepper(advance: Advance) -> StepGraph:
        return Full(advance, CPU)

    refiner = with_graphs(monkeypatch, members=4, steps=STEPS)
    monkeypatch.setattr(refiner, "stepper", stepper)
    with caplog.at_level(logging.WARNING):
        found = refiner.run(photo())
    assert "out of memory: going on with 2 members at a time" in caplog.text
    assert same(found, eager(members=4, members_per_batch=2, steps=STEPS).run(photo()))


@pytest.mark.parametrize(
    ("on", "settings", "expected"),
    [
        ("cuda:0", {}, "step"),
        ("cpu", {}, "off"),
        ("cpu", {"performance": {"cuda_graphs": "step"}}, "off"),
        ("cuda:0", {"steps": 99}, "off"),
        ("cuda:0", {"steps": 10, "performance": {"cuda_graphs": "denoiser"}}, "denoiser"),
        ("cuda:0", {"performance": {"cuda_graphs": False}}, "off"),
    ],
)
def test_a_step_becomes_a_graph_where_that_pays(on: str, settings: dict[str, Any], expected: str) -> None:
    optim = Optim.model_validate(settings)
    assert execution.graphed(optim, torch.device(on)) == expected


@pytest.mark.parametrize(
    ("on", "settings", "expected"),
    [
        ("cuda:0", {}, "streams"),
        ("cuda:0", {"steps": 10}, "batched"),
        ("cuda:0", {"performance": {"decoders": "loop"}}, "loop"),
        ("cpu", {}, "loop"),
    ],
)
def test_decoders_run_as_suits_the_device(on: str, settings: dict[str, Any], expected: str) -> None:
    model, optim = tiny_depth_model(), Optim.model_validate(settings)
    assert execution.tune(optim, torch.device(on), model, TargetPrior())["decoders"] == expected
    assert model.batches_decoders == (expected == "batched")


def test_a_rule_that_learns_is_neither_graph_nor_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Learning(TargetPrior):
        learns = True

    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(execution, "TRITON_PROBLEM", "")
    found = execution.tune(Optim(), cuda, tiny_depth_model(), Learning())
    assert found["cuda_graphs"] == found["fused_kernels"] == "off"
    mesh = Mesh()
    assert execution.tune(Optim(), cuda, tiny_depth_model(), TargetPrior(), mesh)["cuda_graphs"] == "off"
    # Draws that are read as numbers make each step another one.
    assert execution.tune(Optim(), cuda, tiny_depth_model(), tiny_prior())["cuda_graphs"] == "off"
    assert execution.tune(Optim(), cuda, tiny_depth_model(), TargetPrior())["fused_kernels"] == "on"
    asked = Optim.model_validate({"performance": {"cuda_graphs": "step"}})
    with pytest.raises(ConfigError, match="cuda_graphs=step needs a prior whose networks do not change"):
        execution.tune(asked, cuda, tiny_depth_model(), Learning())
