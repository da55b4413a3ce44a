"""Repositories with the files, names, shards and variants of the real ones, and weights of a few channels.

Files that redepth does not need are there as well, by name, so that a test can check that they are not
downloaded. The listings are those of the hub's public pages.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.checkpoints import copy_of, to_shards
from tests.support.helpers import GOLDEN

DEPTH = "depth-anything/Depth-Anything-V2-Small-hf"
SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"
XL = "stabilityai/stable-diffusion-xl-base-1.0"
BLIP2 = "Salesforce/blip2-opt-2.7b"
DA3 = "depth-anything/DA3MONO-LARGE"
QWEN_EDIT = "Qwen/Qwen-Image-Edit"
PIXART = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
PIXART_512 = "PixArt-alpha/PixArt-Sigma-XL-2-512-MS"
PRX = "Photoroom/prxpixel-t2i"
MOGE = "Ruicheng/moge-2-vitl-normal"

_NOT_NEEDED = b"not needed"


PROCESSOR = {
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "DPTImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "keep_aspect_ratio": True,
    "resample": 3,
    "size": {"height": 518, "width": 518},
}
"""The preprocessing in the checkpoints of Depth Anything V2."""


def depth_anything(folder: Path) -> None:
    shutil.copytree(GOLDEN / "tiny-random-depth-anything", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    _add_needless(folder, ".gitattributes", "README.md")


def stable_diffusion(folder: Path) -> None:
    copy_of("sd15", folder.parent).rename(folder)
    _as_old_tokenizer(folder / "tokenizer")
    _with_variants(
        folder, ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
    )
    unet, encoder = "unet/diffusion_pytorch_model", "text_encoder/pytorch_model"
    _add_needless(
        folder,
        ".gitattributes",
        "README.md",
        "v1-inference.yaml",
        *(f"v1-5-pruned{kind}.{end}" for kind in ("", "-emaonly") for end in ("ckpt", "safetensors")),
        *(f"{unet}{kind}.bin" for kind in ("", ".fp16", ".non_ema")),
        f"{unet}.non_ema.safetensors",
        *(f"{name}{kind}.bin" for name in (encoder, "vae/diffusion_pytorch_model") for kind in ("", ".fp16")),
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        *(f"safety_checker/model{kind}.safetensors" for kind in ("", ".fp16")),
        *(f"safety_checker/pytorch_model{kind}.bin" for kind in ("", ".fp16")),
    )
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))


def stable_diffusion_xl(folder: Path) -> None:
    copy_of("xl", folder.parent).rename(folder)
    for number in ("", "_2"):
        _as_old_tokenizer(folder / f"tokenizer{number}")
    encoders = ("text_encoder", "text_encoder_2")
    parts = (
        *(f"{name}/model" for name in encoders),
        "unet/diffusion_pytorch_model",
        "vae/diffusion_pytorch_model",
    )
    _with_variants(folder, parts)
    shutil.copytree(folder / "vae", folder / "vae_1_0")
    foreign = [
        f"{name}/{file}" for name in (*encoders, "unet", "vae_decoder", "vae_encoder") for file in _ELSEWHERE
    ]
    _add_needless(
        folder,
        ".gitattributes",
        "01.png",
        "LICENSE.md",
        "README.md",
        "comparison.png",
        "pipeline.png",
        "sd_xl_base_1.0.safetensors",
        "sd_xl_base_1.0_0.9vae.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors",
        "text_encoder_2/model.onnx_data",
        "vae_decoder/config.json",
        "vae_encoder/config.json",
        *foreign,
        *(f"{name}/flax_model.msgpack" for name in encoders),
        *(f"{name}/diffusion_flax_model.msgpack" for name in ("unet", "vae")),
    )


_ELSEWHERE = ("model.onnx", "openvino_model.bin", "openvino_model.xml")


def blip2(folder: Path) -> None:
    copy_of("blip2", folder.parent).rename(folder)
    known = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(known.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(known))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text('{"<image>": 3}')
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>", "pad_token": "<pad>"}')
    to_shards(folder / "model.safetensors")
    pickles = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    _add_needless(folder, ".gitattributes", "README.md", "pytorch_model.bin.index.json", *pickles)


def depth_anything_3(folder: Path) -> None:
    from tests.support import tiny_depth_models as tiny

    tiny.save(tiny.da3(), folder)
    _add_needless(folder, ".gitattributes", "README.md")


def qwen_image_edit(folder: Path) -> None:
    """Transformer and text encoder in shards, no tokenizer.json, and a processor beside the tokenizer."""
    copy_of("qwen-image-edit", folder.parent).rename(folder)
    for weights in ("transformer/diffusion_pytorch_model", "text_encoder/model"):
        to_shards(folder / f"{weights}.safetensors")
    as_vocabulary(folder / "tokenizer")
    settings = json.loads((folder / "processor" / "preprocessor_config.json").read_text())
    settings |= {"image_processor_type": "Qwen2VLImageProcessorFast", "device": None, "crop_size": None}
    settings |= {"min_pixels": 3136, "max_pixels": 12845056, "disable_grouping": None, "return_tensors": None}
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = ("chat_template.jinja", "merges.txt", "tokenizer.json", "vocab.json")
    processor = (*processor, "tokenizer_config.json", "video_preprocessor_config.json")
    _add_needless(folder, ".gitattributes", "README.md", *(f"processor/{name}" for name in processor))


def pixart(folder: Path) -> None:
    """T5 in shards, its vocabulary as ``spiece.model`` alone."""
    copy_of("pixart", folder.parent).rename(folder)
    to_shards(folder / "text_encoder" / "model.safetensors")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"a vocabulary")
    _add_needless(folder, ".gitattributes", "README.md", "asset/4K_image.jpg")


def pixart_512(folder: Path) -> None:
    """A transformer alone."""
    whole = copy_of("pixart", folder.parent)
    folder.mkdir()
    (whole / "transformer").rename(folder / "transformer")
    shutil.rmtree(whole)
    _add_needless(folder, ".gitattributes", "README.md")


def prx_pixel(folder: Path) -> None:
    """A transformer in shards, no VAE."""
    copy_of("prx-pixel", folder.parent).rename(folder)
    to_shards(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    _add_needless(folder, ".gitattributes", "README.md")


def as_vocabulary(folder: Path) -> None:
    """Write a tokenizer as transformers 4 did: vocabulary and merges, the other tokens in its settings."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {str(token.pop("id")): token for token in whole["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def moge(folder: Path) -> None:
    from tests.support import tiny_depth_models as tiny

    tiny.save(tiny.moge(), folder)
    _add_needless(folder, ".gitattributes", "README.md")


