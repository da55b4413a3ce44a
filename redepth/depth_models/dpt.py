"""DPT, the networks of MiDaS 3.x, through transformers: ViT, ResNet + ViT, BEiT or Swin V2 encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from redepth.contracts import Features
from redepth.depth_models.backbone import (
    Backbone,
    NeckAndHead,
    Preprocessing,
    with_class_token,
    without_class_token,
)
from redepth.errors import WeightsError

MIDAS_ENCODERS = ("beit", "swinv2")


class _Encoder(nn.Module):
    """A backbone of transformers, which returns tokens or feature maps."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Features:
        patch = self.backbone.config.patch_size
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        return without_class_token(self.backbone(pixels).feature_maps, grid)


class _ViTEncoder(nn.Module):
    """DPT's own ViT; in the hybrid its first two states come from the ResNet in front of it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vit = model.dpt
        self.hybrid = bool(model.config.is_hybrid)
        self.patch = int(model.config.patch_size)
        self.layers = tuple(model.config.backbone_out_indices)

    def forward(self, pixels: Tensor) -> Features:
        height, width = pixels.shape[-2:]
        if self.hybrid:
            # The ViT resizes its position embeddings to any input, but checks for the configured size.
            self.vit.embeddings.image_size = (height, width)
        outputs = self.vit(pixels, output_hidden_states=True)
        hidden = outputs.hidden_states[1:]
        states = [hidden[i] for i in (self.layers[2:] if self.hybrid else self.layers)]
        if self.hybrid:
            states = [*outputs.intermediate_activations, *states]
        return without_class_token(states, (height // self.patch, width // self.patch))


class _Decoder(NeckAndHead):
    def forward(self, features: Features) -> Tensor:
        return self.head(self.neck(with_class_token(features), *features.grid))[:, None]


@dataclass(kw_only=True, eq=False)
class DPT(Backbone):
    """DPT of MiDaS 3.0 and 3.1: affine-invariant disparity.

    The published checkpoints resize every photo to a square; `resize_rule` ``minimal`` keeps the photo's
    aspect ratio instead, as MiDaS' own code does for all but Swin V2. The options are those
    of `Backbone`.

    Source: Ranftl et al., arXiv 2103.13413; MiDaS 3.1, arXiv 2307.14460.
    """

    model_type: ClassVar[str] = "dpt"
    library_class: ClassVar[str] = "DPTForDepthEstimation"

    checkpoint: str = "Intel/dpt-large"
    preprocessing: Preprocessing = field(
        init=False, default=Preprocessing((0.5,) * 3, (0.5,) * 3, (384, 384), 32, "stretch")
    )

    def inspect(self, config: Mapping[str, Any]) -> None:
        """Check also that the DPT network was trained for disparity."""
        super().inspect(config)
        encoder = (config.get("backbone_config") or {}).get("model_type")
        if not config.get("is_hybrid") and encoder not in (None, *MIDAS_ENCODERS):
            raise WeightsError(
                f"'{self.checkpoint}' is DPT over '{encoder}', which is not an encoder of MiDaS "
                "(ViT, hybrid, BEiT, Swin V2): choose another checkpoint"
            )

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split before the neck, which reassembles tokens to maps."""
        encoder = _ViTEncoder(model) if model.backbone is None else _Encoder(model.backbone)
        return encoder, _Decoder(model.neck, model.head)
