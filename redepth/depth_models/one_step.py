"""Latent diffusion models that predict depth in one step: a UNet encodes, the decoder of a VAE decodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth import checkpoints
from redepth.checkpoints.marigold import FILES
from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import Backbone, Preprocessing, Rule
from redepth.errors import WeightsError, brief, cut


class Encoder(nn.Module):
    """From pixels to the latent of the prediction; a subclass says how the UNet is called.

    Args:
        vae: ``AutoencoderKL``; its mean is the latent of the picture.
        unet: ``UNet2DConditionModel``.
        text: (1, n, c) embedding of the empty prompt.
        timestep: at which the UNet is called.
    """

    def __init__(self, vae: Any, unet: Any, text: Tensor, timestep: int) -> None:
        super().__init__()
        self.vae_encoder, self.quant = vae.encoder, vae.quant_conv
        self.unet = unet
        self.scaling = float(vae.config.scaling_factor)
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("timestep", torch.tensor(timestep, device=text.device), persistent=False)

    def predicted(self, latent: Tensor) -> Tensor:
        """Return the latent of the prediction for that of the picture, both (B,4,h,w) and scaled."""
        raise NotImplementedError

    def denoised(self, inputs: Tensor, **options: Any) -> Tensor:
        """Call the UNet."""
        text = self.get_buffer("text").expand(len(inputs), -1, -1)
        output: Tensor = self.unet(
            inputs, self.get_buffer("timestep"), encoder_hidden_states=text, return_dict=False, **options
        )[0]
        return output

    def forward(self, pixels: Tensor) -> Features:
        """Encode pixels (B,3,H,W) in [-1, 1]."""
        moments = self.vae_encoder(pixels)
        if self.quant is not None:
            moments = self.quant(moments)
        latent = self.predicted(self.scaling * moments.chunk(2, dim=1)[0])
        height, width = latent.shape[-2:]
        return Features(maps=(latent,), constants=(), grid=(height, width))


class Decoder(nn.Module):
    """From a latent to a picture (B,3,H,W), about in [-1, 1]; `map_of` makes the raw output of it."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant, self.vae_decoder = vae.post_quant_conv, vae.decoder
        self.scaling = float(vae.config.scaling_factor)

    def map_of(self, picture: Tensor) -> Tensor:
        """Return the raw output (B,1,H,W) >= 0 of the decoded picture."""
        raise NotImplementedError

    def forward(self, features: Features) -> Tensor:
        """Decode the latent."""
        latent = features.maps[0] / self.scaling
        if self.post_quant is not None:
            latent = self.post_quant(latent)
        return self.map_of(self.vae_decoder(latent))


