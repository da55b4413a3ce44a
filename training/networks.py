"""The networks of the relief pair and of those it is compared with."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from redepth.checkpoints import Source
from redepth.priors.pixel_unet import Layout, PixelUNet

SIZE, PATCH = 96, 4

Kind = Literal["relighting", "unconditional", "narrow"]

UNET: dict[str, Any] = {
    "sample_size": SIZE // PATCH,
    "out_channels": 3 * PATCH**2,
    "block_out_channels": (64, 112, 160),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "attention_head_dim": 32,
    "resnet_time_scale_shift": "scale_shift",
}
"""What the UNets of all priors have in common."""

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


DISPARITY = 6.9
"""The disparity of a flat scene, and the mean of a room: with a bias near 0 the final ReLU dies."""


def depth_network(seed: int, *, width: int, heads: int, states: list[int], size: int) -> Any:
    """Return a ``DepthAnythingForDepthEstimation`` with fresh weights.

    Args:
        seed: of the weights.
        width: channels of a token.
        heads: of attention.
        states: the layers whose output the decoder reads; the last one is the number of layers.
        size: side of the pictures that its position embeddings are for.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(seed)  # transformers initialises from the global generator
    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=states[-1],
        num_attention_heads=heads,
        mlp_ratio=4,
        image_size=size,
        patch_size=8,
        out_indices=states,
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=8,
        reassemble_hidden_size=width,
        neck_hidden_sizes=[32, 48, 64, 96],
        fusion_hidden_size=32,
        head_hidden_size=32,
    )
    model = DepthAnythingForDepthEstimation(config)
    nn.init.constant_(model.head.conv3.bias, DISPARITY)
    return model


def build_depth_model(seed: int) -> Any:
    """Return the depth network of the relief pair with fresh weights."""
    return depth_network(seed, width=128, heads=4, states=[2, 3, 5, 6], size=SIZE)


def build_prior(seed: int, kind: Kind = "relighting") -> PixelUNet:
    """Return a UNet of one kind of prior with fresh weights."""
    if kind != "unconditional":
        return conditional_prior(seed, Layout(size=SIZE, patch=PATCH, relighting=True))
    from diffusers import UNet2DModel

    torch.manual_seed(seed)  # diffusers initialises from the global generator
    layout = Layout(size=SIZE, patch=PATCH)
    return PixelUNet(
        UNet2DModel(
            in_channels=layout.channels,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            # With "scale_shift" diffusers omits the norm of the middle attention, and its gradient explodes.
            attn_norm_num_groups=16,
            **UNET,
        ),
        layout,
    )


def conditional_prior(seed: int, layout: Layout) -> PixelUNet:
    """Return a UNet that is told the photo and the light, or a caption, with fresh weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)  # diffusers initialises from the global generator
    unet = UNet2DConditionModel(
        in_channels=layout.channels,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=8,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=layout.conditions,
        **UNET,
    )
    return PixelUNet(unet, layout)


def loaded_prior(checkpoint: str) -> PixelUNet:
    """Return the re-lighting prior of a checkpoint, as ``prior.checkpoint`` takes it, in float32."""
    from diffusers import UNet2DConditionModel

    model = build_prior(0)
    model.unet.load_state_dict(Source(checkpoint).model(UNet2DConditionModel, "unet").float().state_dict())
    return model


def build_normals_model(seed: int) -> Any:
    """Return a UNet from photo to normals, of the prior's size, with fresh weights; it reads t = 0."""
    return build_prior(seed, "unconditional").unet


def noise_schedule() -> Tensor:
    """Return the cumulative alphas (1000,) of Stable Diffusion's schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE).alphas_cumprod
