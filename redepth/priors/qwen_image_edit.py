"""Qwen-Image-Edit as the prior: Qwen-Image, conditioned on the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redepth.contracts import Condition
from redepth.priors import cache
from redepth.priors.distillation import StepInputs
from redepth.priors.pictures import fit_square
from redepth.priors.qwen_image import QwenImage
from redepth.priors.scores import GuidanceBase
from redepth.priors.text import Inputs, TextEmbeddings


@dataclass(kw_only=True, eq=False)
class QwenImageEdit(QwenImage):
    """Qwen-Image-Edit checkpoints through diffusers: the transformer and the language model see the photo.

    The photo, fitted and padded like the re-lit picture, is encoded to the posterior's mode; its latents are
    further tokens of the transformer, in every branch. Qwen2.5-VL sees the same square in 8 bit and is asked
    how the prompt would change it; the hidden states of the system's 64 tokens are left out. So guidance is
    between texts. Its scale is that of the published inference.

    The language model's tokens of the photo have positions by row and column (M-RoPE), as in transformers 4,
    with which the model was published. diffusers 0.42 with transformers 5 gives them positions of a text
    (https://github.com/huggingface/diffusers/issues/14194).

    The other options are those of `latent.LatentDiffusion`.

    Source: Wu et al., arXiv 2508.02324, section 4.
    """

    checkpoint: str = "Qwen/Qwen-Image-Edit"
    size: Annotated[int, Field(ge=64, le=1536, multiple_of=16)] = 1024
    guidance_scale: Annotated[float, Field(ge=0, le=10_000)] = 4.0
    guidance_base: GuidanceBase = "uncond"

    family: ClassVar[str] = "qwen-image-edit"
    more_files: ClassVar[tuple[str, ...]] = ("processor/preprocessor_config.json",)
    system: ClassVar[str] = (
        "Describe the key features of the input image (color, shape, size, texture, objects, background), "
        "then explain how the user's text instruction should alter or modify the image. Generate a new image "
        "that meets the user's requirements while maintaining consistency with the original input where "
        "appropriate."
    )
    seen: ClassVar[str] = "<|vision_start|><|image_pad|><|vision_end|>"
    system_tokens: ClassVar[int] = 64

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Embed the prompts with the photo, and encode the photo."""
        square = (fit_square(image, self.size)[0] * 255).round().clamp(0, 255)
        self._shown = square.to("cpu", torch.uint8).permute(1, 2, 0).contiguous()
        tensors = dict(super().condition(image, prompt).tensors)
        with torch.no_grad():
            tensors["photo.latents"] = self.encode(image, None)
        return Condition(tensors)

    def text_origin(self) -> tuple[str, ...]:
        """Return everything that an embedding depends on except its text: also the photo."""
        photo = cache.digest(self._shown.numpy().tobytes())
        return (*super().text_origin(), self._source.identity(self.more_files), str(self.size), photo)

    def embed_text(self, text: str) -> TextEmbeddings:
        """Embed a text that is about the photo."""
        processor = self._source.load(_processor_class(), "processor")
        seen = processor(images=self._shown.numpy(), input_data_format="channels_last", return_tensors="pt")

        def with_photo(inputs: Inputs, config: Any) -> Inputs:
            merged = int(processor.merge_size)
            return inputs | photo_inputs(inputs, seen, config.image_token_id, merged)

        return self.embed(self.text_encoders().read(text, self._device, with_photo))

    def pictures(self, noisy: Tensor, inputs: StepInputs) -> list[Tensor]:
        """Return the noisy latents and those of the photo."""
        photo = inputs.condition.tensors["photo.latents"].to(noisy.dtype)
        return [noisy, photo.expand_as(noisy)]


def photo_inputs(inputs: Inputs, seen: Mapping[str, Tensor], token: int, merged: int) -> Inputs:
    """Return the inputs of Qwen2.5-VL for a text with one token that stands for a photo.

    The token is repeated for each square of ``merged`` x ``merged`` patches. Positions are (3, 1, tokens):
    time, row and column. Those of a text are equal and count on; those of the photo start where the text
    before it ends, and the text after it starts behind the largest of them.

    Args:
        inputs: of the text.
        seen: ``pixel_values`` and ``image_grid_thw`` of the photo, the latter in patches.
        token: the one that stands for the photo.
        merged: patches along a side of a token.
    """
    ids = inputs["input_ids"][0]
    at = int((ids == token).nonzero()[0])
    rows, columns = (int(count) // merged for count in seen["image_grid_thw"][0, 1:])
    many = rows * columns
    ids = torch.cat([ids[:at], ids[at : at + 1].expand(many), ids[at + 1 :]])
    photo = (
        torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), torch.arange(rows), torch.arange(columns))
        + at
    )
    after = torch.arange(len(ids) - at - many) + at + max(rows, columns)
    positions = torch.cat([torch.arange(at).expand(3, -1), photo.T, after.expand(3, -1)], dim=1)
    return {
        "input_ids": ids[None],
        "attention_mask": torch.ones_like(ids)[None],
        "position_ids": positions[:, None],
        "pixel_values": seen["pixel_values"],
        "image_grid_thw": seen["image_grid_thw"],
    }


def _processor_class() -> Any:
    """Return the class that needs no torchvision; its name depends on the version of transformers."""
    import transformers

    found = getattr(transformers, "Qwen2VLImageProcessorPil", None)
    return found or transformers.Qwen2VLImageProcessor
