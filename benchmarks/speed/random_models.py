"""Networks of real shapes with random weights, as checkpoints: they take the time of the trained ones.

`write` makes a folder with ``depth`` (Depth Anything V2 Small), ``sd`` (Stable Diffusion 1.5 without text
encoder) and ``tiny-vae``; `preset_on` points a preset at them; `write_text` adds the text encoder. Nothing is
downloaded.

    python -m benchmarks.speed.random_models      # counts the operations of a member's step
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from redepth import priors
from redepth.config import Preset, load_preset
from redepth.contracts import Condition
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.text import TextPart

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Shapes:
    """The sizes that decide the cost of a step; the defaults are the paper's models.

    Attributes:
        photo: longer side of the picture of depth model and renderer, in pixels.
        square: side of the prior's picture, in pixels.
        tokens: number of tokens of a prompt.
        backbone: configuration of the DINOv2 encoder.
        decoder: configuration of Depth Anything's decoder.
        unet: configuration of the denoiser.
        vae: configuration of the autoencoder; its decoder is never run.
        tiny_vae: configuration of the tiny autoencoder.
        text: configuration of the text encoder.
    """

    photo: int = 518
    square: int = 512
    tokens: int = 77
    backbone: Mapping[str, Any] = field(
        default_factory=lambda: {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12}
    )
    decoder: Mapping[str, Any] = field(default_factory=dict)
    unet: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(
        default_factory=lambda: {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    )
    tiny_vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)


REAL = Shapes()
SMALL = Shapes(
    photo=56,
    square=64,
    tokens=8,
    backbone={"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4},
    decoder={
        "reassemble_hidden_size": 16,
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
    },
    unet={
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    vae={"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4},
    tiny_vae={"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4},
    text={"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 600},
)
"""Narrow networks with the same kinds of layers, for runs of seconds."""


@priors.register("stable-diffusion-noise-prompts")
@dataclass(kw_only=True, eq=False)
class NoisePrompts(StableDiffusion):
    """Stable Diffusion without text encoder: prompts are noise of the right shape.

    Args:
        tokens: number of tokens of each prompt.
    """

    tokens: int = REAL.tokens

    text_parts: ClassVar[tuple[TextPart, ...]] = ()  # type: ignore[assignment]

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Draw an embedding for each branch of the guidance."""
        width = self.network().config.cross_attention_dim
        generator = torch.Generator().manual_seed(0)
        drawn = {
            name: torch.randn(1, self.tokens, width, generator=generator).to(image)
            for name in self.prompts(prompt)
        }
        embeddings = {name: value.to(self.precision(image.device)) for name, value in drawn.items()}
        return Condition({"photo": image, **embeddings})


def write(folder: Path, shapes: Shapes, device: torch.device) -> None:
    """Write the checkpoints, those of the prior in half precision on a GPU, drawn on the device."""
    half = torch.float16 if device.type == "cuda" else torch.float32
    makers: dict[str, tuple[Callable[[], Any], torch.dtype]] = {
        "depth": (lambda: depth_anything(shapes), torch.float32),
        "sd/unet": (lambda: unet(shapes), half),
        "sd/vae": (lambda: vae(shapes), half),
        "tiny-vae": (lambda: diffusers.AutoencoderTiny(**shapes.tiny_vae), half),
    }
    transformers.utils.logging.disable_progress_bar()
    for name, (make, dtype) in makers.items():
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            # Not diffusers' own `to`, which warns of missing modules.
            torch.nn.Module.to(make(), dtype).save_pretrained(folder / name)
    diffusers.DDIMScheduler(**SCHEDULE).save_pretrained(folder / "sd/scheduler")


def depth_anything(shapes: Shapes) -> Any:
    """Make a Depth Anything network; the defaults of its decoder are those of V2 Small."""
    backbone = transformers.Dinov2Config(
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12] if shapes is REAL else [1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
        **shapes.backbone,
    )
    config = transformers.DepthAnythingConfig(backbone_config=backbone, **shapes.decoder)
    return transformers.DepthAnythingForDepthEstimation(config)


