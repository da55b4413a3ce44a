"""The contracts of the four families, and the records that pass between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from redepth.contracts.draws import Illumination, Noise
from redepth.guidance import UNGUIDED, Guidance, SkyMask
from redepth.literals import Predicts

Invariance = Literal["affine", "metric"]
"""Whether a raw output is known up to scale and shift, or in metres (depth) and 1 / metres (disparity)."""

Scale = float | Literal["auto"]
"""The scale s of relative depth: a number, or ``auto``, from each photo's first prediction."""


@dataclass(frozen=True)
class Features:
    """The output of an encoder and input of its decoder.

    Attributes:
        maps: the intermediate embeddings W, each ``(B, tokens, channels)`` or
            ``(B, channels, rows, columns)``, with another grid. They may be learnable. Empty for a model that
            has no split.
        constants: further inputs of the decoder that are never optimised (class tokens), batch first.
        grid: rows and columns of the token grid of the maps ``(B, tokens, channels)``.
        size: height and width of the encoded image if they differ from the grid times the patch: the decoder
            resizes its output to it. None keeps the network's output size.
    """

    maps: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    grid: tuple[int, int]
    size: tuple[int, int] | None = None

    def with_maps(self, maps: Sequence[Tensor]) -> Self:
        """Return a copy with other embeddings; the constants are expanded to their batch size."""
        batch = maps[0].shape[0]
        constants = tuple(c.expand(batch, *c.shape[1:]) for c in self.constants)
        return replace(self, maps=tuple(maps), constants=constants)


@dataclass(frozen=True)
class Condition:
    """The inputs of a prior that are computed once per photo (text embeddings, the photo)."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Surface:
    """The inputs of an objective at one step, at network size.

    Attributes:
        raw: (B,1,H,W) raw outputs of the members, in the photo's unit if the scale is ``auto``.
        depth: (B,1,H,W) their relative depth.
        image: (1,3,H,W) the photo, sRGB.
        predicts: what ``raw`` is.
        guidance: what is known of the photo besides its pixels.
    """

    raw: Tensor
    depth: Tensor
    image: Tensor
    predicts: Predicts = "disparity"
    guidance: Guidance = UNGUIDED

    @property
    def sky(self) -> Tensor | None:
        """(1,1,H,W) bool, where the photo shows sky; None if unknown."""
        sky = self.guidance.get(SkyMask)
        return None if sky is None else sky.mask


class DepthModel(Protocol):
    """A frozen encoder and a decoder. Members share the weights and have learnable tensors of their own.

    ``scale`` s and ``margin`` m turn the raw output to relative depth (`ops.geometry.relative_depth`). With
    ``scale = "auto"`` the raw output is first divided by a unit that `ops.geometry.auto_unit` computes from
    each photo's first prediction. A constructor only stores options. `load` loads the checkpoint and sets
    ``predicts``, ``invariance`` and ``scale`` to the checkpoint's.
    """

    predicts: Predicts
    invariance: Invariance
    scale: Scale
    margin: float
    supports: ClassVar[frozenset[str]]
    """Names of the parameterizations that this depth model supports."""

    def load(self, device: torch.device) -> Self:
        """Load the weights to the device. Raises WeightsError."""
        ...

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) sRGB [0,1] to the network's size; the renderer gets this one too."""
        ...

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """(B,3,H,W) sRGB [0,1] at network size -> features; ``parameters`` replace the encoder's own."""
        ...

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features -> raw output (B,1,H,W); ``parameters`` replace the decoder's own."""
        ...

    def encoder_parameters(self) -> dict[str, Tensor]:
        """Return the encoder's parameters by name."""
        ...

    def decoder_parameters(self) -> dict[str, Tensor]:
        """Return the decoder's parameters by name."""
        ...

    def release_encoder(self) -> None:
        """Move the encoder off the device: this photo does not need it any more."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the entries of the run record: checkpoint, revision, sizes."""
        ...


class Renderer(Protocol):
    """Re-lights the surface: relative depth and the photo's linear colours under random light.

    One that lights other colours than the photo's is a `LightsAlbedo`, too. ``lights`` is L, the number of
    lights per image and step.
    """

    lights: int

    def draw(self, batch: int, generator: torch.Generator) -> Illumination:
        """Draw the light of ``batch`` members on the CPU, tensors (batch, L, ...)."""
        ...

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """(B,1,H,W) relative depth, (B|1,3,H,W) linear image -> relit sRGB (B,L,3,H,W) in [0,1]."""
        ...


class Prior(Protocol):
    """Scores pictures: one loss per picture, whose gradient is the score-distillation gradient."""

    def load(self, device: torch.device) -> Self:
        """Load the weights to the device. Raises WeightsError."""
        ...

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Compute once per photo what each step reads, from (1,3,H,W) sRGB and the prompt."""
        ...

    def draw(self, batch: int, generator: torch.Generator, progress: float = 0.0) -> Noise:
        """Draw the noise of ``batch`` pictures on the CPU, tensors (batch, ...).

        ``progress`` is the share of the run's steps that are done, in [0, 1).
        """
        ...

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """(N,3,H,W) sRGB [0,1] with flattened draws -> loss (N,)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the entries of the run record: checkpoint, revision, dtype."""
        ...


class Objective(Protocol):
    """A label-free term added to the prior's loss."""

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        ...
