"""Fusion in diffusers' networks: norms, sums and gated units in fewer passes over memory, shared prefixes.

The code of diffusers is not changed: the ``forward`` or the attention processor of a module is replaced, and
can be restored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from redepth.ops.geglu import geglu
from redepth.ops.group_norm import fused_group_norm
from redepth.ops.residual import add_with_bias


class Branches:
    """Number of guidance branches in a batch, whose rows are ordered branch by branch."""

    many = 1

    @contextmanager
    def of(self, many: int) -> Iterator[None]:
        """Set the number inside the context."""
        self.many = many
        try:
            yield
        finally:
            self.many = 1


def fuse_norms(network: nn.Module, on: bool = True) -> None:
    """Fuse each GroupNorm with the SiLU that follows it, residual blocks, transformers and gated units.

    Modules, weights and their names stay the same; only ``forward`` is replaced. Values differ by rounding.
    In half precision they are more exact, because nothing is rounded before SiLU.

    Args:
        network: any; SiLU is fused in ``ResnetBlock2D``, the UNets and the VAE's encoder.
        on: False restores the modules' own ``forward``.
    """
    for module in network.modules():
        if getattr(module.__dict__.get("forward"), "func", None) in REPLACEMENTS:
            del module.forward
    if not on:
        return
    from diffusers.models.activations import GEGLU

    parents = Counter(id(child) for module in network.modules() for child in module.children())
    followed = set[int]()
    for norms, activation in _activated(network):
        # A norm or activation that another module shares must keep its own function.
        if type(activation) is nn.SiLU and all(parents[id(m)] == 1 for m in (*norms, activation)):
            followed |= {id(norm) for norm in norms}
            activation.forward = partial(_after_fused, activation)  # type: ignore[method-assign]
    for norm in filter(_fusable, network.modules()):
        norm.forward = partial(_fused, norm, id(norm) in followed)
    for module in network.modules():
        if _plain_transformer(module):
            module.forward = partial(_transformer, module)
        elif type(module) is GEGLU:
            module.forward = partial(_geglu, module)  # type: ignore[method-assign]
        if _plain_block(module) and {id(module.norm1), id(module.norm2)} <= followed:
            module.forward = partial(_residual, module)


def _activated(network: nn.Module) -> Iterator[tuple[list[nn.Module], nn.Module]]:
    """Yield lists of norms with the activation that directly follows each of them."""
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


def _plain_block(module: Any) -> bool:
    """Return whether `_residual` computes the same as a block: the usual one of Stable Diffusion and VAEs."""
    from diffusers.models.resnet import ResnetBlock2D

    if type(module) is not ResnetBlock2D or module.time_embedding_norm != "default":
        return False
    resized = module.upsample is not None or module.downsample is not None
    layers = [x for x in (module.conv1, module.conv2, module.conv_shortcut) if x is not None]
    usual = all(
        _plain_layer(layer) and type(layer) is nn.Conv2d and layer.bias is not None for layer in layers
    )
    exact = module.output_scale_factor == 1 and not module.skip_time_act and module.dropout.p == 0
    return usual and exact and not resized


def _residual(block: Any, x: Tensor, temb: Any = None, *_: Any, **__: Any) -> Tensor:
    r"""Compute a residual block with its additions inside the norms and the final sum.

    .. math:: y = s(x) + c_2(\phi(N_2(c_1(\phi(N_1(x))) + t)))

    with the convolutions c, the shortcut s and the projection t of the time embedding. The second norm adds
    t and the first bias, the final sum adds the last bias. The division by an output scale of 1 is left out.
    """
    h = _without_bias(block.conv1, block.norm1(x))
    addend = block.conv1.bias[None]
    if block.time_emb_proj is not None:
        addend = addend + block.time_emb_proj(F.silu(temb))
    norm = block.norm2
    h = fused_group_norm(h, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=True, addend=addend)
    bias = block.conv2.bias
    if block.conv_shortcut is not None:
        x, bias = _without_bias(block.conv_shortcut, x), bias + block.conv_shortcut.bias
    return add_with_bias(x, _without_bias(block.conv2, h), bias)


def _plain_transformer(module: Any) -> bool:
    """Return whether `_transformer` computes the same as a module: its input is pictures, not patches."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    if type(module) is not Transformer2DModel or not module.is_input_continuous:
        return False
    return all(_plain_layer(layer) and _is_product(layer) for layer in (module.proj_in, module.proj_out))


