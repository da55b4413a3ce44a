"""Tiny checkpoints of the real model classes: a few channels, seeded, made on the spot."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.support.helpers import GOLDEN, seeded

SD = GOLDEN / "tiny-random-sd"
"""Stable Diffusion 1.5's form; its text encoder reads 24 tokens."""

SCHEDULES = {
    "DDIMScheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "steps_offset": 1,
    },
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "DDPMScheduler": {},
    "DPMSolverMultistepScheduler": {},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def seed_weights(model: torch.nn.Module, seed: int = 0, scale: float = 0.08) -> torch.nn.Module:
    """Fill all weights from a seed of their own, so that no layer is left at zero."""
    generator = seeded(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator) * scale
        # Scales of normalisations stay about 1.
        around = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
        parameter.data = around + drawn
    return model.eval()


def save_schedule(folder: Path, name: str = "DDIMScheduler", **changes: Any) -> None:
    import diffusers

    getattr(diffusers, name)(**(SCHEDULES[name] | changes)).save_pretrained(folder)


def save_index(folder: Path, pipeline: str, **more: Any) -> None:
    """Write ``model_index.json``: the class of each component, as its own configuration names it."""
    index: dict[str, Any] = {"_class_name": pipeline, **more}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        if part.name.startswith("tokenizer"):
            t5 = pipeline.startswith("PixArt") or part.name[-1] == "3"
            index[part.name] = ["transformers", "T5TokenizerFast" if t5 else "CLIPTokenizer"]
        elif part.name.startswith("text_encoder"):
            config = json.loads((part / "config.json").read_text())
            index[part.name] = ["transformers", config["architectures"][0]]
        else:
            config = json.loads(next(part.glob("*config.json")).read_text())
            index[part.name] = ["diffusers", config["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))


def save_clip(folder: Path, number: str, *, projection: bool, seed: int = 0) -> None:
    """A CLIP text encoder of width 32 (pooled: 16) that reads 77 tokens, and the recorded tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=16,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    seed_weights(model, seed).save_pretrained(folder / f"text_encoder{number}")
    tokenizer = folder / f"tokenizer{number}"
    shutil.copytree(SD / "tokenizer", tokenizer)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 77}))


def save_t5(folder: Path, number: str) -> None:
    """A T5 encoder of width 64 and a tokenizer of single characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    config = T5Config(vocab_size=64, d_model=64, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    seed_weights(T5EncoderModel(config)).save_pretrained(folder / f"text_encoder{number}")
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters += [(c, -1.0) for c in "abcdefghijklmnopqrstuvwxyz▁, "]
    tokenizer = Tokenizer(models.Unigram(letters, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    fast = T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=512)
    fast.save_pretrained(folder / f"tokenizer{number}")


def save_vae(folder: Path, channels: int = 4, **changes: Any) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        **changes,
    )
    seed_weights(vae).save_pretrained(folder)


def save_tiny_vae(folder: Path, channels: int = 4) -> None:
    from diffusers import AutoencoderTiny

    narrow = (8, 8, 8, 8)
    vae = AutoencoderTiny(
        encoder_block_out_channels=narrow, decoder_block_out_channels=narrow, latent_channels=channels
    )
    seed_weights(vae).save_pretrained(folder)


def save_unet(folder: Path, **changes: Any) -> None:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    seed_weights(UNet2DConditionModel(**(settings | changes))).save_pretrained(folder)


def save_sd15(folder: Path) -> None:
    """Stable Diffusion 1.5's form again, with room for longer prompts than `SD` has."""
    save_clip(folder, "", projection=False)
    save_vae(folder / "vae")
    save_unet(folder / "unet")
    save_schedule(folder / "scheduler")
    save_index(folder, "StableDiffusionPipeline")


def save_sd21(folder: Path) -> None:
    """Stable Diffusion 2.1's form: v-prediction, linear projections."""
    save_clip(folder, "", projection=False)
    save_vae(folder / "vae")
    save_unet(folder / "unet", use_linear_projection=True)
    save_schedule(folder / "scheduler", prediction_type="v_prediction")
    save_index(folder, "StableDiffusionPipeline")


def save_xl(folder: Path) -> None:
    """SDXL's form: two text encoders, size conditioning."""
    save_clip(folder, "", projection=False)
    save_clip(folder, "_2", projection=True, seed=1)
    save_vae(folder / "vae", scaling_factor=0.13025)
    save_unet(
        folder / "unet",
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    save_schedule(folder / "scheduler")
    save_index(folder, "StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)


def save_sd3(folder: Path, **changes: Any) -> None:
    """SD 3's form: a transformer, flow matching, three text encoders, latents of 16 channels."""
    from diffusers import SD3Transformer2DModel

    save_clip(folder, "", projection=True)
    save_clip(folder, "_2", projection=True, seed=1)
    save_t5(folder, "_3")
    save_vae(folder / "vae", 16, scaling_factor=1.5305, shift_factor=0.0609)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        **changes,
    )
    seed_weights(transformer).save_pretrained(folder / "transformer")
    save_schedule(folder / "scheduler", "FlowMatchEulerDiscreteScheduler")
    save_index(folder, "StableDiffusion3Pipeline")


def save_sd35(folder: Path) -> None:
    """SD 3.5 medium's form: normalised queries and keys, a second attention in its first layers."""
    save_sd3(folder, qk_norm="rms_norm", dual_attention_layers=(0,))


def save_pixart(folder: Path, **changes: Any) -> None:
    """PixArt-Sigma's form: T5 alone, the variance beside the noise."""
    from diffusers import PixArtTransformer2DModel

    save_t5(folder, "")
    save_vae(folder / "vae", scaling_factor=0.13025)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "cross_attention_dim": 24,
        "caption_channels": 64,
        "use_additional_conditions": False,
    }
    transformer = PixArtTransformer2DModel(**(settings | changes))
    seed_weights(transformer, scale=0.2).save_pretrained(folder / "transformer")
    save_schedule(folder / "scheduler", "DPMSolverMultistepScheduler")
    save_index(folder, "PixArtSigmaPipeline")


def save_ic_light(folder: Path) -> None:
    """A Stable Diffusion 1.5, and the offsets that make it IC-Light: the first convolution has 8 channels."""
    from safetensors.torch import load_file, save_file

    save_sd15(folder)
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    shapes = {name: list(value.shape) for name, value in weights.items()}
    shapes["conv_in.weight"][1] = 8
    generator = seeded(7)
    offsets = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file({k: v.half() for k, v in offsets.items()}, folder / "iclight_sd15_fc.safetensors")


def save_ddpm(folder: Path, *, root: bool = False) -> None:
    """An unconditional pixel model; ``root``: laid out as the first DDPM repositories are."""
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    seed_weights(unet).save_pretrained(folder if root else folder / "unet")
    save_schedule(folder if root else folder / "scheduler", "DDPMScheduler")


WORDS = ("a", "an", "the", "photo", "of", "tiger", "cat", "stone", "red", "on", "in", "with", "light", "sky")


def save_blip(folder: Path) -> None:
    """BLIP's form; its captions are sequences of `WORDS`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS)
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = {"bos_token_id": 5, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    config = BlipConfig(
        text_config={**NARROW, **ends, "encoder_hidden_size": 16, "vocab_size": len(vocabulary)},
        vision_config={**NARROW, **VISION},
        projection_dim=16,
    )
    seed_weights(BlipForConditionalGeneration(config)).save_pretrained(folder)
    fast = BertTokenizerFast(tokenizer_object=tokenizer, bos_token="[DEC]")
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessorPil(size=size), fast).save_pretrained(folder)


def save_blip2(folder: Path) -> None:
    """BLIP-2's form with OPT; its captions are sequences of `WORDS`."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    names = ("</s>", "<pad>", "<unk>", "<image>", *WORDS)
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 0}
    opt = {"model_type": "opt", "ffn_dim": 16, "word_embed_proj_dim": 16, "vocab_size": len(vocabulary)}
    reader = {"vocab_size": 8, "encoder_hidden_size": 16, "cross_attention_frequency": 1}
    config = Blip2Config(
        text_config={**NARROW, **ends, **opt},
        vision_config={**NARROW, **VISION},
        qformer_config={**NARROW, **reader},
        num_query_tokens=4,
        image_token_index=3,
    )
    # With small weights it would repeat its last word, which stands for the picture and is not written.
    seed_weights(Blip2ForConditionalGeneration(config), scale=0.5).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    size = {"height": 32, "width": 32}
    Blip2Processor(BlipImageProcessorPil(size=size), fast, num_query_tokens=4).save_pretrained(folder)


NARROW: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {"image_size": 32, "patch_size": 16, "projection_dim": 16}


def to_pickle(weights: Path) -> Path:
    """Turn a safetensors file to the pickle that old checkpoints have in its place."""
    from safetensors.torch import load_file

    pickle = weights.with_suffix(".bin")
    torch.save(load_file(weights), pickle)
    weights.unlink()
    return pickle


def to_shards(weights: Path) -> None:
    """Split a safetensors file in two, with an index."""
    from safetensors.torch import load_file, save_file

    tensors, placed = load_file(weights), {}
    names = sorted(tensors)
    for part, own in enumerate((names[::2], names[1::2]), 1):
        name = f"{weights.stem}-{part:05}-of-00002.safetensors"
        save_file({k: tensors[k] for k in own}, weights.with_name(name), {"format": "pt"})
        placed |= dict.fromkeys(own, name)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))
    weights.unlink()


