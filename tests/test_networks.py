from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import Execution
from redepth.networks import Graphed, execute, release_graphs
from tests.helpers import seeded


class Replayed(Graphed):
    """A graph on the CPU: what is replayed reads its own inputs and writes its own outputs, as on a GPU."""

    def graphable(self, tensor: Tensor) -> bool:
        return True

    def capture(self, call: Any) -> tuple[Any, Any]:
        outputs = call()
        return outputs, lambda: outputs["sum"].copy_(call()["sum"])


def test_a_graph_is_made_for_each_kind_of_arguments_and_hands_out_copies() -> None:
    made: list[tuple[int, ...]] = []

    def add(a: Tensor, b: Tensor, *, factor: float = 1.0) -> dict[str, Any]:
        made.append(tuple(a.shape))
        return {"sum": a + factor * b, "name": "add"}

    call = Replayed(add)
    two = torch.ones(2)
    with torch.no_grad():
        first = call(two, two)
        second = call(two, 3 * two)
        assert first["sum"].tolist() == [2.0, 2.0]
        assert second == {"sum": second["sum"], "name": "add"}
        assert second["sum"].tolist() == [4.0, 4.0]
        assert call(torch.ones(3), torch.ones(3), factor=2.0)["sum"].tolist() == [3.0] * 3
        assert call(two, two, factor=2.0)["sum"].tolist() == [3.0, 3.0]
        assert len(call._graphs) == 3
    # What has a way back is no graph.
    leaf = two.clone().requires_grad_()
    call(leaf, two)["sum"].sum().backward()
    assert torch.equal(leaf.grad, two)
    assert len(call._graphs) == 3
    assert not Graphed(add).graphable(two)


def test_graphs_that_are_released_are_captured_anew() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    execute(network, Execution(cuda_graphs=True), graph=True)
    graphed = network.forward = Replayed(lambda x: {"sum": x + 1})
    with torch.no_grad():
        network(torch.ones(2))
        assert len(graphed._graphs) == 1
        release_graphs(network)
        assert not graphed._graphs
        assert network(torch.ones(2))["sum"].tolist() == [2.0, 2.0]
    release_graphs(nn.Linear(2, 2))  # has none


class FakeCuda:
    """As much of torch.cuda as a capture uses; to end one that has failed raises an error of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = "main"
        self.ended = 0
        stream = SimpleNamespace(wait_stream=lambda _: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda *_, **__: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
        monkeypatch.setattr(torch.cuda, "stream", self.on_stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    @contextmanager
    def on_stream(self, _: Any) -> Iterator[None]:
        self.current = "side"
        try:
            yield
        finally:
            self.current = "main"

    def capture_begin(self) -> None: ...

    def capture_end(self) -> None:
        self.ended += 1
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_memory_that_runs_out_in_a_capture_is_told_and_the_stream_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, calls = FakeCuda(monkeypatch), iter(range(4))

    def call() -> None:
        if next(calls) == 3:  # three come before the capture
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        Graphed(call).capture(call)
    assert cuda.ended == 1
    assert cuda.current == "main"


def test_group_normalisation_in_half_precision_is_computed_in_float32_on_a_cpu() -> None:
    x = torch.randn(2, 8, 5, 6, generator=seeded()).bfloat16()
    for norm in (
        nn.GroupNorm(2, 8).bfloat16(),
        nn.GroupNorm(2, 8),
        nn.GroupNorm(2, 8, affine=False).bfloat16(),
    ):
        network = nn.Sequential(norm)
        execute(network, Execution())
        own = "forward" in norm.__dict__
        assert own == (norm.affine and norm.weight.dtype == torch.bfloat16)
        if own:
            exact = F.group_norm(x.float(), 2, eps=norm.eps)
            assert network(x).dtype == torch.bfloat16
            assert torch.equal(network(x), exact.bfloat16())
            # Set up again in float32, it is the class's own.
            execute(network.float(), Execution())
            assert "forward" not in norm.__dict__


def test_a_later_way_of_execution_replaces_the_former() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    plain = network.forward
    execute(network, Execution(cuda_graphs=True), graph=True)
    assert isinstance(network.forward, Graphed)
    assert not network[0].weight.is_contiguous()
    execute(network, Execution(channels_last=False, cuda_graphs=True))
    assert network.forward == plain
    assert network[0].weight.is_contiguous()
