"""Tiny checkpoints of the flow-matching transformers with language models as text encoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import save_schedule, save_vae, seed_weights
from tests.support.helpers import seeded

SPECIAL = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IMAGE_TOKEN = 256 + SPECIAL.index("<|image_pad|>")

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
"""The part of Qwen3's published template that one message of the user goes through."""

TEXT: dict[str, Any] = {
    "vocab_size": 256 + len(SPECIAL) + 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}
TOKEN_IDS = {"bos_token_id": 257, "eos_token_id": 256, "pad_token_id": 257}


def save_tokenizer(folder: Path) -> None:
    """Qwen's form with a token for each byte."""
    from transformers import AddedToken, Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: byte for byte, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|im_end|>", model_max_length=4096)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ("<think>", "</think>")])
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(256, 256 + len(SPECIAL)))
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def save_qwen3(folder: Path, layers: int) -> None:
    """A Qwen3 language model of width 16 and its tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**TEXT, **TOKEN_IDS, num_hidden_layers=layers, head_dim=8, tie_word_embeddings=True)
    seed_weights(Qwen3ForCausalLM(config), scale=0.2).save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")


def save_qwen_vl(folder: Path) -> None:
    """A Qwen2.5-VL of width 16, its tokenizer and the settings of its pictures."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, **TOKEN_IDS, "num_hidden_layers": 2, "rope_parameters": rope},
        vision_config={**vision, "fullatt_block_indexes": [1]},
        image_token_id=IMAGE_TOKEN,
        video_token_id=IMAGE_TOKEN + 1,
        vision_start_token_id=IMAGE_TOKEN - 2,
    )
    seed_weights(Qwen2_5_VLForConditionalGeneration(config), scale=0.2).save_pretrained(
        folder / "text_encoder"
    )
    save_tokenizer(folder / "tokenizer")
    Qwen2VLImageProcessorPil().save_pretrained(folder / "processor")


def save_parts(folder: Path, pipeline: str, encoder: str, classes: dict[str, str], **more: Any) -> None:
    """Write scheduler and ``model_index.json``."""
    save_schedule(folder / "scheduler", "FlowMatchEulerDiscreteScheduler")
    index: dict[str, Any] = {"_class_name": pipeline, **more}
    index |= {name: ["diffusers", cls] for name, cls in classes.items()}
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    index |= {"text_encoder": ["transformers", encoder], "tokenizer": ["transformers", "Qwen2Tokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def save_klein(folder: Path) -> None:
    """FLUX.2 [klein] base's form."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    save_qwen3(folder, layers=28)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16), latent_channels=4, layers_per_block=1, norm_num_groups=4
    )
    seed_weights(vae)
    vae.bn.running_mean.copy_(torch.randn(16, generator=seeded(1)))
    vae.bn.running_var.copy_(torch.rand(16, generator=seeded(2)) + 0.5)
    vae.save_pretrained(folder / "vae")
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    seed_weights(transformer, scale=0.2).save_pretrained(folder / "transformer")
    classes = {"transformer": "Flux2Transformer2DModel", "vae": "AutoencoderKLFlux2"}
    save_parts(folder, "Flux2KleinPipeline", "Qwen3ForCausalLM", classes)


def save_z_image(folder: Path) -> None:
    """Z-Image's form."""
    from diffusers import ZImageTransformer2DModel

    save_qwen3(folder, layers=2)
    save_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159)
    transformer = ZImageTransformer2DModel(
        dim=16,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 2, 2],
        axes_lens=[1024, 64, 64],
    )
    seed_weights(transformer, scale=0.1).save_pretrained(folder / "transformer")
    classes = {"transformer": "ZImageTransformer2DModel", "vae": "AutoencoderKL"}
    save_parts(folder, "ZImagePipeline", "Qwen3ForCausalLM", classes)


def save_qwen_image(folder: Path, pipeline: str = "QwenImagePipeline", **changes: Any) -> None:
    """Qwen-Image's form."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

    save_qwen_vl(folder)
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        num_res_blocks=1,
        latents_mean=[0.5, -0.25, 0.0, 1.0],
        latents_std=[2.0, 0.5, 1.0, 1.5],
    )
    seed_weights(vae)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            # Scales of normalisations, which have other names here.
            parameter.data += 1
    vae.save_pretrained(folder / "vae")
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 2, 2),
        **changes,
    )
    seed_weights(transformer, scale=0.2).save_pretrained(folder / "transformer")
    classes = {"transformer": "QwenImageTransformer2DModel", "vae": "AutoencoderKLQwenImage"}
    save_parts(folder, pipeline, "Qwen2_5_VLForConditionalGeneration", classes)


def save_prx_pixel(folder: Path) -> None:
    """PRXPixel's form: a transformer of pixels, the language model of Qwen3-VL."""
    from diffusers import PRXTransformer2DModel
    from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = Qwen3VLTextConfig(**TEXT, **TOKEN_IDS, num_hidden_layers=2, head_dim=8, rope_parameters=rope)
    seed_weights(Qwen3VLTextModel(config), scale=0.2).save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    transformer = PRXTransformer2DModel(
        in_channels=3,
        patch_size=16,
        context_in_dim=16,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[4, 4],
        bottleneck_size=12,
        resolution_embeds=True,
    )
    seed_weights(transformer, scale=0.2).save_pretrained(folder / "transformer")
    more = {"default_sample_size": 1024, "prompt_max_tokens": 256, "noise_scale": 2.0}
    classes = {"transformer": "PRXTransformer2DModel"}
    save_parts(folder, "PRXPixelPipeline", "Qwen3VLTextModel", classes, **more)


MAKERS: dict[str, Callable[[Path], None]] = {
    "klein": save_klein,
    "z-image": save_z_image,
    "qwen-image": save_qwen_image,
    "prx-pixel": save_prx_pixel,
    "qwen-image-edit": lambda folder: save_qwen_image(folder, "QwenImageEditPipeline"),
}
