"""How frozen networks are executed: layout, fused normalisation, attention, torch.compile, CUDA graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from redepth.contracts import Execution
from redepth.device import captured, current
from redepth.ops.group_norm import fused_group_norm


class Branches:
    """Says of how many branches of guidance the rows of a batch are, branch by branch."""

    many = 1

    @contextmanager
    def of(self, many: int) -> Iterator[None]:
        """Say so for a while."""
        self.many = many
        try:
            yield
        finally:
            self.many = 1


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
    if how.fused_norm:
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


def fuse_norms(network: nn.Module, on: bool = True) -> None:
    """Let each GroupNorm, and the SiLU that follows it in diffusers' networks, be one operation, or no more.

    Weights and their names stay as they are: what a module does is replaced, not the module. Its values
    differ by rounding, in half precision for the better: nothing is rounded before SiLU.

    Args:
        network: any; SiLU is fused in ``ResnetBlock2D``, the UNets and the VAE's encoder.
        on: False takes it back.
    """
    for module in network.modules():
        if getattr(module.__dict__.get("forward"), "func", None) in (_fused, _after_fused):
            del module.forward
    if not on:
        return
    held = Counter(id(child) for module in network.modules() for child in module.children())
    followed = set[int]()
    for norms, activation in _activated(network):
        # Who else has a part in them might need what they do by themselves.
        if type(activation) is nn.SiLU and all(held[id(m)] == 1 for m in (*norms, activation)):
            followed |= {id(norm) for norm in norms}
            activation.forward = partial(_after_fused, activation)  # type: ignore[method-assign]
    for norm in filter(_fusable, network.modules()):
        norm.forward = partial(_fused, norm, id(norm) in followed)


def _activated(network: nn.Module) -> Iterator[tuple[list[nn.Module], nn.Module]]:
    """Yield norms with the activation that follows each of them at once."""
    from diffusers import UNet2DConditionModel, UNet2DModel
    from diffusers.models.autoencoders.vae import Encoder
    from diffusers.models.resnet import ResnetBlock2D

    for module in network.modules():
        owner: Any = module
        norms: list[nn.Module]
        if type(owner) is ResnetBlock2D and owner.time_embedding_norm == "default":
            norms, activation = [owner.norm1, owner.norm2], owner.nonlinearity
        elif type(owner) in (UNet2DConditionModel, UNet2DModel, Encoder):
            norms, activation = [owner.conv_norm_out], owner.conv_act
        else:
            continue
        if all(_fusable(norm) for norm in norms):
            yield norms, activation


def _fusable(module: nn.Module | None) -> bool:
    return type(module) is nn.GroupNorm and module.affine


def _fused(norm: Any, silu: bool, x: Tensor) -> Tensor:
    return fused_group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=silu)


def _after_fused(activation: nn.SiLU, x: Tensor) -> Tensor:
    # A residual block has one activation for its norms' pictures and for the vector of the time.
    return x if x.dim() == 4 else F.silu(x)


def set_attention(network: nn.Module, explicit: bool) -> None:
    """Let diffusers' plain attention be explicit products and a softmax, or torch's fused attention.

    Fused attention on CUDA is fast up to heads of 256 dimensions. The one head of a VAE has 512, for which
    torch falls back to a kernel that is slower than the products, which are as large as a GPU likes them.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

    wanted: Any = AttnProcessor if explicit else AttnProcessor2_0
    other = AttnProcessor2_0 if explicit else AttnProcessor
    for module in network.modules():
        if isinstance(module, Attention) and type(module.processor) is other:
            module.set_processor(wanted())


def share_prefix(network: nn.Module, branches: Branches) -> None:
    """Let a UNet compute what comes before its first cross-attention for one branch, in place of all.

    Branches are told different texts about the same rows, so until a layer reads the text their values are
    the same: in Stable Diffusion's UNet the first convolution, the first residual block and the first
    self-attention. Does nothing to other networks, nor where the time embedding holds what a branch is told.

    Args:
        network: any; `execute` takes it back.
        branches: says of how many branches the rows are.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    unet: Any = network
    kind: Any = type(unet)
    if kind is not UNet2DConditionModel:
        return
    if unet.config.addition_embed_type is not None or unet.config.class_embed_type is not None:
        return
    first = unet.down_blocks[0]
    shared = [unet.conv_in, first.resnets[0]]
    transformer: Any = first.attentions[0] if getattr(first, "attentions", None) else None
    if type(transformer) is Transformer2DModel:
        block = transformer.transformer_blocks[0]
        if block.norm_type == "layer_norm" and not block.only_cross_attention:
            shared += [transformer.proj_in, block.attn1]
    for module in shared:
        module.forward = partial(_for_one_branch, module.forward, branches)


def _for_one_branch(
    forward: Callable[..., Tensor], branches: Branches, x: Tensor, *args: Any, **options: Any
) -> Tensor:
    many = branches.many
    if many == 1:
        return forward(x, *args, **options)
    rows = len(x) // many
    args, options = tree_map(lambda leaf: leaf[:rows] if isinstance(leaf, Tensor) else leaf, (args, options))
    # Joined rather than repeated, which would lose the layout.
    return torch.cat([forward(x[:rows], *args, **options)] * many)


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