@dataclass(kw_only=True, eq=False)
class OneStep(Backbone):
    """A diffusers folder with UNet, VAE and text encoder, whose UNet predicts the depth's latent in one call.

    The encoder of `Backbone` is the VAE's encoder with the UNet, and the embedding is the latent of the
    prediction, (B,4,H/8,W/8). The decoder is that of the VAE. The text encoder reads the empty prompt and is
    not kept.

    Args:
        near: is added to depth, whose shift is unknown: without it the nearest point would have depth 0. It
            changes nothing where a disparity is predicted.
    """

    optional_files: ClassVar[tuple[str, ...]] = ()
    pads_prompt: ClassVar[bool] = False
    """Whether the empty prompt is filled up to the length of the text encoder's inputs."""

    # `contracts.Adaptable` needs a checkpoint of one file of weights; None says that the class is not one.
    save_checkpoint = None  # type: ignore[assignment]

    longer_side: Annotated[int, Field(ge=64, le=4096)] = 768
    resize_rule: Rule = "upper_bound"
    near: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1

    predicts: Predicts = field(init=False, default="depth")
    preprocessing: Preprocessing = field(
        init=False, default=Preprocessing((0.5,) * 3, (0.5,) * 3, (768, 768), 8, "upper_bound")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._text = torch.zeros(1, 1, 1)
        self._schedule: dict[str, Any] = {}

    def check_parts(self, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
        """Check ``model_index.json`` and the UNet's ``config.json``. Raises WeightsError."""
        raise NotImplementedError

    def _locate(self) -> checkpoints.Source:
        return checkpoints.locate(self.checkpoint, self.revision, FILES)

    def _load(self, device: torch.device) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        source = self._locate()
        self.check_parts(source.json("model_index.json"), source.json("unet/config.json"))
        self._schedule = source.json("scheduler/scheduler_config.json")
        self._text = self._empty_prompt(source).to(device)
        parts = nn.ModuleDict(
            {
                "unet": source.model(UNet2DConditionModel, "unet", torch_dtype=torch.float32),
                "vae": source.model(AutoencoderKL, "vae", torch_dtype=torch.float32),
            }
        )
        self._commit = source.commit
        self.use(parts.eval().requires_grad_(False).to(device), device)

    def _empty_prompt(self, source: checkpoints.Source) -> Tensor:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = source.load(CLIPTokenizer, "tokenizer")
        encoder = source.model(CLIPTextModel, "text_encoder", dtype=torch.float32).eval()
        padding = "max_length" if self.pads_prompt else "do_not_pad"
        tokens = tokenizer(
            "", padding=padding, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            text: Tensor = encoder(tokens)[0]
        return text


class _E2EEncoder(Encoder):
    def __init__(self, vae: Any, unet: Any, text: Tensor, scheduler: Any) -> None:
        scheduler.set_timesteps(1)
        self._last = int(scheduler.timesteps[0])
        self._scheduler = scheduler
        super().__init__(vae, unet, text, self._last)

    def predicted(self, latent: Tensor) -> Tensor:
        start = torch.zeros_like(latent)
        output = self.denoised(torch.cat([latent, start], dim=1))
        clean: Tensor = self._scheduler.step(output, self._last, start).pred_original_sample
        return clean


class _E2EDecoder(Decoder):
    def __init__(self, vae: Any, near: float) -> None:
        super().__init__(vae)
        self.near = near

    def map_of(self, picture: Tensor) -> Tensor:
        return (picture.mean(dim=1, keepdim=True).clamp(-1, 1) + 1) / 2 + self.near


@dataclass(kw_only=True, eq=False)
class E2EFT(OneStep):
    r"""Marigold, fine-tuned end to end for one step: depth in [0, 1] up to scale and shift.

    With the latent x of the picture, the last timestep T and zeros in place of noise,

    .. math:: z_0 = \sqrt{\bar\alpha_T} \cdot 0 - \sqrt{1 - \bar\alpha_T} \, v_\theta(x, 0, T)

    for a UNet that predicts v, and the depth is the mean of the three channels of the decoded z_0, clipped to
    [-1, 1] and moved to [0, 1]. Nothing is random. The options are those of `OneStep`.

    Source: Martin Garcia et al., arXiv 2409.11355, and their repository diffusion-e2e-ft.
    """

    checkpoint: str = "GonzaloMG/marigold-e2e-ft-depth"

    def check_parts(self, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
        """Check that the UNet takes two latents and no task, and one step is enough. Raises WeightsError."""
        if unet.get("in_channels") != 8 or unet.get("class_embed_type") is not None:
            found = cut(str(index.get("_class_name")))
            raise WeightsError(
                f"'{self.checkpoint}' is a '{found}' whose UNet is not Marigold's (8 input channels): choose "
                "another checkpoint"
            )
        if "normal" in Path(self.checkpoint).name.lower():
            raise WeightsError(f"'{self.checkpoint}' predicts normals: choose a checkpoint for depth")
        # The published checkpoint does not say; the UNet of an ordinary Marigold is the same.
        steps = index.get("default_denoising_steps")
        if isinstance(steps, int) and steps > 1:
            raise WeightsError(
                f"'{self.checkpoint}' asks for {brief(steps)} steps, so it is not fine-tuned for one: choose "
                "depth_model.name=marigold; if it is, set default_denoising_steps=1 in its model_index.json"
            )

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the UNet and the VAE's decoder."""
        from diffusers import DDIMScheduler

        # The last timestep of the schedule, and not the first of a leading spacing.
        scheduler = DDIMScheduler.from_config(self._schedule, timestep_spacing="trailing")
        encoder = _E2EEncoder(model["vae"], model["unet"], self._text, scheduler)
        return encoder, _E2EDecoder(model["vae"], self.near)
