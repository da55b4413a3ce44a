"""Lotus: depth or disparity from a latent diffusion model that predicts the clean latent in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth.depth_models.one_step import Decoder, Encoder, OneStep
from redepth.errors import WeightsError, cut
from redepth.literals import MAX_SEED

TIMESTEP = 999

TASK = (1.0, 0.0)
"""The switch of the UNet to the dense prediction; (0, 1) would ask it for the picture itself."""


class _Encoder(Encoder):
    def __init__(self, vae: Any, unet: Any, text: Tensor, seed: int | None) -> None:
        super().__init__(vae, unet, text, TIMESTEP)
        self.seed = seed
        self._noise: Tensor | None = None
        task = torch.tensor([TASK], device=text.device)
        self.register_buffer("task", torch.cat([task.sin(), task.cos()], dim=-1), persistent=False)

    def predicted(self, latent: Tensor) -> Tensor:
        inputs = latent
        if self.seed is not None:
            inputs = torch.cat([latent, self._noise_for(latent, self.seed).expand_as(latent)], dim=1)
        return self.denoised(inputs, class_labels=self.get_buffer("task").expand(len(latent), -1))

    def _noise_for(self, latent: Tensor, seed: int) -> Tensor:
        """Return the noise of one picture, which a run draws once."""
        known = self._noise
        if known is None or known.shape[1:] != latent.shape[1:] or known.device != latent.device:
            generator = torch.Generator().manual_seed(seed)
            known = torch.randn(latent[:1].shape, generator=generator).to(latent)
            self._noise = known
        return known


class _Decoder(Decoder):
    def __init__(self, vae: Any, near: float) -> None:
        super().__init__(vae)
        self.near = near

    def map_of(self, picture: Tensor) -> Tensor:
        return ((picture + 1) / 2).clamp(0, 1).mean(dim=1, keepdim=True) + self.near


@dataclass(kw_only=True, eq=False)
class Lotus(OneStep):
    r"""Lotus G (generative) or D (discriminative): disparity or depth in [0, 1] up to scale and shift.

    With the latent x of the picture, the task s = (1, 0) and, for G, noise n,

    .. math:: z_0 = f_\theta(x, n, t = 999, [\sin s, \cos s])

    The UNet predicts the clean latent itself. The map is the mean of the three channels of the decoded z_0,
    each moved from [-1, 1] to [0, 1] and clipped. A UNet with 8 input channels is G, one with 4 is D. The
    authors draw x from the VAE's distribution; here it is the mean, so that nothing but n is random. The
    options are those of `OneStep`; ``near`` changes nothing in a disparity, where 0 is infinitely far.

    Args:
        output: what the checkpoint predicts; None: by its name, as the authors publish them.
        seed: of the noise of G.

    Source: He et al., arXiv 2409.18124, and their repository Lotus.
    """

    pads_prompt: ClassVar[bool] = True

    checkpoint: str = "jingheya/lotus-depth-g-v2-1-disparity"
    output: Literal["disparity", "depth"] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0

    def check_parts(self, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
        """Check that the UNet takes a task, and find out what it predicts. Raises WeightsError."""
        if unet.get("in_channels") not in (4, 8) or unet.get("class_embed_type") != "projection":
            found = cut(str(index.get("_class_name")))
            raise WeightsError(
                f"'{self.checkpoint}' is a '{found}' whose UNet takes no task, as those of Lotus do: choose "
                "another checkpoint"
            )
        name = Path(self.checkpoint).name.lower()
        if self.output is not None:
            self.predicts = self.output
        elif "disparity" in name:
            self.predicts = "disparity"
        elif name in ("lotus-depth-g-v1-0", "lotus-depth-d-v1-0"):
            self.predicts = "depth"
        else:
            raise WeightsError(
                f"'{self.checkpoint}': its name does not say what it predicts; set "
                "depth_model.output=disparity or depth"
            )

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the UNet and the VAE's decoder."""
        seed = self.seed if model["unet"].config.in_channels == 8 else None
        near = self.near if self.predicts == "depth" else 0.0
        return _Encoder(model["vae"], model["unet"], self._text, seed), _Decoder(model["vae"], near)