def unet(shapes: Shapes) -> Any:
    """Make the UNet; the defaults of the class are Stable Diffusion 1.5's, except the width of the text."""
    return diffusers.UNet2DConditionModel(
        **{"sample_size": shapes.square // 8, "cross_attention_dim": 768, **shapes.unet}
    )


def vae(shapes: Shapes) -> Any:
    """Make the autoencoder."""
    levels = len(shapes.vae["block_out_channels"])
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **shapes.vae,
    )


CLIP_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
"""The configuration of Stable Diffusion 1.5's text encoder, CLIP's ViT-L/14."""


def write_text(folder: Path, shapes: Shapes) -> None:
    """Write a pipeline's text encoder, and a tokenizer of the real format that has only single letters."""
    config = transformers.CLIPTextConfig(**{**CLIP_TEXT, **shapes.text})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    letters = list(bytes_to_unicode().values())
    vocabulary = {name: i for i, name in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    # The start and end tokens are the last two of the vocabulary, as in the real tokenizer.
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary |= {start: config.vocab_size - 2, end: config.vocab_size - 1}
    ends = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": REAL.tokens, "do_lower_case": True}
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(ends), encoding="utf-8")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings | ends), encoding="utf-8")


def bytes_to_unicode() -> dict[int, str]:
    """Return the letter that stands for each byte in the vocabularies of GPT-2 and CLIP."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


def preset_on(folder: Path, shapes: Shapes, name: str, overrides: list[str]) -> Preset:
    """Return a preset of Depth Anything and Stable Diffusion on the checkpoints in a folder.

    Raises:
        ConfigError: the preset, or one of the overrides, does not exist.
    """
    known = load_preset(name, [*overrides, "prompt.captioner=none"]).model_dump()
    known["depth_model"] |= {"checkpoint": str(folder / "depth"), "longer_side": shapes.photo}
    prior = known["prior"]
    prior |= {
        "name": "stable-diffusion-noise-prompts",
        "checkpoint": str(folder / "sd"),
        "size": shapes.square,
        "tokens": shapes.tokens,
    }
    if prior.get("vae") == "tiny":
        prior["vae_checkpoint"] = str(folder / "tiny-vae")
    return Preset.model_validate(known)


def counts(shapes: Shapes = REAL) -> dict[str, float]:
    """Count the TFLOP of each stage of one member's step, on meta tensors."""

    def count(run: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 1e12

    with torch.device("meta"):
        side, grid = shapes.square // 8, shapes.photo // 14
        picture = torch.empty(1, 3, shapes.square, shapes.square, requires_grad=True)
        text = torch.empty(1, shapes.tokens, 768)
        tokens = [torch.empty(1, 1 + grid**2, shapes.backbone["hidden_size"]) for _ in range(4)]
        denoiser, depth = unet(shapes).requires_grad_(False), depth_anything(shapes)
        full = vae(shapes).requires_grad_(False)
        tiny = diffusers.AutoencoderTiny(**shapes.tiny_vae).requires_grad_(False)
        embeddings = [w.requires_grad_() for w in tokens]
        found = {"UNet": count(lambda: denoiser(torch.empty(1, 4, side, side), torch.ones(1), text))}
        for name, encode in (
            ("VAE", lambda: full.encode(picture).latent_dist.mean),
            ("tiny VAE", lambda: tiny.encode(picture).latents),
        ):
            found[f"{name} forward"] = count(encode)
            found[f"{name} backward"] = count(encode().sum().backward)
        decoded = "decoder, forward and backward"
        found[decoded] = count(
            lambda: depth.head(depth.neck(embeddings, grid, grid), grid, grid).sum().backward()
        )
    return found


def a_step(found: Mapping[str, float], vae: str = "VAE") -> float:
    """Return the TFLOP of a member's step: the denoiser twice, for guidance."""
    stages = (f"{vae} forward", f"{vae} backward", "decoder, forward and backward")
    return 2 * found["UNet"] + sum(found[stage] for stage in stages)


if __name__ == "__main__":
    counted = counts()
    table = Table("stage, per picture", "TFLOP")
    for stage, tflop in counted.items():
        table.add_row(stage, f"{tflop:.3f}")
    for kind in ("VAE", "tiny VAE"):
        table.add_row(f"a member's step with the {kind}", f"{a_step(counted, kind):.2f}")
    Console().print(table)
