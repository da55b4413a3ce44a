"""The base class of depth models that are not split into encoder and decoder: their output is refined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redepth.contracts import Features, Invariance, Predicts
from redepth.depth_models.backbone import OUTPUT_MAP
from redepth.ops import geometry


@dataclass(kw_only=True, eq=False)
class WholeModel:
    """A depth model of which only the output map can be refined; `encode` predicts it, `decode` returns it.

    Args:
        longer_side: longer side of the refined image, in pixels.
        antialias: whether photos are low-pass filtered when they are shrunk.
        scale: s of `ops.geometry.relative_depth`; ``auto`` takes it from each photo's prediction.
        margin: m of `ops.geometry.relative_depth`.
    """

    supports: ClassVar[frozenset[str]] = OUTPUT_MAP

    longer_side: Annotated[int, Field(ge=28, le=4096)] = 768
    antialias: bool = True
    scale: Annotated[float, Field(gt=1, le=1e6)] | Literal["auto"] = "auto"
    margin: Annotated[float, Field(ge=1e-6, le=3)] = 0.1

    predicts: Predicts = field(init=False, default="depth")
    invariance: Invariance = field(init=False, default="affine")

    def predict(self, image: Tensor) -> Tensor:
        """Return the raw output (B,1,H,W) for an image (B,3,H,W) sRGB [0,1]."""
        raise NotImplementedError

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) and keep its aspect ratio."""
        height, width = geometry.network_size(*photo.shape[-2:], target=self.longer_side, multiple=1)
        return geometry.resize(photo, height, width, antialias=self.antialias)

    @torch.no_grad()
    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Predict; the features are the output itself, as a constant."""
        raw = self.predict(image)
        height, width = raw.shape[-2:]
        return Features(maps=(), constants=(raw,), grid=(height, width))

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the output (B,1,H,W)."""
        return features.constants[0]

    def encoder_parameters(self) -> dict[str, Tensor]:
        """Return no parameters: only the output is refined."""
        return {}

    def decoder_parameters(self) -> dict[str, Tensor]:
        """Return no parameters: only the output is refined."""
        return {}

    def release_encoder(self) -> None:
        """Do nothing: there is no encoder."""

    def describe(self) -> dict[str, Any]:
        """Return nothing for the run record."""
        return {}
