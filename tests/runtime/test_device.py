"""Calls to torch.cuda, tested with patched functions of torch."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from redepth.config import Optim
from redepth.errors import ConfigError
from redepth.optim import execution
from redepth.optim.limits import CudaMeter
from redepth.priors.prompts import Captioner
from redepth.runtime import device
from redepth.runtime.networks import Graphed
from tests.support.helpers import TargetPrior, make_refiner, tiny_depth_model
from tests.support.pretend_device import GPU, PretendedGPU

CUDA = torch.device("cuda", 0)


@pytest.fixture
def second_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_devices() -> None:
    assert device.choose_device("cpu") == torch.device("cpu")
    assert device.choose_device("auto").type in {"cpu", "cuda", "mps"}
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device 'cuda' is not available here"):
            device.choose_device("cuda")


@pytest.mark.usefixtures("second_gpu")
def test_a_missing_gpu_is_an_error_with_the_available_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.choose_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match=r"'cuda:2' is not available here.*from 0 \(cuda:0, cuda:1\)"):
        device.choose_device("cuda:2")
    for wrong in ("cuda:x", "cuda:-1"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is not a device"):
            device.choose_device(wrong)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_has_its_index(name: str, second_gpu: None) -> None:
    assert device.choose_device(name) == torch.device("cuda", 1)
    assert device.indexed("cuda") == torch.device("cuda", 1)
    assert device.indexed("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("second_gpu")
def test_a_memory_limit_is_set_with_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises for a device without index."""
    limits: list[tuple[float, int]] = []

    def limit(fraction: float, on: torch.device) -> None:
        assert on.index is not None
        limits.append((fraction, on.index))

    @contextmanager
    def on_device(_: Any) -> Any:
        yield

    whole = SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: whole)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", on_device)
    with CudaMeter(torch.device("cuda"), 8 * 10**9).limited():
        pass
    assert limits == [(0.1, 1), (1.0, 1)]


def test_numerics_are_set_and_restored() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    for tf32, search in ((True, False), (False, True)):
        with device.numerics(CUDA, tf32=tf32, cudnn_benchmark=search):
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (tf32, tf32, search)
        with device.numerics(torch.device("cpu"), tf32=not before[0], cudnn_benchmark=not before[2]):
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before
    with pytest.raises(KeyError), device.numerics(CUDA, tf32=not before[0], cudnn_benchmark=True):
        raise KeyError
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older interface only"
)
def test_numerics_work_with_the_newer_interface_of_torch() -> None:
    """Once the newer interface was used, torch raises where the older one is read."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    try:
        for used in ("tf32", "ieee"):
            matmul.fp32_precision = conv.fp32_precision = used
            for tf32, expected in ((True, "tf32"), (False, "ieee")):
                with device.numerics(CUDA, tf32=tf32, cudnn_benchmark=False):
                    assert (matmul.fp32_precision, conv.fp32_precision) == (expected, expected)
                assert (matmul.fp32_precision, conv.fp32_precision) == (used, used)
    finally:
        matmul.fp32_precision, conv.fp32_precision = before
    assert torch.backends.cudnn.allow_tf32 in (True, False)


def test_calls_take_turns_in_side_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side stream waits for the current stream, which waits for each of them at the end."""
    log: list[str] = []
    streams_in_use = ["outside"]

    class Stream:
        def __init__(self, *_: Any) -> None:
            self.name = f"side {sum(line.startswith('made') for line in log)}"
            log.append(f"made {self.name}")

        def wait_stream(self, other: Any) -> None:
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def inside(stream: Any) -> Any:
        streams_in_use.append(stream.name)
        yield
        streams_in_use.pop()

    outside = SimpleNamespace(
        name="outside", wait_stream=lambda other: log.append(f"outside waits for {other.name}")
    )
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: outside)
    streams = device.SideStreams(CUDA, 2)
    assert streams.run([lambda: streams_in_use[-1]] * 3) == ["side 0", "side 1", "side 0"]
    waits = [f"side {i} waits for outside" for i in (0, 1)] + [f"outside waits for side {i}" for i in (0, 1)]
    assert log[2:] == waits
    assert device.SideStreams(torch.device("cpu"), 4).run([lambda: 1, lambda: 2]) == [1, 2]


def test_which_errors_mean_out_of_memory() -> None:
    assert device.is_out_of_memory(torch.OutOfMemoryError())
    assert device.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"))
    assert not device.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


# --- decisions for a device -----------------------------------------------------------------------


def test_a_refiner_has_its_decisions_about_execution() -> None:
    decisions = make_refiner(performance={"compile": "off", "checkpointing": True}).execution
    assert decisions["checkpointing"] is True
    # On a CPU, settings for GPUs alone are left out.
    assert "tf32" not in decisions
    assert execution.tune(Optim(), CUDA, tiny_depth_model(), TargetPrior())["tf32"] is True


# --- a GPU that is not the current one ------------------------------------------------------------


@pytest.fixture
def currents(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The stack of devices that code makes the current one; nothing is changed in torch."""
    stack: list[torch.device] = []

    @contextmanager
    def made_current(which: torch.device) -> Any:
        stack.append(which)
        yield
        stack.pop()

    monkeypatch.setattr(torch.cuda, "device", made_current)
    return stack


def test_a_graph_is_captured_on_the_gpu_of_its_tensors(currents: list[torch.device]) -> None:
    """Streams and memory pools belong to the current GPU."""
    on: list[list[torch.device]] = []

    class There(Graphed):
        def graphable(self, tensor: torch.Tensor) -> bool:
            return True

        def capture(self, call: Any) -> tuple[Any, Any]:
            on.append([*currents])
            return call(), lambda: None

    recording = torch.cuda.device
    with PretendedGPU(), mock.patch.object(torch.cuda, "device", recording), torch.no_grad():
        There(torch.clone)(torch.ones(2, device=GPU))
    with torch.no_grad():
        There(torch.clone)(torch.ones(2))
    assert on == [[GPU], []]


def test_a_captioner_frees_the_memory_of_its_gpu(
    currents: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[list[torch.device]] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append([*currents]))
    captioner = Captioner("blip", torch.device("cuda", 1))
    captioner._loaded = ("model", "processor")
    captioner._free()
    assert freed == [[torch.device("cuda", 1)]]


def test_a_run_synchronizes_and_frees_its_gpu(
    currents: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append([*currents]))
    second = torch.device("cuda", 1)
    device.synchronize(second)
    refiner = make_refiner(TargetPrior())
    refiner.device = second
    refiner.release_memory()
    assert seen == [second, [second]]
