"""How frozen networks are executed: memory layout, torch.compile and CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from redepth.contracts import Execution
from redepth.device import current


def execute(network: nn.Module, how: Execution, *, graph: bool = False) -> None:
    """Execute a network in this way from now on, in place of any before.

    Args:
        network: on its device.
        how: of it, layout, compilation and graphs.
        graph: whether the network may become a CUDA graph: only one that is run without gradient.
    """
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    nn.Module.to(network, memory_format=layout)  # type: ignore[call-overload]
    for module in network.modules():
        # What is set here stands before the class's own method, which is what is left when it goes.
        module.__dict__.pop("forward", None)
        if isinstance(module, nn.GroupNorm) and _slow_in_half(module):
            module.forward = partial(_normalised_in_float32, module)  # type: ignore[method-assign]
    call: Callable[..., Any] = network.forward
    if how.compile:
        call = torch.compile(call, dynamic=False)
    if graph and how.cuda_graphs:
        call = Graphed(call)
    if how.compile or isinstance(call, Graphed):
        network.forward = call


def _slow_in_half(norm: nn.GroupNorm) -> bool:
    """On a CPU, torch normalises groups in half precision slower than in float32."""
    return norm.affine and norm.weight.device.type == "cpu" and norm.weight.dtype != torch.float32


def _normalised_in_float32(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.group_norm(x.float(), norm.num_groups, weight, bias, norm.eps).to(x.dtype)


class Graphed:
    """Replay a call without gradient as one CUDA graph for each kind of its arguments.

    Arguments are copied to where the graph reads them, its results from where it writes them. Shapes,
    strides, dtypes and all arguments that are no tensors make the kind; a call with gradient, or with a
    tensor that is on no GPU, is made as it is.

    Args:
        call: launches the same kernels for arguments of the same kind, and looks at no value of theirs.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._graphs: dict[Hashable, tuple[list[Tensor], Any, Callable[[], None]]] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return what the call returns."""
        leaves, form = tree_flatten((args, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if torch.is_grad_enabled() or not tensors or not all(self.graphable(t) for t in tensors):
            return self._call(*args, **options)
        kind = (form, *(_kind(leaf) for leaf in leaves))
        if kind not in self._graphs:
            inputs = [t.clone(memory_format=torch.preserve_format) for t in tensors]
            given = iter(inputs)
            own = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            own_args, own_options = tree_unflatten(own, form)
            with current(tensors[0].device):
                captured = self.capture(lambda: self._call(*own_args, **own_options))
            self._graphs[kind] = (inputs, *captured)
        inputs, outputs, replay = self._graphs[kind]
        for own_input, tensor in zip(inputs, tensors, strict=True):
            own_input.copy_(tensor)
        replay()
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, outputs)

    def graphable(self, tensor: Tensor) -> bool:
        """Return whether an argument is where graphs can read it."""
        return tensor.is_cuda

    def forget(self) -> None:
        """Drop all graphs, and with them the memory that each has for itself."""
        self._graphs.clear()

    def capture(self, call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Return the tensors that a graph of the call on the current GPU writes, and what runs it."""
        # Libraries choose algorithms and take workspaces in first calls, which a graph must not hold.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Unlike torch.cuda.graph, this leaves the stream whatever happens, and lets the call's own error out:
        # ending a capture that a call has broken raises another one, which would hide it.
        with torch.cuda.stream(stream):
            graph.capture_begin()
            try:
                outputs = call()
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return outputs, graph.replay


def release_graphs(network: nn.Module) -> None:
    """Drop the CUDA graphs of a network that `execute` has made one."""
    if isinstance(network.forward, Graphed):
        network.forward.forget()


def _kind(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, Hashable) else repr(leaf)
