"""Steps as graphs, with a capture that is simulated on the CPU: a replay makes the call again."""

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
    """A graph whose replay makes the captured call again, with the tensors of the capture."""

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
            # A graph overwrites its output tensors.
            losses = [(written[0].losses[name], taken.losses[name]) for name in taken.losses]
            for output, new in [*losses, *zip(written[0][1:], taken[1:], strict=True)]:
                output.copy_(new)

        return object(), replay


@pytest.fixture(autouse=True)
def _none_captured() -> None:
    Replaying.captures = 0


def eager(*args: Any, **settings: Any) -> Refiner:
    """A refiner whose learning rates are tensors, as a graph needs; on a CPU its steps are eager."""
    refiner = make_refiner(*args, **settings)
    refiner.execution["cuda_graphs"] = "step"
    return refiner


def with_graphs(monkeypatch: pytest.MonkeyPatch, *args: Any, **settings: Any) -> Refiner:
    refiner = eager(*args, **settings)
    monkeypatch.setattr(refiner, "stepper", lambda advance: Replaying(advance, CPU))
    return refiner


def same(actual: Outcome, expected: Outcome) -> bool:
    return torch.equal(actual.members, expected.members) and actual.history == expected.history


@pytest.mark.slow
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
    component = TargetPrior() if prior == "target" else latent_prior("sds")
    expected = eager(component, **settings).run(photo(), prompt="a tiger", seed=3)
    actual = with_graphs(monkeypatch, component, **settings).run(photo(), prompt="a tiger", seed=3)
    assert Replaying.captures == 1
    assert torch.equal(actual.offsets, expected.offsets)
    assert same(actual, expected)


@pytest.mark.slow
def test_each_group_of_members_has_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": STEPS, "members_per_batch": 2}
    actual = with_graphs(monkeypatch, **settings).run(photo())
    assert Replaying.captures == 2
    assert same(actual, eager(**settings).run(photo()))


def test_the_next_step_does_not_change_earlier_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[StepReport] = []
    with_graphs(monkeypatch, steps=STEPS).run(photo(), on_step=reports.append)
    expected: list[StepReport] = []
    eager(steps=STEPS).run(photo(), on_step=expected.append)
    for name in ("raw", "depth", "relit"):
        assert all(
            torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(reports, expected, strict=True)
        )


@pytest.mark.slow
def test_an_upcast_prior_is_captured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": 3 * EAGER_STEPS, "parameterization": "depth"}
    actual = with_graphs(monkeypatch, Narrow(EAGER_STEPS + 2, False), **settings).run(photo(), seed=2)
    assert Replaying.captures == 2
    assert same(actual, eager(**settings).run(photo(), seed=2))


def test_draws_read_on_the_host_keep_the_steps_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    actual = with_graphs(monkeypatch, tiny_prior(), steps=STEPS).run(photo())
    assert Replaying.captures == 0
    assert same(actual, eager(tiny_prior(), steps=STEPS).run(photo()))


@pytest.mark.slow
def test_draws_of_another_order_or_kind_give_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded run may hold its tensors in another order, or hold more of them from some step on."""
    recorded: list[StepDraws] = []
    eager(steps=STEPS).run(photo(), on_step=lambda report: recorded.append(report.draws))
    expected = eager(steps=STEPS).run(photo(), draws=recorded)

    def reordered(draws: StepDraws, more: bool) -> StepDraws:
        light = dict(reversed(draws.illumination.tensors.items()))
        extra = {"unread": torch.zeros(3, 1)} if more else {}
        return StepDraws(Illumination(light | extra), draws.noise)

    other = [reordered(d, step == STEPS - 1) if step > EAGER_STEPS else d for step, d in enumerate(recorded)]
    actual = with_graphs(monkeypatch, steps=STEPS).run(photo(), draws=other)
    assert Replaying.captures == 1
    assert same(actual, expected)


@pytest.mark.slow
def test_a_group_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the garbage collector: memory that is freed late is missing when memory runs out."""
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


def test_steps_that_cannot_be_captured_stay_eager_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Replaying, "error", RuntimeError("operation not permitted when stream is capturing"))
    refiner = with_graphs(monkeypatch, steps=STEPS)
    with caplog.at_level(logging.WARNING):
        actual = refiner.run(photo())
    assert Replaying.captures == 1
    assert "a step cannot become a CUDA graph and stays eager: operation not permitted" in caplog.text
    assert refiner.execution["cuda_graphs"] == "off"
    assert same(actual, eager(steps=STEPS).run(photo()))


@pytest.mark.slow
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
        actual = refiner.run(photo())
    assert "out of memory: going on with 2 members at a time" in caplog.text
    assert same(actual, eager(members=4, members_per_batch=2, steps=STEPS).run(photo()))


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
def test_a_step_becomes_a_graph_where_it_saves_time(on: str, settings: dict[str, Any], expected: str) -> None:
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
def test_how_decoders_run_depends_on_the_device(on: str, settings: dict[str, Any], expected: str) -> None:
    model, optim = tiny_depth_model(), Optim.model_validate(settings)
    assert execution.tune(optim, torch.device(on), model, TargetPrior())["decoders"] == expected
    assert model.batches_decoders == (expected == "batched")


def test_a_prior_that_learns_is_neither_graph_nor_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Learning(TargetPrior):
        learns = True

    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(execution, "TRITON_PROBLEM", "")
    decisions = execution.tune(Optim(), cuda, tiny_depth_model(), Learning())
    assert decisions["cuda_graphs"] == decisions["fused_kernels"] == "off"
    mesh = Mesh()
    assert execution.tune(Optim(), cuda, tiny_depth_model(), TargetPrior(), mesh)["cuda_graphs"] == "off"
    # Where draws are read on the host, each step launches other kernels.
    assert execution.tune(Optim(), cuda, tiny_depth_model(), tiny_prior())["cuda_graphs"] == "off"
    assert execution.tune(Optim(), cuda, tiny_depth_model(), TargetPrior())["fused_kernels"] == "on"
    optim = Optim.model_validate({"performance": {"cuda_graphs": "step"}})
    with pytest.raises(ConfigError, match="cuda_graphs=step needs a prior whose networks do not change"):
        execution.tune(optim, cuda, tiny_depth_model(), Learning())
