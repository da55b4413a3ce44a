"""Prompt Depth Anything through transformers: conditioned on a coarse depth, such as a phone's LiDAR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth import io
from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import (
    Backbone,
    NeckAndHead,
    Preprocessing,
    patch_size,
    with_class_token,
)
from redepth.depth_models.depth_anything import DinoEncoder
from redepth.depth_models.files import PhotoFile
from redepth.errors import InputError
from redepth.ops import panorama


class _Decoder(NeckAndHead):
    def forward(self, features: Features) -> Tensor:
        # The last two constants are the prompt in [0, 1] and its (near, far), if there is one.
        tokens = len(features.maps)
        prompt, bounds = features.constants[tokens:] or (None, None)
        states = with_class_token(features)
        fused = self.neck(states, *features.grid, prompt_depth=prompt)
        unit = self.head(fused, *features.grid)[:, None]
        if bounds is None:
            return unit
        near, far = bounds.view(-1, 2, 1, 1, 1).unbind(dim=1)
        return unit * (far - near) + near


@dataclass(kw_only=True, eq=False)
class PromptDepthAnything(Backbone):
    """Prompt Depth Anything: depth in metres if a coarse depth is given, else up to scale and shift.

    The other options are those of `Backbone`.

    Args:
        prompt_depth: a file of depth in any resolution (npy, npz, pfm, exr, 16-bit png, tiff), or a folder
            with one per photo, with the photo's name. Without one the network has no prompt.
        prompt_factor: multiplies the file's numbers to metres, such as 0.001 for millimetres.

    Source: Lin et al., arXiv 2412.14015.
    """

    model_type: ClassVar[str] = "prompt_depth_anything"
    library_class: ClassVar[str] = "PromptDepthAnythingForDepthEstimation"

    checkpoint: str = "depth-anything/prompt-depth-anything-vits-hf"
    prompt_depth: str | None = None
    prompt_factor: Annotated[float, Field(ge=1e-12, le=1e12)] = 1.0
    predicts: Predicts = field(init=False, default="depth")
    preprocessing: Preprocessing = field(init=False, default=Preprocessing(target=(756, 756)))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._file = None if self.prompt_depth is None else PhotoFile(self.prompt_depth, "prompt depth")
        self.invariance = "affine" if self._file is None else "metric"
        self._beyond = 0.0

    def ensure_available(self) -> None:
        """Raise InputError for a missing prompt, WeightsError if the weights are unavailable."""
        if self._file is not None:
            self._file.check()
        super().ensure_available()

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``PromptDepthAnythingForDepthEstimation`` that is already in memory."""
        super().use(model, device, preprocessor)
        self.preprocessing = replace(self.preprocessing, multiple=patch_size(model))

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split between the backbone and the neck, which reads the prompt."""
        return DinoEncoder(model.backbone, patch_size(model)), _Decoder(model.neck, model.head)

    def next_photo(self, source: Path | None) -> None:
        """Set the photo whose prompt is read next. Raises InputError if there is none."""
        if self._file is not None:
            self._file.next_photo(source)

    def go_around(self, margin: float) -> None:
        """Extend the next photo's prompt by this share of its width on either side."""
        self._beyond = margin

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1] and read the prompt.

        Raises:
            InputError: if the prompt cannot be read or used.
            ValueError: if the sides are not multiples of the patch size.
        """
        features = super().encode(image, parameters)
        if self._file is None:
            return features
        prompt = self._prompt(self._file.path).to(image)
        near, far = prompt.min(), prompt.max()
        scaled = ((prompt - near) / (far - near)).expand(len(image), 1, *prompt.shape)
        bounds = torch.stack([near, far]).expand(len(image), 2)
        return replace(features, constants=(*features.constants, scaled, bounds))

    def _prompt(self, path: Path) -> Tensor:
        depth = torch.from_numpy(io.load_depth_map(path)) * self.prompt_factor
        if not bool(torch.isfinite(depth).all()) or float(depth.min()) < 0:
            raise InputError(f"{path}: a prompt must be finite and not negative everywhere; fill its holes")
        if float(depth.min()) == float(depth.max()):
            raise InputError(f"{path}: the prompt is constant; give a depth that varies")
        if not self._beyond:
            return depth
        height, width = depth.shape
        extended = round(width * (1 + 2 * self._beyond))
        return panorama.resize(depth[None, None], height, extended, self._beyond)[0, 0]