def _transformer(
    module: Any,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    timestep: Tensor | None = None,
    added_cond_kwargs: Any = None,
    class_labels: Tensor | None = None,
    cross_attention_kwargs: Any = None,
    attention_mask: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    return_dict: bool = True,
) -> Any:
    """Compute a transformer of pictures without copies between layouts.

    In channels-last layout the tokens are a view of the picture, and a 1 x 1 convolution is a linear layer on
    them.
    """
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    if any(mask is not None and mask.dim() == 2 for mask in (attention_mask, encoder_attention_mask)):
        # diffusers converts such masks to biases.
        return type(module).forward(
            module,
            hidden_states,
            encoder_hidden_states,
            timestep,
            added_cond_kwargs,
            class_labels,
            cross_attention_kwargs,
            attention_mask,
            encoder_attention_mask,
            return_dict,
        )
    x = hidden_states
    tokens = _projected(module.proj_in, module.norm(x))
    for block in module.transformer_blocks:
        tokens = block(
            tokens,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            timestep=timestep,
            cross_attention_kwargs=cross_attention_kwargs,
            class_labels=class_labels,
        )
    out = F.linear(tokens, module.proj_out.weight.flatten(1), module.proj_out.bias) + _tokens(x)
    out = out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return Transformer2DModelOutput(sample=out) if return_dict else (out,)


def _plain_layer(layer: nn.Module) -> bool:
    """Return whether a layer computes what its class does: no hook, no replaced ``forward``, zero padding."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return not hooked and getattr(layer, "padding_mode", "zeros") == "zeros"


def _is_product(layer: nn.Module) -> bool:
    """Return whether a layer is a linear map of each token."""
    if type(layer) is nn.Conv2d:
        pointwise = set(layer.kernel_size) == {1} and set(layer.stride) == {1} and not any(layer.padding)
        return pointwise and layer.groups == 1
    return type(layer) is nn.Linear


def _projected(layer: Any, x: Tensor) -> Tensor:
    # `share_prefix` may have replaced the layer's forward, which then has to be called.
    if "forward" in layer.__dict__ and isinstance(layer, nn.Conv2d):
        return _tokens(layer(x))
    tokens = _tokens(x)
    if "forward" in layer.__dict__:
        return layer(tokens)
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


def _tokens(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, H W, C), a view in channels-last layout."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _geglu(module: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return geglu(module.proj(x))


def _without_bias(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _after_fused(activation: nn.SiLU, x: Tensor) -> Tensor:
    # A residual block uses one activation for pictures, whose norm has applied it, and for the time vector.
    return x if x.dim() == 4 else F.silu(x)


REPLACEMENTS = (_fused, _after_fused, _residual, _transformer, _geglu)
"""Functions that replace the ``forward`` of modules."""


def set_attention(network: nn.Module, explicit: bool) -> None:
    """Compute diffusers' attention with explicit products and a softmax, or with torch's fused attention.

    Fused attention on CUDA is fast for heads of up to 256 dimensions. The single head of a VAE has 512, for
    which torch falls back to a kernel that is slower than explicit products of this size.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

    new: Any = AttnProcessor if explicit else AttnProcessor2_0
    old = AttnProcessor2_0 if explicit else AttnProcessor
    for module in network.modules():
        if isinstance(module, Attention) and type(module.processor) is old:
            module.set_processor(new())


def share_prefix(network: nn.Module, branches: Branches) -> None:
    """Compute a UNet's layers before its first cross-attention once for all guidance branches.

    Branches are conditioned on different texts for the same rows, so their values are equal until a layer
    reads the text: in Stable Diffusion's UNet through the first convolution, the first residual block and the
    first self-attention. Other networks stay as they are, and so do UNets whose time embedding holds part of
    the condition.

    Args:
        network: any; `execute` restores it.
        branches: number of branches in the batch.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    unet: Any = network
    unet_class: Any = type(unet)
    if unet_class is not UNet2DConditionModel:
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
    # `repeat` would lose the memory layout, `cat` keeps it.
    return torch.cat([forward(x[:rows], *args, **options)] * many)
