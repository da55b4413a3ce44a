"""How networks are executed: layout, fusion, torch.compile, CUDA graphs, several at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from redepth.contracts import Execution
from redepth.ops import members
from redepth.runtime.device import captured, current
from redepth.runtime.fusion import Branches, fuse_norms, share_prefix


def execute(
    network: nn.Module, how: Execution, *, graph: bool = False, branches: Branches | None = None
) -> None:
    """Execute a network in this way from now on, in place of any before.

    Args:
        network: on its device.
        how: of it, layout, fused normalisation, compilation and graphs.
        graph: whether the network may become a CUDA graph: only one that is run without gradient.
        branches: tells a UNet of what its rows are, for `share_prefix`.
    """
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    nn.Module.to(network, memory_format=layout)  # type: ignore[call-overload]
    for module in network.modules():
        # What is set here stands before the class's own method, which is what is left when it goes.
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
    """On a CPU, torch normalises groups in half precision slower than in float32."""
    return norm.affine and norm.weight.device.type == "cpu" and norm.weight.dtype != torch.float32


def _normalised_in_float32(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.group_norm(x.float(), norm.num_groups, weight, bias, norm.eps).to(x.dtype)


def take_rows(network: nn.Module) -> bool:
    """Let a network's weights have the rows of its input in front; return whether all of its layers can.

    Weights as they were keep working. `execute` undoes it.
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
"""A kind of layer -> what it does under weights of either kind."""


class Graphed:
    """Replay a call without gradient as one CUDA graph for each kind of its arguments.

    Arguments are copied to where the graph reads them, its results from where it writes them. Shapes,
    strides, dtypes and all arguments that are no tensors make the kind; a call with gradient, or with a
    tensor that is on no GPU, is made as it is.

    Args:
        call: launches the same kernels for arguments of the same kind, and looks at no value of theirs.
        branches: what it launches may depend on how many they are.
    """

    def __init__(self, call: Callable[..., Any], branches: Branches | None = None) -> None:
        self._call = call
        self._branches = branches or Branches()
        self._graphs: dict[Hashable, tuple[list[Tensor], Any, Callable[[], None]]] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return what the call returns."""
        leaves, form = tree_flatten((args, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if torch.is_grad_enabled() or not tensors or not all(self.graphable(t) for t in tensors):
            return self._call(*args, **options)
        kind = (self._branches.many, form, *(_kind(leaf) for leaf in leaves))
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
            found = captured(call)
        torch.cuda.current_stream().wait_stream(stream)
        return found


def release_graphs(network: nn.Module) -> None:
    """Drop the CUDA graphs of a network that `execute` has made one."""
    if isinstance(network.forward, Graphed):
        network.forward.forget()


def _kind(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, Hashable) else repr(leaf)
