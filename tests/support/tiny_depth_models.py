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
    """The package's backbone and head, as its DepthAnything3Net holds them, at a few channels."""

    def __init__(self) -> None:
        super().__init__()
        from depth_anything_3.model.dinov2.dinov2 import DinoV2
        from depth_anything_3.model.dpt import DPT

        with small_da3(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = DinoV2(**self.net())
            self.head = DPT(**self.dpt())

    @staticmethod
    def net() -> dict[str, Any]:
        return {"name": "vits", "out_layers": [0, 1, 2, 3], "cat_token": False}

    @staticmethod
    def dpt() -> dict[str, Any]:
        return {"dim_in": 24, "output_dim": 1, "features": 16, "out_channels": [8, 12, 16, 24]}


@contextmanager
def small_da3() -> Iterator[None]:
    """Within it the package's smallest ViT, which has 21 million parameters, is one of its class with few."""
    from depth_anything_3.model.dinov2 import dinov2 as package
    from depth_anything_3.model.dinov2.vision_transformer import DinoVisionTransformer

    small = partial(DinoVisionTransformer, embed_dim=24, depth=4, num_heads=2, mlp_ratio=2)
    with mock.patch.object(package, "vit_small", small), redirect_stdout(io.StringIO()):
        yield


def da3() -> nn.Module:
    """One whose depth, an exponential, keeps in bounds, and that sees no sky, which the package fills in."""
    model = lively(DA3())
    with torch.no_grad():
        model.get_parameter("head.scratch.output_conv2.2.weight").mul_(0.1)
    return biased(model, "head.scratch.sky_output_conv2.2.bias", -1e3)


def da3_forward(model: Any, pixels: Tensor) -> Tensor:
    """What the package's own network makes of one view."""
    from depth_anything_3.model.da3 import DepthAnything3Net

    return DepthAnything3Net(model.backbone, model.head).eval()(pixels[:, None]).depth


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
}


def save(model: nn.Module, folder: Path) -> Path:
    """Write a checkpoint as its library's authors publish it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if type(model).__module__.startswith("moge."):
        torch.save({"model_config": model.settings, "model": model.state_dict()}, folder / "model.pt")
        return folder
    if not isinstance(model, DA3):
        model.save_pretrained(folder)
        return folder
    save_file(
        {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    graph = {"net": {"__object__": {}, **model.net()}, "head": {"__object__": {}, **model.dpt()}}
    (folder / "config.json").write_text(json.dumps({"model_name": "da3mono-large", "config": graph}))
    return folder


def marigold(folder: Path) -> Path:
    """Save a Marigold pipeline of a few channels, its text encoder and VAE those of the recorded tiny SD."""
    from diffusers import AutoencoderKL, DDIMScheduler, MarigoldDepthPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    source = GOLDEN / "tiny-random-sd"
    known = json.loads((source / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(known | {"in_channels": 8})
    quick = {"low_cpu_mem_usage": False}
    pipeline = MarigoldDepthPipeline(
        unet=unet,
        vae=AutoencoderKL.from_pretrained(source / "vae", **quick),
        scheduler=DDIMScheduler.from_pretrained(source / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(source / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(source / "tokenizer"),
        prediction_type="depth",
        default_denoising_steps=2,
        default_processing_resolution=64,
    )
    pipeline.save_pretrained(folder)
    return folder


def load(component: str, device: torch.device = CPU, **options: Any) -> Any:
    """Build a registered depth model as a preset would, and load it."""
    small = {"depth-anything-3-mono": small_da3, "moge-1": small_moge, "moge-2": small_moge}
    with small.get(component, nullcontext)():
        return REGISTRY.build(component, options).load(device)


def relief(height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """A smooth positive map, larger in the middle."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1.0 + 4.0 * np.exp(-2 * (x**2 + y**2)) + 0.2 * np.sin(5 * x)).astype(np.float32)
