"""A tiny checkpoint of Marigold's intrinsic image decomposition, of the real class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.support.helpers import GOLDEN

APPEARANCE: dict[str, Any] = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}
LIGHTING: dict[str, Any] = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}


def save_intrinsics(folder: Path, properties: dict[str, Any] | None = None) -> Path:
    """Save a pipeline of a few channels, its text encoder and VAE those of the recorded tiny SD."""
    from diffusers import AutoencoderKL, DDIMScheduler, MarigoldIntrinsicsPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    properties = APPEARANCE if properties is None else properties
    targets = len(properties["target_names"])
    source = GOLDEN / "tiny-random-sd"
    known = json.loads((source / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        channels = {"in_channels": 4 * (1 + targets), "out_channels": 4 * targets}
        unet = UNet2DConditionModel.from_config(known | channels)
    MarigoldIntrinsicsPipeline(
        unet=unet,
        vae=AutoencoderKL.from_pretrained(source / "vae", low_cpu_mem_usage=False),
        scheduler=DDIMScheduler.from_pretrained(source / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(source / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(source / "tokenizer"),
        prediction_type="intrinsics",
        target_properties=properties,
        default_denoising_steps=2,
        default_processing_resolution=64,
    ).save_pretrained(folder)
    return folder
