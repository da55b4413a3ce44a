"""Depth Pro through transformers: a multi-scale ViT encoder, a DPT-like decoder, a focal length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import Backbone, Preprocessing
from redepth.ops import geometry


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.depth_pro.encoder
        self.fov_model = model.fov_model if model.use_fov_model else None
        # The field of view is estimated from a map of the neck, which belongs to the decoder. In a tuple the
        # neck is not registered as a submodule: the encoder can be moved to the CPU without it.
        self._neck = (model.depth_pro.neck,)

    def forward(self, pixels: Tensor) -> Features:
        maps = self.encoder(pixels)[1]
        factor = pixels.new_ones(len(pixels), 1, 1, 1)
        if self.fov_model is not None:
            with torch.no_grad():
                coarse = self._neck[0](list(maps))[0]
                degrees = self.fov_model(pixel_values=pixels, global_features=coarse)
                factor = 2 * torch.tan(0.5 * torch.deg2rad(degrees)).view(-1, 1, 1, 1)
        return Features(maps=tuple(maps), constants=(factor,), grid=tuple(maps[0].shape[-2:]))


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.neck = model.depth_pro.neck
        self.fusion_stage = model.fusion_stage
        self.head = model.head

    def forward(self, features: Features) -> Tensor:
        fused = self.fusion_stage(self.neck(list(features.maps)))
        return self.head(fused[-1])[:, None] * features.constants[0]


@dataclass(kw_only=True, eq=False)
class DepthPro(Backbone):
    r"""Depth Pro: disparity in 1 / metres.

    The network predicts canonical inverse depth C (of a picture as wide as its focal length) and the
    horizontal field of view phi. Inverse depth is

    .. math:: D = C \, W / f = 2 \tan(\varphi / 2) \, C

    phi is estimated by the encoder and not refined; a checkpoint without it predicts C, of unknown scale.
    Every photo is resized to a square of 1536 pixels, so a step costs much more than with other models. The
    options are those of `Backbone`; ``longer_side`` is that of the refined image.

    Source: Bochkovskii et al., arXiv 2410.02073.
    """

    model_type: ClassVar[str] = "depth_pro"
    library_class: ClassVar[str] = "DepthProForDepthEstimation"

    checkpoint: str = "apple/DepthPro-hf"
    antialias: bool = False
    predicts: Predicts = field(init=False, default="disparity")
    preprocessing: Preprocessing = field(
        init=False, default=Preprocessing((0.5,) * 3, (0.5,) * 3, (1536, 1536), 1, "stretch")
    )

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``DepthProForDepthEstimation`` that is already in memory."""
        super().use(model, device, preprocessor)
        side = round(model.config.patch_size / min(model.config.scaled_images_ratios))
        self.preprocessing = replace(self.preprocessing, target=(side, side), rule="stretch")
        self.invariance = "metric" if model.use_fov_model else "affine"

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the encoder's six maps and the neck."""
        return _Encoder(model), _Decoder(model)

    def at_image_size(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Resize the output, which may be larger than the image."""
        return geometry.resize(raw, height, width, antialias=True)
