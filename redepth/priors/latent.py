"""The base class of the latent, text-conditioned priors: the VAE, and the way into the latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from redepth import checkpoints
from redepth.contracts import Noise
from redepth.errors import WeightsError
from redepth.priors.latent_spaces import LatentSpace, TinySpace
from redepth.priors.pictures import fit_square, scale_gradient
from redepth.priors.text_diffusion import TextDiffusion, frozen
from redepth.runtime.fusion import set_attention
from redepth.runtime.networks import execute

VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


@dataclass(kw_only=True, eq=False)
class LatentDiffusion(TextDiffusion):
    """A latent diffusion model of diffusers that is conditioned on a text.

    The picture is scaled to fit ``size`` x ``size`` (bilinear, corners aligned), padded with 0 to the
    square, mapped to [-1, 1], and encoded by the VAE: a sample of the posterior, shifted and scaled as in the
    model's training. The tiny VAE (`AutoencoderTiny`) has no posterior; its latents are used directly. The
    same numbers are drawn for both, so that a seed gives the same noise.

    Args:
        vae: encoder of the pictures: the pipeline's ``own``, or a ``tiny`` one, about nine times cheaper.
        vae_checkpoint: hub id or local folder of another VAE of that kind; by default the pipeline's own,
            or the family's tiny one.
        vae_revision: commit, tag or branch of the other VAE's repository.

    The other options are those of `text_diffusion.TextDiffusion`.
    """

    vae: Literal["own", "tiny"] = "own"
    vae_checkpoint: str | None = None
    vae_revision: str | None = None

    tiny_vae: ClassVar[str]
    """Hub id of the family's `AutoencoderTiny`."""
    space: ClassVar[type[LatentSpace]] = LatentSpace
    """The kind of latents of the family's own VAE."""

    # --- loading ------------------------------------------------------------------------------

    def files(self) -> list[str]:
        """Return the names of the checkpoint's files."""
        own = [] if self._other_vae() else [f"vae/{name}" for name in VAE_FILES]
        return [*super().files(), *own]

    def _locate(self) -> tuple[checkpoints.Source, ...]:
        """Return the sources of the checkpoint and of the VAE."""
        sources = super()._locate()
        if (other := self._other_vae()) is None:
            return (*sources, sources[0])
        offline = self.local_files_only
        vae = checkpoints.locate(other, self.vae_revision, VAE_FILES, local_files_only=offline)
        return (*sources, vae)

    @property
    def _vae_source(self) -> checkpoints.Source:
        return self._sources[1]

    def _other_vae(self) -> str | None:
        return self.vae_checkpoint or (self.tiny_vae if self.vae == "tiny" else None)

    def load_encoder(self, device: torch.device) -> None:
        """Load the VAE."""
        import diffusers

        space = TinySpace if self.vae == "tiny" else self.space
        cls = getattr(diffusers, space.vae_class)
        own = self._vae_source is self._source
        vae = self._model(cls, "vae") if own else self._vae_source.model(cls, None)
        self._space = space(vae, self.checkpoint)
        self._vae_dtype = self.vae_precision(vae.config)
        # The score needs the VAE's encoder alone; some count the decoder's layers.
        vae.decoder = torch.nn.Identity()
        self._vae = frozen(vae, device, self._vae_dtype)

    def vae_precision(self, config: Mapping[str, Any]) -> torch.dtype:
        """Return the dtype that the VAE runs in."""
        return self._dtype

    def denoiser_channels(self) -> int:
        """Return how many channels of its input are the noisy latents."""
        return int(self._denoiser.config.in_channels)

    def check_denoiser(self) -> None:
        """Raise WeightsError unless denoiser and VAE have as many channels."""
        reads, makes = self.denoiser_channels(), self._space.channels
        if reads != makes:
            raise WeightsError(
                f"'{self.checkpoint}': its denoiser reads {reads} channels and the VAE makes {makes}: take a "
                f"text-to-image checkpoint of {self.family}, and a VAE made for it"
            )

    # --- each step ----------------------------------------------------------------------------

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw the posterior's and the diffusion's noise, (batch, C, H, W) of `LatentSpace`."""
        shapes = {"posterior": self._space.posterior_shape(self.size), "noise": self._space.shape(self.size)}
        return {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}

    def set_up(self) -> None:
        """Set up denoiser and VAE encoder. Gradients pass the encoder, so it cannot be a CUDA graph."""
        super().set_up()
        how = self.execution()
        set_attention(self._vae.encoder, how.explicit_attention)
        if any(weights.dim() == 5 for weights in self._vae.encoder.parameters()):
            # The layout is one of pictures, not of videos.
            how = replace(how, channels_last=False)
        execute(self._vae.encoder, how)
        if not self._vae._supports_gradient_checkpointing:
            return
        if self._how.checkpointing:
            self._vae.enable_gradient_checkpointing()
        else:
            self._vae.disable_gradient_checkpointing()

    def cast(self) -> None:
        """Take denoiser and VAE to float32."""
        super().cast()
        self._vae.float()
        self._vae_dtype = torch.float32

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Fit, pad and encode (N,3,H,W) sRGB to latents (N,C,H,W) of `LatentSpace`, float32."""
        # In half precision the gradient of a mean over the latents underflows inside the VAE, so it passes
        # through it multiplied by their number, and is divided again on the way out.
        scaled = self._vae_dtype == torch.float16 and self.reduction == "mean"
        factor = float(noise["noise"][0].numel()) if scaled else 1.0
        latents = self.encode(scale_gradient(relit, 1.0 / factor), noise["posterior"])
        return scale_gradient(latents, factor)

    def encode(self, pictures: Tensor, posterior_noise: Tensor | None) -> Tensor:
        """Fit, pad and encode pictures; without noise to the posterior's mode."""
        square = fit_square(pictures, self.size) * 2 - 1
        return self._space.encode(square.to(self._vae_dtype), posterior_noise)

    def describe(self) -> dict[str, Any]:
        """Return also the VAE and its source."""
        found = {**super().describe(), "vae": self.vae}
        if self._vae_source is not self._source:
            found |= {f"vae_{name}": value for name, value in self._vae_source.describe().items()}
        return found
