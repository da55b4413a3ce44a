"""Execution of networks: memory layout, fusion, torch.compile, CUDA graphs, weights per row."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from redepth.contracts import Execution
from redepth.ops import members
from redepth.runtime.device import captured, current
from redepth.runtime.fusion import Branches, fuse_norms, share_prefix


def execute(
    network: nn.Module, how: Execution, *, graph: bool = False, branches: Branches | None = None
) -> None:
    """Set how a network is executed; replaces an earlier setting.

    Args:
        network: on its device.
        how: its layout, fused normalisation, compilation, graphs and shared prefix are used.
        graph: whether the network may become a CUDA graph; only without gradient.
        branches: number of guidance branches in a UNet's batch, for `share_prefix`.
    """
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    nn.Module.to(network, memory_format=layout)  # type: ignore[call-overload]
    for module in network.modules():
        # A `forward` of the instance hides the class's method; removing it restores the method.
        module.__dict__.pop("forward", None)
        if isinstance(module, nn.GroupNorm) and _slow_in_half(module):
            module.forward = partial(_normalised_in_float32, module)  # type: ignore[method-assign]
    if how.fused_kernels:
        fuse_norms(network)
    if how.shared_prefix and branches is not None:
        share_prefix(network, branches)
    call: Callable[..., Any] = network.forward
    if how.compile:
        call = torch.compile(call, dynamic=False)
    if graph and how.cuda_graphs:
        call = Graphed(call, branches)
    if how.compile or isinstance(call, Graphed):
        network.forward = call


def _slow_in_half(norm: nn.GroupNorm) -> bool:
    """Return whether a norm is in half precision on a CPU, where torch is faster in float32."""
    return norm.affine and norm.weight.device.type == "cpu" and norm.weight.dtype != torch.float32


def _normalised_in_float32(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.group_norm(x.float(), norm.num_groups, weight, bias, norm.eps).to(x.dtype)


def take_rows(network: nn.Module) -> bool:
    """Make a network accept weights with a row per row of its input; return whether all its layers can.

    Weights without rows keep working. `execute` undoes it.
    """
    layers = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    if not all(_takes_rows(layer) for layer in layers):
        return False
    for layer in layers:
        layer.forward = partial(_BY_ROWS[type(layer)], layer)
    return True


def _takes_rows(layer: nn.Module) -> bool:
    if isinstance(layer, nn.ConvTranspose2d) and (
        layer.kernel_size != layer.stride
        or any(layer.padding)
        or any(layer.output_padding)
        or set(layer.dilation) != {1}
        or layer.groups != 1
    ):
        return False
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return False
    return type(layer) in _BY_ROWS


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if layer.weight.dim() == 2:
        return nn.Linear.forward(layer, x)
    return members.linear(x, layer.weight, layer.bias)


def _conv2d(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if layer.weight.dim() == 4:
        return nn.Conv2d.forward(layer, x)
    padding = layer.padding
    assert not isinstance(padding, str)
    return members.conv2d(x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _conv_transpose2d(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    if layer.weight.dim() == 4:
        return nn.ConvTranspose2d.forward(layer, x)
    return members.conv_transpose2d(x, layer.weight, layer.bias)


_BY_ROWS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.ConvTranspose2d: _conv_transpose2d,
}
"""Class of a layer -> its forward pass with weights that may have rows."""


class Graphed:
    """Replays a call without gradient as a CUDA graph, with one graph for each kind of arguments.

    A graph has fixed input and output tensors: arguments are copied in, results are copied out. The kind is
    the shapes, strides, dtypes and devices of the tensors, and all other arguments. A call with gradient, or
    with a tensor that is not on a GPU, runs without a graph.

    Args:
        call: launches the same kernels for arguments of the same kind, and reads no value from the device.
        branches: their number is part of the kind.
    """

    def __init__(self, call: Callable[..., Any], branches: Branches | None = None) -> None:
        self._call = call
        self._branches = branches or Branches()
        self._graphs: dict[Hashable, tuple[list[Tensor], Any, Callable[[], None]]] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return the result of the call."""
        leaves, form = tree_flatten((args, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if torch.is_grad_enabled() or not tensors or not all(self.graphable(t) for t in tensors):
            return self._call(*args, **options)
        kind = (self._branches.many, form, *(_kind(leaf) for leaf in leaves))
        if kind not in self._graphs:
            self._graphs[kind] = self._graph(leaves, form)
        inputs, outputs, replay = self._graphs[kind]
        for graph_input, tensor in zip(inputs, tensors, strict=True):
            graph_input.copy_(tensor)
        replay()
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, outputs)

    def _graph(self, leaves: list[Any], form: TreeSpec) -> tuple[list[Tensor], Any, Callable[[], None]]:
        """Capture the call with copies of its tensors; return these inputs, the outputs and the replay."""
        copies = [
            leaf.clone(memory_format=torch.preserve_format) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        args, options = tree_unflatten(copies, form)
        inputs = [copy for copy in copies if isinstance(copy, Tensor)]
        with current(inputs[0].device):
            outputs, replay = self.capture(lambda: self._call(*args, **options))
        return inputs, outputs, replay

    def graphable(self, tensor: Tensor) -> bool:
        """Return whether a graph can read the argument: it is on a GPU."""
        return tensor.is_cuda

    def forget(self) -> None:
        """Drop all graphs and their memory."""
        self._graphs.clear()

    def capture(self, call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Capture the call on the current GPU; return its outputs and a function that replays it."""
        # In first calls libraries choose algorithms and allocate workspaces; these must not be captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
            graph = captured(call)
        torch.cuda.current_stream().wait_stream(stream)
        return graph


def release_graphs(network: nn.Module) -> None:
    """Drop the CUDA graphs of a network, if `execute` made it one."""
    if isinstance(network.forward, Graphed):
        network.forward.forget()


def _kind(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, Hashable) else repr(leaf)
