"""Devices: choice, synchronisation, streams, numerics, graph capture, and out-of-memory errors."""

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
"""Parts of the messages with which torch, cuBLAS and cuDNN report that memory is exhausted."""


def choose_device(device: str = "auto") -> torch.device:
    """Return the device with its index; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: if the device is not available, or its name is not valid.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, present in available.items() if present)
    kind = device.partition(":")[0]
    if not available.get(kind, False):
        names = ", ".join(name for name, present in available.items() if present)
        raise ConfigError(f"device '{device}' is not available here (available: auto, {names})")
    parsed = _parsed(device)
    if kind == "cuda" and ":" in device and parsed.index >= torch.cuda.device_count():
        gpus = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise ConfigError(f"device '{device}' is not available here: GPUs are counted from 0 ({gpus})")
    return indexed(parsed)


def _parsed(device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        raise ConfigError(f"'{device}' is not a device (valid: auto, cpu, cuda, cuda:1, mps)") from None


def indexed(device: torch.device | str) -> torch.device:
    """Return a device with its index, which torch sometimes needs: ``cuda`` is the current GPU."""
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device)


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one, to which streams, graphs and freed memory belong. No effect on others."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work. No effect on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_cached(device: torch.device) -> None:
    """Give memory back to a GPU that torch keeps and does not use. No effect on other devices."""
    if device.type == "cuda":
        with current(device):
            torch.cuda.empty_cache()


class SideStreams:
    """CUDA streams in which several calls run at once, because small kernels leave most of a GPU idle.

    The current stream waits for the results. Autograd runs the backward pass in the same streams. On other
    devices, or with one stream, calls run one after the other.

    Args:
        device: where the calls compute.
        count: number of streams.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        several = device.type == "cuda" and count > 1
        self._device = device
        self._streams = [torch.cuda.Stream(device) for _ in range(count)] if several else []

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Return the result of each call, in their order."""
        if not self._streams:
            return [call() for call in calls]
        outside = torch.cuda.current_stream(self._device)
        for stream in self._streams:
            stream.wait_stream(outside)
        results = []
        for index, call in enumerate(calls):
            with torch.cuda.stream(self._streams[index % len(self._streams)]):
                results.append(call())
        for stream in self._streams:
            outside.wait_stream(stream)
        return results


@contextmanager
def numerics(device: torch.device, *, tf32: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """Set torch's process-wide numerics inside the context, and restore them afterwards.

    Args:
        device: nothing changes for a device other than CUDA.
        tf32: whether float32 products and convolutions round their factors to TF32.
        cudnn_benchmark: whether cuDNN times its algorithms for each new shape.
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
    """Set TF32 through the interface in use: after the newer one was set, torch refuses to read the older."""
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
    """Capture a call as a CUDA graph; return its outputs and a function that replays it.

    The current stream must not be the default one. Nothing is computed yet. Unlike ``torch.cuda.graph``,
    this raises the call's own error: ending a broken capture raises another error, which would hide it.
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
    """Return whether an error means that memory is exhausted; only some of them have torch's own class."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(part in text for part in OUT_OF_MEMORY)
