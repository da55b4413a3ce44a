"""Depth Anything (V1, V2 and metric) through transformers: DINOv2 encoder, DPT decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from redepth.contracts import Features
from redepth.depth_models.backbone import (
    Backbone,
    NeckAndHead,
    Rule,
    patch_size,
    without_class_token,
)

V2_SMALL, V2_SMALL_SCALE = "depth-anything/Depth-Anything-V2-Small-hf", 7.0
"""The paper's checkpoint and its s. The others' raw outputs are up to 60 times as large."""

SCALE_KEY = "redepth_scale"
"""The entry of ``config.json`` by which a checkpoint that was adapted keeps the s of the one before."""


def resize_position_embeddings(embeddings: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """Resize DINOv2's position embeddings to another input size as the original encoder does.

    The grid is resampled bicubically by the scale factors (rows + 0.1) / n and (columns + 0.1) / n,
    where n x n is the trained grid; transformers' port resamples by output size. For photos that are not
    square the features differ by 1.5 to 3 %.

    Args:
        embeddings: (1, 1 + n*n, C), class token first.
        height: height of the input in pixels, a multiple of ``patch_size``.
        width: width of the input in pixels, a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.

    Returns:
        (1, 1 + rows*columns, C).
    """
    rows, columns = height // patch_size, width // patch_size
    side = math.isqrt(embeddings.shape[1] - 1)
    if rows == columns == side:
        return embeddings
    grid = embeddings[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resized = F.interpolate(grid.float(), scale_factor=scale, mode="bicubic").to(grid.dtype)
    return torch.cat([embeddings[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class DinoEncoder(nn.Module):
    """A transformers DINOv2 backbone that resizes its position embeddings as the original does."""

    def __init__(self, backbone: Any, patch_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.patch_size = patch_size
        embeddings = backbone.embeddings

        def interpolate(_tokens: Tensor, height: int, width: int) -> Tensor:
            return resize_position_embeddings(embeddings.position_embeddings, height, width, patch_size)

        embeddings.interpolate_pos_encoding = interpolate

    def forward(self, pixels: Tensor) -> Features:
        """(B,3,H,W) normalised, sides multiples of the patch -> features."""
        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        return without_class_token(self.backbone(pixels).feature_maps, grid)


class _Decoder(NeckAndHead):
    """The neck and head of transformers, computed with less work.

    Class tokens, which these networks ignore, are not prepended and removed again. A fusion layer projects
    before it upsamples, not after: a 1 x 1 convolution commutes with an interpolation, whose weights add up
    to 1, and there are a quarter of the pixels.
    """

    def forward(self, features: Features) -> Tensor:
        rows, columns = features.grid
        neck: Any = self.neck
        head: Any = self.head
        # Without gradients a view of a parameter still has `requires_grad`, and torch's FLOP counter would
        # count a backward pass: detach.
        embeddings = features.maps if torch.is_grad_enabled() else [w.detach() for w in features.maps]
        states = [
            layer(tokens.transpose(1, 2).unflatten(2, (rows, columns)))
            for layer, tokens in zip(neck.reassemble_stage.layers, embeddings, strict=True)
        ]
        maps = [convolve(state) for convolve, state in zip(neck.convs, states, strict=True)]
        sizes = [x.shape[-2:] for x in maps]
        fused: list[Tensor] = []
        for i, layer in zip(reversed(range(len(maps))), neck.fusion_stage.layers, strict=True):
            # Every map is resized to the next finer one; the finest has none and is doubled.
            size = sizes[i - 1] if i else tuple(2 * side for side in sizes[0])
            fused.append(_fuse(layer, maps[i], fused[-1] if fused else None, size))
        x = head.conv1(fused[head.head_in_index])
        x = _upsample(x, (rows * head.patch_size, columns * head.patch_size))
        x = head.conv3(head.activation1(head.conv2(x)))
        raw: Tensor = head.activation2(x) * head.max_depth
        return raw


def _fuse(layer: Any, fresh: Tensor, fused: Tensor | None, size: Sequence[int]) -> Tensor:
    """Return a fusion layer's output for the map fused so far and a fresh map of the same size."""
    x = fresh if fused is None else fused + layer.residual_layer1(fresh)
    return _upsample(layer.projection(layer.residual_layer2(x)), size)


def _upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


@dataclass(kw_only=True, eq=False)
class DepthAnything(Backbone):
    """Depth Anything V1/V2: affine-invariant disparity D = relu(decoder(W)), or depth in metres.

    The checkpoint decides: the ones with "Metric" in their names predict depth in metres.

    Args:
        checkpoint: hub id, short name, local folder or ``embedded:NAME`` of the weights.
        revision: commit, tag or branch of the hub repository.
        longer_side: the network input's size under ``resize_rule`` (its longer side for upper_bound),
            in pixels.
        resize_rule: which side of the photo gets ``longer_side`` (`ops.geometry.network_size`).
        antialias: whether photos are low-pass filtered when they are shrunk; not in the paper.
        scale: s of z = (s + tanh o) / (D + m), how steep the surface is. ``auto``: from each photo; null: the
            paper's 7 for V2 Small and what was adapted from it, auto for all others.
        margin: m of z = (s + tanh o) / (D + m), keeps the farthest points finite.

    Sources: Depth Anything V2 (arXiv 2406.09414); the split in W and theta is that of arXiv 2512.17908.
    """

    model_type: ClassVar[str] = "depth_anything"
    library_class: ClassVar[str] = "DepthAnythingForDepthEstimation"

    checkpoint: str = V2_SMALL
    longer_side: Annotated[int, Field(ge=28, le=4096)] = 518
    resize_rule: Rule = "upper_bound"
    antialias: bool = False
    scale: Annotated[float, Field(gt=1, le=1e6)] | Literal["auto"] | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scale_is_open = self.scale is None
        if self.scale is None:
            self.scale = V2_SMALL_SCALE if self.checkpoint == V2_SMALL else "auto"

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``DepthAnythingForDepthEstimation`` that is already in memory."""
        super().use(model, device, preprocessor)
        self.preprocessing = replace(self.preprocessing, multiple=patch_size(model))
        if model.config.depth_estimation_type == "metric":
            self.predicts, self.invariance = "depth", "metric"
        scale: Any = getattr(model.config, SCALE_KEY, None)
        if self._scale_is_open and type(scale) in (int, float) and 1 < scale <= 1e6:
            self.scale = float(scale)

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the backbone and the neck."""
        return DinoEncoder(model.backbone, patch_size(model)), _Decoder(model.neck, model.head)
