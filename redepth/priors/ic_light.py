"""IC-Light as the prior: Stable Diffusion 1.5, conditioned on the photo's latents and the light in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth import checkpoints
from redepth.contracts import Condition
from redepth.errors import WeightsError
from redepth.literals import RENAMED_OPTIONS
from redepth.priors import quantize
from redepth.priors.distillation import StepInputs
from redepth.priors.light import light_direction
from redepth.priors.scores import Branch, GuidanceBase
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.text import TextEmbeddings

LIGHTS = ("from the front", "from the left", "from the right", "from the top", "from the bottom")
"""Sides that the light comes from, seen from the camera, in the order of `light_index`."""

FRONTAL = math.radians(20)
"""Lights within this angle of the viewing direction are called frontal."""

RELIT = frozenset({"text", "artefacts"})
"""Branches of the re-lit picture, which is conditioned on its light; ``source`` is of the photo."""


@dataclass(kw_only=True, eq=False)
class ICLight(StableDiffusion):
    """A re-lighting prior: an SD 1.5 UNet whose first convolution also reads the photo's latents.

    The published weights are offsets, to be added to the weights of an SD 1.5 UNet (in float32, before it
    is cast) whose first convolution was extended from 4 to 8 channels with zeros. The photo, fitted and
    padded like the re-lit picture, is encoded to the posterior's mode. Every branch, also the unconditional
    one, has these latents beside the noisy ones, as in the published inference; the model's behaviour without
    a photo is not known. So guidance and the contrast of ``csd`` are between texts, and thereby lights.

    Args:
        light_checkpoint: hub id or local folder of the offsets.
        light_file: name of the file of the offsets, of the form with text and foreground (``fc``, ``fcon``).
        light_revision: commit, tag or branch of the offsets' repository.
        condition_on: ``photo+light`` appends to the prompt where the light comes from (``light from the
            left``, the nearest of `LIGHTS`); ``photo`` leaves it out.

    The other options are those of `latent.LatentDiffusion`; guidance is that of the published inference.

    Source: Zhang, Rao and Agrawala, "Scaling In-the-Wild Training for Diffusion-based Illumination
    Harmonization and Editing by Imposing Consistent Light Transport", ICLR 2025;
    https://github.com/lllyasviel/IC-Light.
    """

    guidance_scale: Annotated[float, Field(ge=0, le=10_000)] = 2.0
    guidance_base: GuidanceBase = "uncond"
    light_checkpoint: str = "lllyasviel/ic-light"
    light_file: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")] = "iclight_sd15_fc.safetensors"
    light_revision: str | None = None
    condition_on: Literal["photo+light", "photo"] = "photo+light"

    renamed_options: ClassVar[Mapping[str, str]] = RENAMED_OPTIONS["prior"]
    changes: ClassVar[Mapping[str, Any]] = MappingProxyType({"in_channels": 8})

    def __post_init__(self) -> None:
        super().__post_init__()
        if quantize.by_library(self.quantize):
            raise ValueError(
                f"quantize: {self.quantize} quantises weights while they are read, and the offsets are added "
                "later: take fp8-storage or none"
            )

    def _locate(self) -> tuple[checkpoints.Source, ...]:
        sources = super()._locate()
        self._light = checkpoints.Source(self.light_checkpoint, self.light_revision)
        if self.weights == "trained":
            offline, files = self.local_files_only, (self.light_file,)
            self._light = checkpoints.locate(
                self.light_checkpoint, self.light_revision, files, local_files_only=offline
            )
        return sources

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the extended UNet with its offsets added, on the CPU, in float32."""
        unet = super().load_denoiser(cls, torch.float32)
        if self.weights == "random":
            return unet
        self._add(_extended(unet), self._light.tensors(self.light_file))
        return unet

    def _add(self, unet: nn.Module, offsets: dict[str, Tensor]) -> None:
        weights = unet.state_dict()
        misshapen = {k for k in weights if k in offsets and weights[k].shape != offsets[k].shape}
        if differing := sorted(weights.keys() ^ offsets.keys() | misshapen):
            raise WeightsError(
                f"'{self.light_checkpoint}/{self.light_file}': {len(differing)} of its offsets do not fit "
                f"the UNet of '{self.checkpoint}', such as {differing[0]}: take the offsets of form fc or "
                "fcon, and an SD 1.5 checkpoint"
            )
        unet.load_state_dict({name: weights[name] + offsets[name].float() for name in weights})

    def denoiser_channels(self) -> int:
        """Return the channels of the noisy latents; as many are the photo's."""
        return int(self._denoiser.config.in_channels) // 2

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Embed the prompts under every light, and encode the photo."""
        tensors = dict(super().condition(image, prompt).tensors)
        with torch.no_grad():
            tensors["photo.latents"] = self.encode(image, None)
        return Condition(tensors)

    def texts(self, prompt: str) -> dict[Branch, tuple[str, ...]]:
        """Return the texts of each branch: one per light if the prior is conditioned on the light."""

        def with_lights(branch: Branch, text: str) -> tuple[str, ...]:
            if branch not in RELIT or self.condition_on == "photo":
                return (text,)
            return tuple(f"{text}, light {light}" if text else f"light {light}" for light in LIGHTS)

        return {branch: with_lights(branch, text) for branch, text in self.prompts(prompt).items()}

    def branch_embeddings(self, branch: Branch, inputs: StepInputs, rows: int) -> TextEmbeddings:
        """Return the embedding of each row's light."""
        texts = inputs.condition.tensors[branch]
        if len(texts) == 1:
            return super().branch_embeddings(branch, inputs, rows)
        return {"embedding": texts[light_index(light_direction(inputs.illumination))]}

    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the UNet with the photo's latents beside the noisy ones."""
        photo = inputs.condition.tensors["photo.latents"].to(noisy.dtype)
        beside = torch.cat([noisy, photo.expand(len(noisy), -1, -1, -1)], dim=1)
        return super().denoise(beside, timestep, texts, inputs)

    def describe(self) -> dict[str, Any]:
        """Return also the source of the offsets."""
        light = {f"light_{name}": value for name, value in self._light.describe().items()}
        return super().describe() | light | {"light_file": self.light_file, "condition_on": self.condition_on}


def light_index(direction: Tensor) -> Tensor:
    """Return the index in `LIGHTS` nearest to unit vectors (N, 3) towards the light, (N,)."""
    right, up, towards = direction.unbind(dim=1)
    sideways = torch.where(right > 0, 2, 1)
    upright = torch.where(up > 0, 3, 4)
    nearest = torch.where(right.abs() >= up.abs(), sideways, upright)
    return torch.where(towards > math.cos(FRONTAL), 0, nearest)


def _extended(unet: Any) -> Any:
    """Let the first convolution read twice the channels, the new ones with zero weights."""
    old = unet.conv_in
    shape = (2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    # Without an initialisation, which would draw from the global generator.
    wide = nn.utils.skip_init(nn.Conv2d, *shape)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : old.in_channels] = old.weight
        wide.bias.copy_(old.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=wide.in_channels)
    return unet
