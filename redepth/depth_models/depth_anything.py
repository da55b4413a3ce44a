"""Depth Anything (V1, V2) through transformers: DINOv2 encoder, DPT decoder, disparity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from redepth import hub
from redepth.contracts import Features, Invariance, Predicts
from redepth.errors import WeightsError
from redepth.ops import geometry
from redepth.ops.geometry import ResizeRule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_position_embeddings(embeddings: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """Resize DINOv2's position embeddings to another input size as the original encoder does.

    The grid is resampled bicubically by the scale factors (rows + 0.1) / n and (columns + 0.1) / n,
    where n x n is the trained grid, not by output size as transformers' port does; for photos that are
    not square the two differ by 1.5 to 3 % in the features.

    Args:
        embeddings: (1, 1 + n*n, C), class token first.
        height: of the input in pixels, a multiple of ``patch_size``.
        width: likewise.
        patch_size: in pixels.

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


class _Encoder(nn.Module):
    def __init__(self, backbone: Any, patch_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        embeddings = backbone.embeddings

        def interpolate(_tokens: Tensor, height: int, width: int) -> Tensor:
            return resize_position_embeddings(embeddings.position_embeddings, height, width, patch_size)

        embeddings.interpolate_pos_encoding = interpolate

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        mean = image.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = image.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
        return tuple(self.backbone((image - mean) / std).feature_maps)


class _Decoder(nn.Module):
    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.head = head

    def forward(self, tokens: list[Tensor], grid: tuple[int, int]) -> Tensor:
        return self.head(self.neck(tokens, *grid), *grid)[:, None]


class DepthAnything:
    """Depth Anything V1/V2: affine-invariant disparity D = relu(decoder(W)).

    Args:
        checkpoint: hub id, local folder or ``embedded:NAME`` of a transformers ``DepthAnything``.
        revision: commit, tag or branch of the hub repository.
        longer_side: the network input's size under ``resize_rule`` (its longer side for upper_bound),
            in pixels.
        resize_rule: see `ops.geometry.network_size`.
        antialias: whether photos are low-pass filtered when they are shrunk. The paper's are not.
        scale: s of z = (s + tanh o) / (D + m).
        margin: m of the same.

    Sources: Depth Anything V2 (arXiv 2406.09414); the split in W and theta is that of arXiv 2512.17908.
    """

    predicts: Predicts = "disparity"
    invariance: Invariance = "affine"
    supports: ClassVar[frozenset[str]] = frozenset(
        {"embeddings+decoder", "embeddings", "decoder", "full", "depth", "low-rank"}
    )

    def __init__(
        self,
        checkpoint: str = "depth-anything/Depth-Anything-V2-Small-hf",
        revision: str | None = None,
        longer_side: Annotated[int, Field(ge=28, le=4096)] = 518,
        resize_rule: ResizeRule = "upper_bound",
        antialias: bool = False,
        scale: Annotated[float, Field(gt=1)] = 7.0,
        margin: Annotated[float, Field(gt=0)] = 0.1,
    ) -> None:
        self.checkpoint = checkpoint
        self.revision = revision
        self.longer_side = longer_side
        self.resize_rule = resize_rule
        self.antialias = antialias
        self.scale = scale
        self.margin = margin
        self.patch_size = 14
        self._device = torch.device("cpu")

    def ensure_available(self) -> None:
        """Raise WeightsError now if the weights cannot be had."""
        hub.ensure_available(self.checkpoint, self.revision, ("config.json", "model.safetensors"))

    def load(self, device: torch.device) -> Self:
        """Load the checkpoint in float32, frozen and in eval mode.

        Raises:
            WeightsError: missing, unreachable, corrupted, metric, or not a Depth Anything checkpoint.
        """
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

        config = hub.from_pretrained(DepthAnythingConfig, self.checkpoint, revision=self.revision)
        if config.model_type != "depth_anything" or config.backbone_config is None:
            raise WeightsError(
                f"'{self.checkpoint}' is a '{config.model_type}' checkpoint, not Depth Anything; "
                "choose another depth_model.name or checkpoint"
            )
        if config.depth_estimation_type != "relative":
            raise WeightsError(
                f"'{self.checkpoint}' predicts {config.depth_estimation_type} depth, and only relative "
                "checkpoints (disparity) can be refined: choose the one without '-Metric-' in its name"
            )
        model = hub.from_pretrained(
            DepthAnythingForDepthEstimation,
            self.checkpoint,
            revision=self.revision,
            dtype=torch.float32,
            use_safetensors=True,
        )
        model.eval().requires_grad_(False).to(device)
        # The decoder's convolutions run about twice as fast in this layout, on the CPU and on the GPU.
        model.to(memory_format=torch.channels_last)
        self.use(model, device)
        return self

    def use(self, model: Any, device: torch.device) -> None:
        """Take a ``DepthAnythingForDepthEstimation`` that is already in memory."""
        self.patch_size = int(model.config.patch_size)
        self._encoder = _Encoder(model.backbone, self.patch_size)
        self._decoder = _Decoder(model.neck, model.head)
        self._device = device

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) under the resize rule, both sides multiples of the patch."""
        height, width = geometry.network_size(
            *photo.shape[-2:], target=self.longer_side, multiple=self.patch_size, rule=self.resize_rule
        )
        return geometry.resize(photo, height, width, antialias=self.antialias)

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1] whose sides are multiples of the patch.

        Raises:
            ValueError: if the sides are not.
        """
        height, width = image.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"sides {height} x {width} are not multiples of {self.patch_size}")
        if parameters is None:
            self._encoder.to(self._device)
            tokens = self._encoder(image)
        else:
            tokens = torch.func.functional_call(self._encoder, dict(parameters), (image,))
        return Features(
            maps=tuple(t[:, 1:] for t in tokens),
            constants=tuple(t[:, :1] for t in tokens),
            grid=(height // self.patch_size, width // self.patch_size),
        )

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Run the DPT decoder: features to disparity (B,1,H,W) >= 0."""
        tokens = [torch.cat([c, w], dim=1) for c, w in zip(features.constants, features.maps, strict=True)]
        if parameters is None:
            return self._decoder(tokens, features.grid)
        return torch.func.functional_call(self._decoder, dict(parameters), (tokens, features.grid))

    def encoder_parameters(self) -> dict[str, Tensor]:
        """Return the encoder's parameters by name."""
        return dict(self._encoder.named_parameters())

    def decoder_parameters(self) -> dict[str, Tensor]:
        """Return the decoder's parameters by name."""
        return dict(self._decoder.named_parameters())

    def release_encoder(self) -> None:
        """Move the encoder to the CPU; `encode` brings it back for the next photo."""
        self._encoder.to("cpu")

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and sizes for the run record."""
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "patch_size": self.patch_size,
            "encoder_parameters": sum(p.numel() for p in self.encoder_parameters().values()),
            "decoder_parameters": sum(p.numel() for p in self.decoder_parameters().values()),
        }