def to_cache(folder: Path, cache: Path, repository: str, revision: str = "main") -> None:
    """Lay a checkpoint out as the hub's client leaves it after a download."""
    root = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(COMMIT)


MAKERS: dict[str, Callable[[Path], None]] = {
    "sd15": save_sd15,
    "sd21": save_sd21,
    "xl": save_xl,
    "sd3": save_sd3,
    "sd35": save_sd35,
    "pixart": save_pixart,
    "pixart-alpha": lambda folder: save_pixart(folder, use_additional_conditions=True, sample_size=128),
    "ic-light": save_ic_light,
    "tiny-vae": save_tiny_vae,
    "tiny-vae-16": lambda folder: save_tiny_vae(folder, 16),
    "ddpm": save_ddpm,
    "blip": save_blip,
    "blip2": save_blip2,
}


_HOME = tempfile.TemporaryDirectory(prefix="redepth-checkpoints-")


def tiny(name: str) -> Path:
    """Return the folder of a tiny checkpoint, made at its first use; a test that changes it copies it."""
    folder = Path(_HOME.name) / name
    if not folder.is_dir():
        from tests.support import flow_checkpoints

        (MAKERS | flow_checkpoints.MAKERS)[name](folder)
    return folder


def copy_of(name: str, to: Path) -> Path:
    """Return a copy of a tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny(name), to / name))