MAKERS: dict[str, Callable[[Path], None]] = {
    DEPTH: depth_anything,
    SD: stable_diffusion,
    XL: stable_diffusion_xl,
    BLIP2: blip2,
    DA3: depth_anything_3,
    QWEN_EDIT: qwen_image_edit,
    PIXART: pixart,
    PIXART_512: pixart_512,
    PRX: prx_pixel,
    MOGE: moge,
}
PACKAGES = {DA3: "depth_anything_3", MOGE: "moge"}
"""The packages without which a repository cannot be made."""

DEPTH_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
DA3_FILES = {"config.json", "model.safetensors"}
MOGE_FILES = {"model.pt"}
BLIP2_FILES = {
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}
QWEN_EDIT_FILES = {
    "model_index.json",
    "processor/preprocessor_config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/added_tokens.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
TRANSFORMER_FILES = {"transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"}
PIXART_FILES = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/spiece.model",
    "tokenizer/tokenizer_config.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
PRX_FILES = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
}


def sd_files(variant: str = "", encoders: Iterable[str] = ("",)) -> set[str]:
    """Return the files that redepth needs of Stable Diffusion 1.5, or of SDXL with its two encoders."""
    files = {"model_index.json", "scheduler/scheduler_config.json"}
    files |= {f"{part}/config.json" for part in ("unet", "vae")}
    files |= {f"{part}/diffusion_pytorch_model{variant}.safetensors" for part in ("unet", "vae")}
    for number in encoders:
        tokenizer = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
        files |= {f"tokenizer{number}/{name}" for name in tokenizer}
        files |= {f"text_encoder{number}/{name}" for name in ("config.json", f"model{variant}.safetensors")}
    return files


def _add_needless(folder: Path, *names: str) -> None:
    """Add files that redepth must not download."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_NOT_NEEDED)


def _with_variants(folder: Path, parts: Iterable[str]) -> None:
    """Add the weights in half precision."""
    from safetensors.torch import load_file, save_file

    for part in parts:
        half = {k: v.half() for k, v in load_file(folder / f"{part}.safetensors").items()}
        save_file(half, folder / f"{part}.fp16.safetensors", {"format": "pt"})


def _as_old_tokenizer(folder: Path) -> None:
    """Write the vocabulary in two files, as Stable Diffusion's repositories have it."""
    model: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer.json").unlink()
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(ends | {"pad_token": "<|endoftext|>"}))
