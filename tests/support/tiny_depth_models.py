"""Depth networks of a few channels: the real classes of their libraries, seeded, made and saved here."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from redepth.depth_models import REGISTRY
from tests.support.helpers import CPU, GOLDEN, seeded

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
PLAIN = ((0.0,) * 3, (1.0,) * 3)


@dataclass(frozen=True)
class Family:
    """One backbone as the tests see it.

    ``component`` is its registered name, ``build`` makes the library's own model, ``reference`` is that
    model's own raw output for normalised pixels, ``normal`` the mean and deviation taken out before.
    """

    component: str
    build: Callable[[], nn.Module]
    reference: Callable[[Any, Tensor], Tensor]
    normal: tuple[tuple[float, ...], tuple[float, ...]]
    square: int
    wide: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    predicts: str = "disparity"
    invariance: str = "affine"
    # Whether the library's own forward refuses pictures that are not square, or resizes its position
    # embeddings for them in another way than the network it is a port of.
    square_only: bool = False


def lively(model: nn.Module, gain: float = 1.5) -> nn.Module:
    """Draw weights large enough that the output depends on the input; fresh ones are close to constant."""
    draw = seeded(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                spread = math.sqrt(gain / parameter[0].numel())
                parameter.copy_(spread * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def biased(model: nn.Module, name: str, value: float) -> nn.Module:
    """Set a bias in front of the last ReLU, so that most of the output is positive."""
    with torch.no_grad():
        model.get_parameter(name).fill_(value)
    return model


def dinov2(side: int = 70) -> Any:
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=side,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        layerscale_value=1.0,
    )


NECK = {"neck_hidden_sizes": [8, 12, 16, 24], "fusion_hidden_size": 16}


def metric_depth_anything() -> nn.Module:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config=dinov2(),
        reassemble_hidden_size=24,
        head_hidden_size=8,
        depth_estimation_type="metric",
        max_depth=20,
        **NECK,
    )
    return lively(DepthAnythingForDepthEstimation(config))


def prompt_depth_anything() -> nn.Module:
    from transformers import PromptDepthAnythingConfig, PromptDepthAnythingForDepthEstimation

    config = PromptDepthAnythingConfig(
        backbone_config=dinov2(),
        reassemble_hidden_size=24,
        head_hidden_size=8,
        depth_estimation_type="metric",
        **NECK,
    )
    return lively(PromptDepthAnythingForDepthEstimation(config))


VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}


def dpt(**options: Any) -> nn.Module:
    from transformers import DPTConfig, DPTForDepthEstimation

    shape = {"image_size": 64, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3]}
    model = DPTForDepthEstimation(DPTConfig(**{**VIT, **shape, **NECK, **options}))
    return biased(lively(model), "head.head.4.bias", 2.0)


def dpt_hybrid() -> nn.Module:
    from transformers import BitConfig

    backbone = BitConfig(
        global_padding="same",
        layer_type="bottleneck",
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1],
        num_groups=4,
        out_features=["stage1", "stage2", "stage3"],
        embedding_dynamic_padding=True,
    )
    model = dpt(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 24, 4, 4],
        neck_hidden_sizes=[8, 16, 24, 24],
        reassemble_factors=[1, 1, 1, 0.5],
    )
    return biased(model, "head.head.4.bias", 8.0)


def beit() -> Any:
    from transformers import BeitConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    shape = {"image_size": 64, "patch_size": 16, "out_features": stages}
    return BeitConfig(**VIT, **shape, use_relative_position_bias=True, reshape_hidden_states=False)


def swinv2() -> Any:
    from transformers import Swinv2Config

    return Swinv2Config(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        out_features=[f"stage{i}" for i in range(1, 5)],
    )


def zoedepth(heads: int = 1) -> nn.Module:
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    bins = [
        {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0},
        {"name": "kitti", "n_bins": 8, "min_depth": 0.001, "max_depth": 80.0},
    ]
    config = ZoeDepthConfig(
        backbone_config=beit(),
        num_relative_features=8,
        bottleneck_features=16,
        num_attractors=[4, 3, 2, 1],
        bin_embedding_dim=16,
        bin_configurations=bins[:heads],
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=32,
        patch_transformer_num_attention_heads=4,
        **NECK,
    )
    return lively(ZoeDepthForDepthEstimation(config))


def glpn() -> nn.Module:
    from transformers import GLPNConfig, GLPNForDepthEstimation

    config = GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 24],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
    )
    return lively(GLPNForDepthEstimation(config))


def depth_pro(focal: bool = True) -> nn.Module:
    from transformers import DepthProConfig, DepthProForDepthEstimation

    vit = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    vit |= {"image_size": 32, "patch_size": 16, "layerscale_value": 1.0}
    config = DepthProConfig(
        fusion_hidden_size=16,
        patch_size=32,
        intermediate_hook_ids=[2, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_feature_dims=[16, 12, 8],
        merge_padding_value=1,
        use_fov_model=focal,
        num_fov_head_layers=1,
        image_model_config=dict(vit),
        patch_model_config=dict(vit),
        fov_model_config=dict(vit),
    )
    model = biased(lively(DepthProForDepthEstimation(config)), "head.layers.4.bias", 2.0)
    return biased(model, "fov_model.head.layers.2.bias", 60.0) if focal else model


class DA3(nn.Module):
    """The package's parts, as its DepthAnything3Net holds them, at a few channels: mono or any-view."""

    def __init__(self, name: str = "da3mono-large") -> None:
        super().__init__()
        from depth_anything_3.cfg import create_object

        self.name = name
        with small_da3(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for part, options in self.graph().items():
                self.add_module("backbone" if part == "net" else part, create_object(options))

    def graph(self) -> dict[str, Any]:
        """The configuration of the network, in the package's words."""
        net = {"name": "vits", "out_layers": [0, 1, 2, 3], "cat_token": False}
        head = {"dim_in": 24, "output_dim": 1, "features": 16, "out_channels": [8, 12, 16, 24]}
        if self.name in ("da3mono-large", "da3metric-large"):
            return {"net": part("dinov2.dinov2", "DinoV2", **net), "head": part("dpt", "DPT", **head)}
        later = {"alt_start": 1, "qknorm_start": 1, "rope_start": 1, "cat_token": True}
        return {
            "net": part("dinov2.dinov2", "DinoV2", **net | later),
            "head": part("dualdpt", "DualDPT", **head | {"dim_in": 48, "output_dim": 2}),
            "cam_enc": part("cam_enc", "CameraEnc", dim_out=24, trunk_depth=1, num_heads=2),
            "cam_dec": part("cam_dec", "CameraDec", dim_in=48),
        }


def part(module: str, item: str, /, **options: Any) -> dict[str, Any]:
    """A part of a network, as the package's configurations describe it."""
    return {
        "__object__": {"path": f"depth_anything_3.model.{module}", "name": item, "args": "as_params"},
        **options,
    }


@contextmanager
def small_da3() -> Iterator[None]:
    """Within it the package's smallest ViT, which has 21 million parameters, is one of its class with few."""
    from depth_anything_3.model.dinov2 import dinov2 as package
    from depth_anything_3.model.dinov2.vision_transformer import DinoVisionTransformer

    small = partial(DinoVisionTransformer, embed_dim=24, depth=4, num_heads=2, mlp_ratio=2)
    with mock.patch.object(package, "vit_small", small), redirect_stdout(io.StringIO()):
        yield


def da3(name: str = "da3mono-large") -> nn.Module:
    """One whose depth, an exponential, keeps in bounds, and that sees no sky, which the package fills in."""
    model = lively(DA3(name))
    with torch.no_grad():
        model.get_parameter("head.scratch.output_conv2.2.weight").mul_(0.1)
        if name == "da3-small":
            model.get_parameter("cam_dec.fc_fov.0.weight").mul_(0.05)
            model.get_parameter("cam_dec.fc_fov.0.bias").copy_(torch.tensor([0.8, 1.1]))
    return model if name == "da3-small" else biased(model, "head.scratch.sky_output_conv2.2.bias", -1e3)


def da3_outputs(model: Any, pixels: Tensor) -> Any:
    """What the package's own network makes of one view."""
    from depth_anything_3.model.da3 import DepthAnything3Net

    parts = dict(model.named_children())
    return DepthAnything3Net(parts.pop("backbone"), **parts).eval()(pixels[:, None])


def da3_forward(model: Any, pixels: Tensor) -> Tensor:
    return da3_outputs(model, pixels).depth


class OneStepParts(nn.Module):
    """UNet, VAE, text encoder and scheduler of a few channels, as a diffusers pipeline holds them.

    Args:
        channels: that go into the UNet: two latents, or one.
        task: whether the UNet takes a task, as that of Lotus does.
    """

    def __init__(self, channels: int, task: bool) -> None:
        super().__init__()
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        source = GOLDEN / "tiny-random-sd"
        known = json.loads((source / "unet" / "config.json").read_text()) | {"in_channels": channels}
        if task:
            known |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.unet = UNet2DConditionModel.from_config(known)
        self.vae = AutoencoderKL.from_pretrained(source / "vae", low_cpu_mem_usage=False)
        self.text_encoder = CLIPTextModel.from_pretrained(source / "text_encoder")
        self.tokenizer = CLIPTokenizer.from_pretrained(source / "tokenizer")
        # That of Marigold: it predicts v, and its last step is one of noise alone.
        self.scheduler = DDIMScheduler.from_pretrained(
            source / "scheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True
        )

    def save(self, folder: Path) -> None:
        """Write the folder as published, under the name of a pipeline that it was trained with."""
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            getattr(self, name).save_pretrained(folder / name)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def one_step(channels: int, task: bool) -> nn.Module:
    """One whose map depends on its input, and is not clipped where the tests look."""
    parts = OneStepParts(channels, task)
    lively(parts.unet)
    lively(parts.vae, gain=1.0)
    return parts.eval()


def empty_prompt(parts: Any, padding: Any) -> Tensor:
    tokens = parts.tokenizer("", padding=padding, max_length=parts.tokenizer.model_max_length)
    return parts.text_encoder(torch.tensor([tokens.input_ids]))[0]


def e2e_forward(parts: Any, pixels: Tensor) -> Tensor:
    """By the pipeline of diffusers with one step, trailing spacing and zeros, and the repository's ending."""
    from diffusers import DDIMScheduler, MarigoldDepthPipeline

    scheduler = DDIMScheduler.from_config(
        parts.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True
    )
    pipeline = MarigoldDepthPipeline(
        parts.unet, parts.vae, scheduler, parts.text_encoder, parts.tokenizer, prediction_type="depth"
    )
    pipeline.set_progress_bar_config(disable=True)
    height, width = pixels.shape[-2:]
    scale = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    return (
        0.1
        + pipeline(
            (pixels + 1) / 2,
            num_inference_steps=1,
            processing_resolution=0,
            latents=torch.zeros(1, 4, height // scale, width // scale),
            output_type="pt",
        ).prediction
    )


def lotus_forward(parts: Any, pixels: Tensor) -> Tensor:
    """As the authors' pipelines do it, but for the mean of the picture's latent in place of a sample."""
    latents = parts.vae.encode(pixels).latent_dist.mode() * parts.vae.config.scaling_factor
    if parts.unet.config.in_channels == 8:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        latents = torch.cat([latents, noise], dim=1)
    task = torch.tensor([[1.0, 0.0]])
    clean = parts.unet(
        latents,
        torch.tensor(999),
        encoder_hidden_states=empty_prompt(parts, "max_length"),
        class_labels=torch.cat([torch.sin(task), torch.cos(task)], dim=-1),
    ).sample
    picture = parts.vae.decode(clean / parts.vae.config.scaling_factor).sample
    return (picture / 2 + 0.5).clamp(0, 1).mean(dim=1, keepdim=True)


MOGE_CHANNELS = [16, 16, 8, 8, 8]
MOGE_TOKENS = [12, 20]


def moge_stack(inputs: list[int], outputs: int | None) -> dict[str, Any]:
    """The settings of a neck or a head, of the published networks' layers."""
    return {
        "dim_in": inputs,
        "dim_out": None if outputs is None else [None] * 4 + [outputs],
        "dim_res_blocks": MOGE_CHANNELS,
        "num_res_blocks": [0, 1, 1, 1, 0],
        "res_block_in_norm": "none",
        "res_block_hidden_norm": "none",
        "resamplers": ["conv_transpose"] * 3 + ["bilinear"],
    }


def moge_settings(version: int) -> dict[str, Any]:
    """The model_config of a checkpoint."""
    if version == 1:
        return {
            "encoder": "dinov2_vits14",
            "remap_output": "exp",
            "intermediate_layers": 4,
            "dim_proj": 16,
            "dim_upsample": [32, 32, 32],
            "num_tokens_range": MOGE_TOKENS,
            "last_conv_channels": 8,
        }
    encoder = {"backbone": "dinov2_vits14", "intermediate_layers": [0, 1, 2, 3], "dim_out": 16}
    return {
        "encoder": encoder,
        "neck": moge_stack([18, 2, 2, 2, 2], None),
        "points_head": moge_stack(MOGE_CHANNELS, 3),
        "mask_head": moge_stack(MOGE_CHANNELS, 1),
        "normal_head": moge_stack(MOGE_CHANNELS, 3),
        "scale_head": {"dims": [24, 24, 1]},
        "remap_output": "exp",
        "num_tokens_range": MOGE_TOKENS,
    }


@contextmanager
def small_moge() -> Iterator[None]:
    """Within it the package's smallest ViT is one of its class with few parameters."""
    from moge.model.dinov2.models import vision_transformer as package

    def small(**options: Any) -> nn.Module:
        return package.DinoVisionTransformer(embed_dim=24, depth=4, num_heads=2, mlp_ratio=2, **options)

    with mock.patch.object(package, "vit_small", small):
        yield


def moge(version: int = 2, **changes: Any) -> nn.Module:
    """One whose x / z and y / z follow the pixels, as those of a pinhole camera do, with depths of 1 to 5."""
    from importlib import import_module

    settings = moge_settings(version) | changes
    with small_moge(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = import_module(f"moge.model.v{version}").MoGeModel(**settings)
    lively(model)
    model.settings = settings
    with torch.no_grad():
        (_through_first if version == 1 else _through)(model)
    return model


def _through(model: Any) -> None:
    """Let the plane's coordinates pass through both stacks, beside what they make of the photo."""
    for stack in (model.neck, model.points_head):
        stack.input_blocks[4].weight[:2] = 0
        stack.input_blocks[4].weight[0, 0] = stack.input_blocks[4].weight[1, 1] = 4.0
    last = model.points_head.output_blocks[4].weight
    last[:2] *= 0.01
    last[2] *= 0.1
    last[0, 0] += 0.05
    last[1, 1] += 0.05
    model.mask_head.output_blocks[4].weight *= 0.3
    model.mask_head.output_blocks[4].bias.fill_(1.0)


def _through_first(model: Any) -> None:
    """Let the plane's coordinates, as positive and negative parts, pass through the last layers."""
    first, _, last = model.head.output_block[0]
    first.weight[:4] = 0
    last.weight[:2] *= 0.01
    last.weight[2] *= 0.3
    for channel in range(2):
        for part, sign in enumerate((1.0, -1.0)):
            first.weight[2 * channel + part, 32 + channel, 1, 1] = sign
            last.weight[channel, 2 * channel + part] = sign
    first.bias[:4] = 0
    model.head.output_block[1][2].bias.fill_(2.0)


def moge_depth(model: Any, pixels: Tensor) -> Tensor:
    """What the package's own pipeline makes of a photo, without its mask."""
    height, width = pixels.shape[-2:]
    tokens = (height // 14) * (width // 14)
    found = model.infer(pixels, num_tokens=tokens, apply_mask=False, use_fp16=False)
    return found["depth"].clone()[:, None]


def predicted(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels).predicted_depth[:, None]


def in_metres(model: Any, pixels: Tensor) -> Tensor:
    """Depth Pro's canonical inverse depth as its image processor scales it, before it is inverted."""
    out = model(pixels)
    width = 1000.0
    focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(out.field_of_view))
    return out.predicted_depth[:, None] * (width / focal).view(-1, 1, 1, 1)


SQUARED = {"longer_side": 64, "resize_rule": "upper_bound"}

FAMILIES = {
    "metric-depth-anything": Family(
        "depth-anything",
        metric_depth_anything,
        predicted,
        IMAGENET,
        70,
        (56, 70),
        {"longer_side": 70},
        "depth",
        "metric",
        square_only=True,
    ),
    "dpt": Family("dpt", dpt, predicted, HALF, 64, (32, 64), SQUARED, square_only=True),
    "dpt-hybrid": Family("dpt", dpt_hybrid, predicted, HALF, 64, (64, 32), SQUARED, square_only=True),
    "dpt-beit": Family("dpt", partial(dpt, backbone_config=beit()), predicted, HALF, 64, (32, 64), SQUARED),
    "dpt-swinv2": Family(
        "dpt",
        partial(dpt, backbone_config=swinv2(), neck_hidden_sizes=[8, 16, 32, 64]),
        predicted,
        HALF,
        64,
        (32, 64),
        SQUARED,
    ),
    "zoedepth": Family(
        "zoedepth", zoedepth, predicted, HALF, 64, (32, 64), SQUARED | {"pad": False}, "depth", "metric"
    ),
    "zoedepth-two-heads": Family(
        "zoedepth",
        partial(zoedepth, 2),
        predicted,
        HALF,
        64,
        (32, 64),
        SQUARED | {"pad": False},
        "depth",
        "metric",
    ),
    "glpn": Family("glpn", glpn, predicted, PLAIN, 64, (32, 64), SQUARED, "depth", "metric"),
    "depth-pro": Family(
        "depth-pro",
        depth_pro,
        in_metres,
        HALF,
        128,
        (64, 96),
        {"longer_side": 128},
        invariance="metric",
        square_only=True,
    ),
    "prompt-depth-anything": Family(
        "prompt-depth-anything",
        prompt_depth_anything,
        predicted,
        IMAGENET,
        70,
        (56, 70),
        {"longer_side": 70, "resize_rule": "upper_bound"},
        "depth",
        square_only=True,
    ),
    "depth-anything-3": Family(
        "depth-anything-3-mono",
        da3,
        da3_forward,
        IMAGENET,
        56,
        (42, 56),
        {"longer_side": 56},
        "depth",
    ),
    "moge-2": Family("moge-2", moge, moge_depth, PLAIN, 56, (42, 56), {"longer_side": 56}, "depth", "metric"),
    "moge-1": Family(
        "moge-1", partial(moge, 1), moge_depth, PLAIN, 56, (42, 56), {"longer_side": 56}, "depth"
    ),
    "depth-anything-3-metric": Family(
        "depth-anything-3-metric",
        partial(da3, "da3metric-large"),
        da3_forward,
        IMAGENET,
        56,
        (42, 56),
        {"longer_side": 56},
        "depth",
    ),
    "depth-anything-3-any-view": Family(
        "depth-anything-3-small",
        partial(da3, "da3-small"),
        da3_forward,
        IMAGENET,
        56,
        (42, 56),
        {"longer_side": 56},
        "depth",
    ),
}
ONE_STEP = {
    "e2e-ft": Family(
        "e2e-ft", partial(one_step, 8, False), e2e_forward, HALF, 64, (48, 64), {"longer_side": 64}, "depth"
    ),
    "lotus": Family(
        "lotus",
        partial(one_step, 8, True),
        lotus_forward,
        HALF,
        64,
        (48, 64),
        {"longer_side": 64, "output": "disparity"},
    ),
    "lotus-d": Family(
        "lotus-d",
        partial(one_step, 4, True),
        lotus_forward,
        HALF,
        64,
        (48, 64),
        {"longer_side": 64, "output": "disparity"},
    ),
}
"""Those whose checkpoint is a folder of diffusers."""

FAMILIES |= ONE_STEP


def save(model: nn.Module, folder: Path) -> Path:
    """Write a checkpoint as its library's authors publish it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, OneStepParts):
        model.save(folder)
        return folder
    if type(model).__module__.startswith("moge."):
        torch.save({"model_config": model.settings, "model": model.state_dict()}, folder / "model.pt")
        return folder
    if not isinstance(model, DA3):
        model.save_pretrained(folder)
        return folder
    save_file(
        {f"model.{k}": v.contiguous().clone() for k, v in model.state_dict().items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps({"model_name": model.name, "config": model.graph()}))
    return folder


def marigold(folder: Path) -> Path:
    """Save a Marigold pipeline for depth of a few channels."""
    return _marigold("MarigoldDepthPipeline", folder, prediction_type="depth")


def marigold_normals(folder: Path) -> Path:
    """Save a Marigold pipeline for normals of a few channels, which face the viewer, as published ones do."""
    return _marigold("MarigoldNormalsPipeline", folder, use_full_z_range=False)


def marigold_intrinsics(folder: Path, properties: dict[str, Any]) -> Path:
    """Save a Marigold pipeline for intrinsic images of a few channels."""
    options = {"prediction_type": "intrinsics", "target_properties": properties}
    return _marigold("MarigoldIntrinsicsPipeline", folder, len(properties["target_names"]), **options)


def _marigold(name: str, folder: Path, targets: int = 1, **options: Any) -> Path:
    """Save a pipeline whose text encoder and VAE are those of the recorded tiny SD."""
    import diffusers
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    source = GOLDEN / "tiny-random-sd"
    known = json.loads((source / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        channels = {"in_channels": 4 * (1 + targets), "out_channels": 4 * targets}
        unet = UNet2DConditionModel.from_config(known | channels)
    quick = {"low_cpu_mem_usage": False}
    pipeline = getattr(diffusers, name)(
        unet=unet,
        vae=AutoencoderKL.from_pretrained(source / "vae", **quick),
        scheduler=DDIMScheduler.from_pretrained(source / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(source / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(source / "tokenizer"),
        default_denoising_steps=2,
        default_processing_resolution=64,
        **options,
    )
    pipeline.save_pretrained(folder)
    return folder


def load(component: str, device: torch.device = CPU, **options: Any) -> Any:
    """Build a registered depth model as a preset would, and load it."""
    small = {"moge-1": small_moge, "moge-2": small_moge}
    if component.startswith("depth-anything-3"):
        small[component] = small_da3
    with small.get(component, nullcontext)():
        return REGISTRY.build(component, options).load(device)


def relief(height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """A smooth positive map, larger in the middle."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1.0 + 4.0 * np.exp(-2 * (x**2 + y**2)) + 0.2 * np.sin(5 * x)).astype(np.float32)
