"""Devices: which one is meant, waiting for it, its numerics and graphs, and how it runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

from redepth.errors import ConfigError

T = TypeVar("T")

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "unable to find an engine to execute this computation",
    "unable to find a valid cudnn algorithm",
)
"""What a device without memory is known to say: torch, cuBLAS and cuDNN (their status, cuDNN's searches)."""


def choose_device(device: str = "auto") -> torch.device:
    """Return the device; ``auto`` takes CUDA, then Apple's MPS, then the CPU. A GPU has its index.

    Raises:
        ConfigError: if the device asked for is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in available.items() if there)
    kind = device.partition(":")[0]
    if not available.get(kind, False):
        there = ", ".join(name for name, ok in available.items() if ok)
        raise ConfigError(f"device '{device}' is not available here (available: auto, {there})")
    found = _parsed(device)
    if kind == "cuda" and ":" in device and found.index >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise ConfigError(f"device '{device}' is not available here: GPUs are counted from 0 ({there})")
    return indexed(found)


def _parsed(device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device '{device}' is none (such as: auto, cpu, cuda, cuda:1, mps)") from None


def indexed(device: torch.device | str) -> torch.device:
    """Return a device with its index where torch asks for one: ``cuda`` is the current GPU."""
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device)


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one: streams, graphs and freed memory are those of the current GPU."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class SideStreams:
    """Streams of a GPU in which calls run beside each other, as small kernels leave most of it idle.

    What calls return is ready for the current stream; on the way back autograd uses the same streams. On
    other devices, and for one stream, calls run one after the other.

    Args:
        device: where the calls compute.
        count: of streams.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        several = device.type == "cuda" and count > 1
        self._device = device
        self._streams = [torch.cuda.Stream(device) for _ in range(count)] if several else []

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Return what each call returns, in their order."""
        if not self._streams:
            return [call() for call in calls]
        outside = torch.cuda.current_stream(self._device)
        for stream in self._streams:
            stream.wait_stream(outside)
        found = []
        for index, call in enumerate(calls):
            with torch.cuda.stream(self._streams[index % len(self._streams)]):
                found.append(call())
        for stream in self._streams:
            outside.wait_stream(stream)
        return found


@contextmanager
def numerics(device: torch.device, *, tf32: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """Set what torch keeps for the whole process, and put it back: float32 on tensor cores, cuDNN's search.

    Nothing changes for a device other than CUDA.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    search = cudnn.benchmark
    cudnn.benchmark = cudnn_benchmark
    try:
        with _tf32(tf32):
            yield
    finally:
        cudnn.benchmark = search


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """Set it by the interface that the process uses: torch refuses to read the older one after the newer."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    scopes: list[Any] = [matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)]
    newer = [scope for scope in scopes if hasattr(scope, "fp32_precision")]
    before = [scope.fp32_precision for scope in newer]
    try:
        older = cudnn.allow_tf32, matmul.allow_tf32
    except RuntimeError:
        older = None
    if older is None:
        for scope in newer:
            scope.fp32_precision = "tf32" if on else "ieee"
    else:
        cudnn.allow_tf32 = matmul.allow_tf32 = on
    try:
        yield
    finally:
        if older is not None:
            cudnn.allow_tf32, matmul.allow_tf32 = older
        for scope, precision in zip(newer, before, strict=True):
            scope.fp32_precision = precision


def captured(call: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Capture a call in the current stream, not the default one; return its results and what replays it.

    Nothing is computed yet. Unlike ``torch.cuda.graph``, the call's own error comes out: ending a capture
    that a call has broken raises another one, which would hide it.
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin()
    try:
        outputs = call()
    except BaseException:
        with suppress(RuntimeError):
            graph.capture_end()
        raise
    graph.capture_end()
    return outputs, graph.replay


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device has no memory left; torch has a class for some of them."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(said in text for said in OUT_OF_MEMORY)
