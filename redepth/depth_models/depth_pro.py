"""Depth Pro through transformers: a multi-scale ViT encoder, a DPT-like decoder, a focal length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import Backbone, Preprocessing
from redepth.ops import geometry
from redepth.ops.camera import Camera

NARROWEST, WIDEST = 0.1, 179.0
"""Least and largest estimated field of view in degrees that counts."""


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


def camera_of(factor: Tensor) -> Camera | None:
    """Return the camera of a photo whose W / f is ``factor``, one number; None if no lens has it."""
    degrees = 2 * math.degrees(math.atan(0.5 * float(factor.flatten()[0])))
    return Camera(field_of_view=degrees) if NARROWEST <= degrees <= WIDEST else None


@dataclass(kw_only=True, eq=False)
class DepthPro(Backbone):
    r"""Depth Pro: disparity in 1 / metres.

    The network predicts canonical inverse depth C (of a picture as wide as its focal length) and the
    horizontal field of view phi. Inverse depth is

    .. math:: D = C \, W / f = 2 \tan(\varphi / 2) \, C

    phi is estimated by the encoder and not refined, or f is that of the photo's camera where one is given
    (`next_camera`). A checkpoint that does not estimate phi predicts C, of unknown scale without a camera.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._estimates = False
        self._given: Camera | None = None
        self._predicted: Camera | None = None

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``DepthProForDepthEstimation`` that is already in memory."""
        super().use(model, device, preprocessor)
        side = round(model.config.patch_size / min(model.config.scaled_images_ratios))
        self.preprocessing = replace(self.preprocessing, target=(side, side), rule="stretch")
        self._estimates = bool(model.use_fov_model)
        self.invariance = "metric" if self._estimates else "affine"

    def next_camera(self, camera: Camera | None) -> None:
        """Set the camera of the next photo, whose focal length replaces the estimate; None: the estimate."""
        self._given = camera if camera is not None and camera.pinhole else None
        self.invariance = "metric" if self._estimates or self._given is not None else "affine"

    @property
    def predicted_camera(self) -> Camera | None:
        """The camera with the estimated field of view; None for a checkpoint that does not estimate it."""
        return self._predicted

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1]; ``parameters`` replace its own."""
        features = super().encode(image, parameters)
        (factor,) = features.constants
        if parameters is None:
            self._predicted = camera_of(factor) if self._estimates else None
        if self._given is None:
            return features
        # W / f is the same at every size.
        focal, _, _, _ = self._given.normalized_intrinsics(*image.shape[-2:])
        return replace(features, constants=(torch.full_like(factor, 1 / focal),))

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the encoder's six maps and the neck."""
        return _Encoder(model), _Decoder(model)

    def at_image_size(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Resize the output, which may be larger than the image."""
        return geometry.resize(raw, height, width, antialias=True)
