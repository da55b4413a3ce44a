"""ZoeDepth through transformers: a MiDaS encoder and decoder with heads for metric depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import Features, Invariance, Predicts
from redepth.depth_models.backbone import Backbone, Preprocessing, with_class_token, without_class_token
from redepth.ops import geometry

PAD_FACTOR = 3


class _Encoder(nn.Module):
    def __init__(self, backbone: Any, patch_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.patch = patch_size

    def forward(self, pixels: Tensor) -> Features:
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        return without_class_token(self.backbone(pixels).feature_maps, grid)


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.neck = model.neck
        self.relative_head = model.relative_head
        self.metric_head = model.metric_head
        self.votes = len(model.config.bin_configurations) > 1

    def forward(self, features: Features) -> Tensor:
        states = with_class_token(features)
        if not self.votes:
            return self._depth(states, features.grid)
        # The network chooses one of its two heads for a whole batch: run the rows one by one.
        rows = [self._depth([s[i : i + 1] for s in states], features.grid) for i in range(len(states[0]))]
        return torch.cat(rows)

    def _depth(self, states: list[Tensor], grid: tuple[int, int]) -> Tensor:
        fused, bottleneck = self.neck(states, *grid)
        relative, last = self.relative_head(fused)
        return self.metric_head(
            outconv_activation=last, bottleneck=bottleneck, feature_blocks=fused, relative_depth=relative
        )[0]


@dataclass(kw_only=True, eq=False)
class ZoeDepth(Backbone):
    r"""ZoeDepth: depth in metres.

    As published, the image is padded by reflection, by :math:`\lfloor 3 \sqrt{n / 2} \rfloor` pixels at both
    ends of a side of n pixels, and the output is cropped. The other options are those of `Backbone`.

    Args:
        pad: whether the photo is padded, and the map cropped, as in the original code.

    Source: Bhat et al., arXiv 2302.12288.
    """

    model_type: ClassVar[str] = "zoedepth"
    library_class: ClassVar[str] = "ZoeDepthForDepthEstimation"

    checkpoint: str = "Intel/zoedepth-nyu-kitti"
    antialias: bool = False
    pad: bool = True
    predicts: Predicts = field(init=False, default="depth")
    invariance: Invariance = field(init=False, default="metric")
    preprocessing: Preprocessing = field(
        init=False,
        default=Preprocessing((0.5,) * 3, (0.5,) * 3, (384, 512), 32, "minimal", align_corners=True),
    )

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``ZoeDepthForDepthEstimation`` that is already in memory."""
        super().use(model, device, preprocessor)
        self.pad = self.pad and bool((preprocessor or {}).get("do_pad", True))

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split before the neck."""
        return _Encoder(model.backbone, int(model.patch_size)), _Decoder(model)

    def pixels(self, image: Tensor) -> Tensor:
        """Pad the image, then resize and normalise it."""
        if not self.pad:
            return super().pixels(image)
        bottom, right = (padding(side) for side in image.shape[-2:])
        padded = F.pad(image, (right, right, bottom, bottom), mode="reflect")
        own = self.preprocessing
        size = own.target if own.rule == "stretch" else own.image_size(*padded.shape[-2:])
        return own.normalised(geometry.resize(padded, *size, align_corners=own.align_corners))

    def at_image_size(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Undo the padding of `pixels`: resize to the padded size and crop."""
        if not self.pad:
            return super().at_image_size(raw, height, width)
        top, left = padding(height), padding(width)
        whole = super().at_image_size(raw, height + 2 * top, width + 2 * left)
        return whole[..., top : top + height, left : left + width]


def padding(side: int) -> int:
    """Return the padding at either end of a side, in pixels."""
    return int(math.sqrt(side / 2) * PAD_FACTOR)
