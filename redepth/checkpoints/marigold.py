"""Marigold's pipelines of diffusers."""

from __future__ import annotations

from typing import Any

import torch

from redepth.checkpoints.guard import one_line
from redepth.checkpoints.lookup import locate
from redepth.errors import WeightsError

FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
"""The files of a pipeline's repository that are loaded."""


def load_marigold(
    checkpoint: str, revision: str | None, class_name: str, advice: str = "choose another checkpoint"
) -> tuple[Any, str | None]:
    """Load one of Marigold's pipelines on the CPU, in float32, without gradients and progress bars.

    Args:
        checkpoint: hub id or local folder.
        revision: commit, tag or branch of the hub repository.
        class_name: of the pipeline in diffusers.
        advice: what to do where the checkpoint is of another class.

    Returns:
        The pipeline, and the commit of the repository if it is from the hub.

    Raises:
        WeightsError: missing, unreachable, corrupted or of another class.
    """
    with one_line(checkpoint):
        source = locate(checkpoint, revision, FILES)
        found = source.json("model_index.json").get("_class_name")
        if found != class_name:
            raise WeightsError(f"'{checkpoint}' is a '{found}', not a {class_name}: {advice}")
        import diffusers

        pipeline = source.load(getattr(diffusers, class_name), None, use_safetensors=True)
    freeze(pipeline)
    return pipeline, source.commit


def freeze(pipeline: Any) -> None:
    """Make a pipeline float32, without gradients and without progress bars."""
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        if part.dtype != torch.float32:  # diffusers warns of every cast
            part.to(torch.float32)
        part.eval().requires_grad_(False)
