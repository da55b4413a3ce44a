"""GLPN through transformers: a SegFormer encoder and a light decoder, depth in metres."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from redepth.contracts import Features, Invariance, Predicts
from redepth.depth_models.backbone import Backbone, Preprocessing, Rule


class _Encoder(nn.Module):
    def __init__(self, segformer: Any) -> None:
        super().__init__()
        self.segformer = segformer

    def forward(self, pixels: Tensor) -> Features:
        maps = self.segformer(pixels, output_hidden_states=True).hidden_states
        return Features(maps=tuple(maps), constants=(), grid=tuple(maps[-1].shape[-2:]))


class _Decoder(nn.Module):
    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head

    def forward(self, features: Features) -> Tensor:
        return self.head(self.decoder(list(features.maps)))[:, None]


@dataclass(kw_only=True, eq=False)
class GLPN(Backbone):
    """GLPN: depth in metres, a sigmoid times the largest depth of its data set (10 rooms, 80 roads).

    Its own preprocessing accepts photos of any size, floors the sides to multiples of 32, and gives values in
    [0, 1]. Here ``longer_side`` limits the size, to 640 as in NYU Depth. The other options are those of
    `Backbone`.

    Source: Kim et al., arXiv 2201.07436.
    """

    model_type: ClassVar[str] = "glpn"
    library_class: ClassVar[str] = "GLPNForDepthEstimation"

    checkpoint: str = "vinvino02/glpn-nyu"
    longer_side: Annotated[int, Field(ge=32, le=4096)] = 640
    resize_rule: Rule = "upper_bound"
    predicts: Predicts = field(init=False, default="depth")
    invariance: Invariance = field(init=False, default="metric")
    preprocessing: Preprocessing = field(
        init=False, default=Preprocessing((0.0,) * 3, (1.0,) * 3, (640, 640), 32, "upper_bound")
    )

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the encoder's four maps and the decoder."""
        return _Encoder(model.glpn), _Decoder(model.decoder, model.head)
