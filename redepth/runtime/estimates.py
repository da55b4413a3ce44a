"""A diffusion pipeline that makes one estimate of a photo, and is on the device only meanwhile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from redepth.runtime.device import free_cached


def estimate_once(
    pipeline: Any, photo: Tensor, device: torch.device, *, seed: int, steps: int | None, ensemble: int
) -> Tensor:
    """Return the prediction of one of Marigold's pipelines, at the size of the estimate, on the device.

    Args:
        pipeline: of diffusers, in float32, on the CPU; it is there again afterwards.
        photo: (1, 3, H, W) sRGB in [0, 1], any size; the pipeline resizes it to that of its training.
        device: where it is computed.
        seed: of the noise; the same one gives the same prediction.
        steps: number of diffusion steps; None is the checkpoint's.
        ensemble: number of predictions that are merged.
    """
    pipeline.to(device)
    try:
        prediction: Tensor = pipeline(
            photo.to(device, torch.float32),
            num_inference_steps=steps,
            ensemble_size=ensemble,
            match_input_resolution=False,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).prediction
    finally:
        pipeline.to("cpu")
        free_cached(device)
    return prediction
