"""What diffusers' networks do in several passes over memory, done in fewer: norms, sums, attention, guidance.

Nothing of diffusers is edited: a module's ``forward`` or its attention processor is replaced, and put back.
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


def fuse_norms(network: nn.Module, on: bool = True) -> None:
    """Let each GroupNorm, and the SiLU that follows it in diffusers' networks, be one operation, or no more.

    Weights and their names stay as they are: what a module does is replaced, not the module. Its values
    differ by rounding, in half precision for the better: nothing is rounded before SiLU.

    Args:
        network: any; SiLU is fused in ``ResnetBlock2D``, the UNets and the VAE's encoder.
        on: False takes it back.
    """
    for module in network.modules():
        if getattr(module.__dict__.get("forward"), "func", None) in OWN:
            del module.forward
    if not on:
        return
    from diffusers.models.activations import GEGLU

    held = Counter(id(child) for module in network.modules() for child in module.children())
    followed = set[int]()
    for norms, activation in _activated(network):
        # Who else has a part in them might need what they do by themselves.
        if type(activation) is nn.SiLU and all(held[id(m)] == 1 for m in (*norms, activation)):
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


def _plain_block(module: Any) -> bool:
    """Return whether `_residual` says what a block does: the usual one, as in Stable Diffusion and VAEs."""
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
    r"""Do what a residual block does, its additions inside passes that are made anyway.

    .. math:: y = s(x) + c_2(\phi(N_2(c_1(\phi(N_1(x))) + t)))

    with the convolutions c, the shortcut s, and t what the block makes of the time. Biases and t are added by
    the normalisation, and the last bias by the final sum; its division by 1 is left out.
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
    """Return whether `_transformer` says what a module does: pictures in, tokens between, pictures out."""
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
    """Do what a transformer of pictures does; with the channels innermost, its tokens are a view of them.

    A 1 x 1 convolution of a picture is a product of its tokens, whose result needs no other layout.
    """
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    if any(mask is not None and mask.dim() == 2 for mask in (attention_mask, encoder_attention_mask)):
        # diffusers makes biases of such masks.
        given = (encoder_hidden_states, timestep, added_cond_kwargs, class_labels, cross_attention_kwargs)
        return type(module).forward(
            module, hidden_states, *given, attention_mask, encoder_attention_mask, return_dict
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
    """Return whether a layer does what its class says: no hook, and nobody else's ``forward``."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return not hooked and getattr(layer, "padding_mode", "zeros") == "zeros"


def _is_product(layer: nn.Module) -> bool:
    """Return whether a layer is one product for each token."""
    if type(layer) is nn.Conv2d:
        pointwise = set(layer.kernel_size) == {1} and set(layer.stride) == {1} and not any(layer.padding)
        return pointwise and layer.groups == 1
    return type(layer) is nn.Linear


def _projected(layer: Any, x: Tensor) -> Tensor:
    # What `share_prefix` has replaced is called for what it does.
    if "forward" in layer.__dict__ and isinstance(layer, nn.Conv2d):
        return _tokens(layer(x))
    tokens = _tokens(x)
    if "forward" in layer.__dict__:
        return layer(tokens)
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


def _tokens(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, H W, C): a view where the channels are innermost."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _geglu(module: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return geglu(module.proj(x))


def _without_bias(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _after_fused(activation: nn.SiLU, x: Tensor) -> Tensor:
    # A residual block has one activation for its norms' pictures and for the vector of the time.
    return x if x.dim() == 4 else F.silu(x)


OWN = (_fused, _after_fused, _residual, _transformer, _geglu)
"""What stands in place of modules' own ``forward``."""


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
