"""From pictures to what a denoiser reads: one class per class of VAE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from redepth.errors import WeightsError, brief
from redepth.ops.constants import constant

VAE_SCALE = 8
"""Pixels along a side of a VAE's latent; the same in all these families."""


class LatentSpace:
    r"""The latents of `AutoencoderKL`: z = (x - shift) scale, x a sample of the posterior.

    Args:
        vae: a frozen VAE of the class `vae_class`.
        checkpoint: its name in messages.

    Raises:
        WeightsError: its configuration has no usable scale.
    """

    vae_class: ClassVar[str] = "AutoencoderKL"
    """The class of the VAE in diffusers."""
    patch: ClassVar[int] = 1
    """Latents along a side of a square whose channels the denoiser reads together."""

    def __init__(self, vae: Any, checkpoint: str) -> None:
        self.vae = vae
        self._check(vae.config, checkpoint)

    @property
    def vae_channels(self) -> int:
        """Channels of the posterior."""
        return int(self.vae.config.latent_channels)

    @property
    def channels(self) -> int:
        """Channels that the denoiser reads."""
        return self.vae_channels * self.patch**2

    def posterior_shape(self, size: int) -> tuple[int, int, int]:
        """Return (C, H, W) of the posterior of a square picture of ``size`` pixels."""
        side = size // VAE_SCALE
        return self.vae_channels, side, side

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return (C, H, W) of what the denoiser reads."""
        side = size // (VAE_SCALE * self.patch)
        return self.channels, side, side

    def encode(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """Return the latents of pictures (N,3,S,S) in [-1, 1], float32; without noise the posterior's mode.

        Args:
            pictures: in the VAE's dtype.
            noise: (N, *posterior_shape).
        """
        return self.normalised(self.sampled(pictures, noise))

    def sampled(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """Return a sample of the posterior, float32."""
        posterior = self.vae.encode(pictures).latent_dist
        latents = posterior.mean.float()
        return latents if noise is None else latents + posterior.std.float() * noise

    def normalised(self, latents: Tensor) -> Tensor:
        """Return a sample as the denoiser reads it."""
        config = self.vae.config
        return (latents - (config.get("shift_factor") or 0.0)) * config.scaling_factor

    def _check(self, config: Mapping[str, Any], checkpoint: str) -> None:
        scale, shift = config.get("scaling_factor"), config.get("shift_factor") or 0.0
        if not _finite([scale, shift]) or not scale:
            raise WeightsError(
                f"'{checkpoint}': its VAE's scaling_factor {brief(scale)} and shift_factor {brief(shift)} "
                "must be numbers, the first one not 0"
            )


class TinySpace(LatentSpace):
    """The latents of `AutoencoderTiny`, which has no posterior."""

    vae_class = "AutoencoderTiny"

    def sampled(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """Return the latents."""
        return self.vae.encode(pictures).latents.float()


class PatchedSpace(LatentSpace):
    r"""Latents with a mean and a standard deviation per channel, in patches of 2 x 2.

    .. math:: z = (x - \mu) / \sigma
    """

    patch = 2

    def normalised(self, latents: Tensor) -> Tensor:
        """Return normalised patches."""
        return self._standard(patches(latents, self.patch))

    def _standard(self, latents: Tensor) -> Tensor:
        mean, std = (constant(v, latents).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (latents - mean) / std

    def _check(self, config: Mapping[str, Any], checkpoint: str) -> None:
        mean, std = self._statistics(config)
        if not (_finite(mean) and _finite(std) and all(v > 0 for v in std) and len(mean) == len(std)):
            raise WeightsError(
                f"'{checkpoint}': the means and standard deviations of its VAE's latents must be finite, the "
                "latter above 0"
            )
        self.mean, self.std = tuple(mean), tuple(std)

    def _statistics(self, config: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
        """Return mean and standard deviation of each channel that the denoiser reads."""
        raise NotImplementedError


class BatchNormSpace(PatchedSpace):
    """The latents of `AutoencoderKLFlux2`: statistics of a batch normalisation, per place in the patch."""

    vae_class = "AutoencoderKLFlux2"

    def _statistics(self, config: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
        norm = self.vae.bn
        variance = norm.running_var.double() + config["batch_norm_eps"]
        return norm.running_mean.tolist(), variance.sqrt().tolist()


class FrameSpace(PatchedSpace):
    """The latents of `AutoencoderKLQwenImage`, a VAE of videos: a picture is a video of one frame."""

    vae_class = "AutoencoderKLQwenImage"

    @property
    def vae_channels(self) -> int:
        """Channels of the posterior."""
        return int(self.vae.config.z_dim)

    def sampled(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """Return a sample of the posterior of the only frame."""
        frames = None if noise is None else noise[:, :, None]
        return super().sampled(pictures[:, :, None], frames)[:, :, 0]

    def _statistics(self, config: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
        many = self.patch**2
        mean, std = config.get("latents_mean") or [], config.get("latents_std") or []
        if len(mean) != self.vae_channels:
            return [math.nan], [math.nan]
        return [v for v in mean for _ in range(many)], [v for v in std for _ in range(many)]


def patches(latents: Tensor, side: int) -> Tensor:
    """Return (N,C,H,W) as (N, C side^2, H/side, W/side), a channel's patch in the order of its rows."""
    return torch.nn.functional.pixel_unshuffle(latents, side)


def _finite(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)
