"""Score priors: the plausibility of a picture as a loss whose gradient is a diffusion model's score."""

from __future__ import annotations

from redepth.registry import Registry

REGISTRY = Registry("prior", "redepth.priors", "redepth.contracts:Prior")
REGISTRY.add(
    "stable-diffusion",
    "redepth.priors.stable_diffusion:StableDiffusion",
    "latent, conditioned on a prompt: Stable Diffusion 1.x and 2.x; 1.5 is the paper's",
    licence="CreativeML OpenRAIL-M",
)
REGISTRY.add(
    "stable-diffusion-2.1",
    "redepth.priors.stable_diffusion:StableDiffusion21",
    "the same at 768 x 768 with Stable Diffusion 2.1, which predicts v",
    licence="CreativeML OpenRAIL++-M",
)
REGISTRY.add(
    "stable-diffusion-xl",
    "redepth.priors.stable_diffusion_xl:StableDiffusionXL",
    "latent, conditioned on a prompt through two text encoders, and on its size: SDXL",
    licence="CreativeML OpenRAIL++-M",
)
REGISTRY.add(
    "stable-diffusion-3",
    "redepth.priors.stable_diffusion_3:StableDiffusion3",
    "latent flow matching, conditioned on a prompt through two or three text encoders: SD 3",
    licence="Stability AI Community",
)
REGISTRY.add(
    "stable-diffusion-3.5",
    "redepth.priors.stable_diffusion_3:StableDiffusion35",
    "the same with Stable Diffusion 3.5 medium or large, three text encoders, bfloat16",
    licence="Stability AI Community",
)
REGISTRY.add(
    "flux2-klein",
    "redepth.priors.flux2_klein:Flux2Klein",
    "latent flow matching, conditioned on a prompt through a language model: FLUX.2 [klein] base",
    licence="Apache-2.0",
)
REGISTRY.add(
    "z-image",
    "redepth.priors.z_image:ZImage",
    "latent flow matching, conditioned on a prompt through a language model: Z-Image",
    licence="Apache-2.0",
)
REGISTRY.add(
    "qwen-image",
    "redepth.priors.qwen_image:QwenImage",
    "latent flow matching, conditioned on a prompt through a language model: Qwen-Image",
    licence="Apache-2.0",
)
REGISTRY.add(
    "qwen-image-edit",
    "redepth.priors.qwen_image_edit:QwenImageEdit",
    "the same, conditioned on the photo as well: Qwen-Image-Edit",
    licence="Apache-2.0",
)
REGISTRY.add(
    "pixart-sigma",
    "redepth.priors.pixart:PixArtSigma",
    "latent, conditioned on a prompt through T5: PixArt-Sigma, which predicts noise",
    licence="CreativeML OpenRAIL++-M",
)
REGISTRY.add(
    "prx-pixel",
    "redepth.priors.prx:PRXPixel",
    "flow matching of pixels without a VAE, conditioned on a prompt through a language model: PRXPixel",
    licence="Apache-2.0",
)
REGISTRY.add(
    "ic-light",
    "redepth.priors.ic_light:ICLight",
    "re-lighting, conditioned on the photo's latents and the light in words: IC-Light on SD 1.5",
    licence="none stated on its hub page; ask",
)
REGISTRY.add(
    "pixel-diffusion",
    "redepth.priors.pixel_diffusion:PixelDiffusion",
    "pixel space: UNet2DModel (DDPM), or a re-lighting UNet conditioned on the photo and the light",
    licence="Apache-2.0",
)

register = REGISTRY.register
