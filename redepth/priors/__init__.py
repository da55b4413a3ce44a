"""Score priors: how plausible a picture is, as a loss whose gradient is a diffusion model's score."""

from __future__ import annotations

from redepth.contracts import Prior
from redepth.registry import Registry

REGISTRY = Registry("prior", "redepth.priors", Prior)
REGISTRY.add(
    "stable-diffusion",
    "redepth.priors.stable_diffusion:StableDiffusion",
    "latent, text-conditioned: Stable Diffusion 1.x/2.x class checkpoints (diffusers)",
)
REGISTRY.add(
    "pixel-diffusion",
    "redepth.priors.pixel_diffusion:PixelDiffusion",
    "pixel space: UNet2DModel, or a re-lighting UNet told the photo and the light (diffusers)",
)

register = REGISTRY.register
