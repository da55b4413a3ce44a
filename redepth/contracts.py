"""The protocols DepthModel, Renderer, Prior and Objective, and the records that pass between them.

The way of the data, for a batch whose rows are the members of an ensemble::

    image (1,3,H,W) sRGB [0,1] -> DepthModel.encode -> Features -> DepthModel.decode -> raw (B,1,H,W)
      -> ops.geometry -> relative depth (B,1,H,W) -> Renderer -> relit (B,L,3,H,W)
      -> Prior -> loss (B*L,)

Nothing random happens outside ``Renderer.sample`` and ``Prior.draw``: a step is a deterministic
function of its `StepDraws`, so a run can be recorded, replayed, split and joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from redepth.literals import Predicts as Predicts

Invariance = Literal["affine", "metric"]
"""Whether a raw output is known up to scale and shift, or in metres (depth) and 1 / metres (disparity)."""

Scale = float | Literal["auto"]
"""The scale s of relative depth: a number, or one that follows from each photo's first prediction."""


@dataclass(frozen=True)
class Features:
    """What an encoder hands to its decoder.

    Attributes:
        maps: the intermediate embeddings W, each ``(B, tokens, channels)`` or, where it has a grid of its
            own, ``(B, channels, rows, columns)``; these may be learnable. Empty for a model without a split.
        constants: what the decoder also reads but nobody optimises (class tokens), the batch in front.
        grid: rows and columns of the token grid that maps without one of their own share.
        size: height and width of the encoded image where it is not the grid times the patch: the decoder
            resizes its output to it. None leaves the output as the network makes it.
    """

    maps: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    grid: tuple[int, int]
    size: tuple[int, int] | None = None

    def with_maps(self, maps: Sequence[Tensor]) -> Self:
        """Return the same record with other embeddings; constants are expanded to their batch."""
        batch = maps[0].shape[0]
        constants = tuple(c.expand(batch, *c.shape[1:]) for c in self.constants)
        return replace(self, maps=tuple(maps), constants=constants)


@dataclass(frozen=True)
class Draw:
    """Random tensors of one step, each with the leading shape (members, lights).

    Attributes:
        tensors: name -> tensor; the component that drew them knows the names.
        on_cpu: names of those that are read as numbers: they stay on the CPU, where they were drawn.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    on_cpu: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of that name."""
        return self.tensors[name]

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on the device, but for what stays on the CPU; a GPU is not waited for."""
        moved = {k: v if k in self.on_cpu else _sent(v, device) for k, v in self.tensors.items()}
        return replace(self, tensors=moved)

    def clone(self) -> Self:
        """Return a copy in memory of its own."""
        return replace(self, tensors={k: v.clone() for k, v in self.tensors.items()})

    def flatten(self) -> Self:
        """Merge (members, lights, ...) to (members * lights, ...), the shape a prior is called with."""
        return replace(self, tensors={k: v.flatten(0, 1) for k, v in self.tensors.items()})

    def rows(self, rows: slice) -> Self:
        """Return the draws of some members."""
        return replace(self, tensors={k: v[rows] for k, v in self.tensors.items()})

    def as_member(self) -> Self:
        """Add the member axis in front: (lights, ...) to (1, lights, ...)."""
        return replace(self, tensors={k: v[None] for k, v in self.tensors.items()})

    @classmethod
    def cat(cls, draws: Sequence[Self]) -> Self:
        """Join the draws of several members along the member axis."""
        return cls({k: torch.cat([d.tensors[k] for d in draws]) for k in draws[0].tensors}, draws[0].on_cpu)


def _sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device; to CUDA from pinned memory, as any other copy waits for all work before it."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@dataclass(frozen=True)
class Illumination(Draw):
    """Light of one step: ``direction`` and what else the renderer samples (``shininess``, ...)."""

    @property
    def direction(self) -> Tensor:
        """Unit vectors towards the light, (B, L, 3), in the frame of `ops.geometry.normals_from_depth`.

        Its z axis points to the viewer, x and y are mirrored: seen from the camera, with x right and y up,
        the light stands at (-x, -y, z).
        """
        return self.tensors["direction"]


@dataclass(frozen=True)
class Noise(Draw):
    """Everything random inside a prior: timesteps, diffusion noise, posterior noise, crop positions."""


@dataclass(frozen=True)
class StepDraws:
    """All random numbers of one optimisation step."""

    illumination: Illumination
    noise: Noise

    @classmethod
    def cat(cls, draws: Sequence[StepDraws]) -> StepDraws:
        """Join the draws of several members along the member axis."""
        return cls(Illumination.cat([d.illumination for d in draws]), Noise.cat([d.noise for d in draws]))

    def rows(self, rows: slice) -> StepDraws:
        """Return the draws of some members."""
        return StepDraws(self.illumination.rows(rows), self.noise.rows(rows))

    def to(self, device: torch.device | str) -> StepDraws:
        """Return a copy on the device."""
        return StepDraws(self.illumination.to(device), self.noise.to(device))


@dataclass(frozen=True)
class Condition:
    """What a prior computes once per photo and reads at every step (text embeddings, the photo)."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class DepthModel(Protocol):
    """A frozen encoder and a decoder. Weights are shared; a member owns only what is learnable.

    ``scale`` s and ``margin`` m turn the raw output to relative depth (`ops.geometry.relative_depth`);
    under ``scale = "auto"`` the raw output is first divided by a unit that `ops.geometry.auto_unit` takes
    from each photo's first prediction. A constructor stores options; `load` does the heavy work, after
    which ``predicts``, ``invariance`` and ``scale`` are those of the checkpoint.
    """

    predicts: Predicts
    invariance: Invariance
    scale: Scale
    margin: float
    supports: ClassVar[frozenset[str]]
    """Names of the parameterizations that this family can be refined through."""

    def load(self, device: torch.device) -> Self:
        """Load the weights to the device. Raises WeightsError."""
        ...

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) sRGB [0,1] to the network's size; the renderer sees this one too."""
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
        """Move the encoder off the device: it has done its work for this photo."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a run record must name: checkpoint, revision, sizes."""
        ...


class Renderer(Protocol):
    """Re-lights the surface: relative depth and the photo's linear colours under sampled light.

    ``lights`` is L, how many lights one image is re-lit with at each step.
    """

    lights: int

    def sample(self, batch: int, generator: torch.Generator) -> Illumination:
        """Draw the light of ``batch`` members on the CPU, tensors (batch, L, ...)."""
        ...

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """(B,1,H,W) relative depth, (B|1,3,H,W) linear image -> relit sRGB (B,L,3,H,W) in [0,1]."""
        ...


class Prior(Protocol):
    """Scores a picture: a scalar per picture whose gradient is the score-distillation gradient."""

    def load(self, device: torch.device) -> Self:
        """Load the weights to the device. Raises WeightsError."""
        ...

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Once per photo: (1,3,H,W) sRGB and the prompt -> what each step reads."""
        ...

    def draw(self, batch: int, generator: torch.Generator, progress: float = 0.0) -> Noise:
        """Draw what ``batch`` pictures need on the CPU, tensors (batch, ...).

        ``progress`` is the share of the run's steps that are done, in [0, 1).
        """
        ...

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """(N,3,H,W) sRGB [0,1] with flattened draws -> loss (N,)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a run record must name: checkpoint, revision, dtype."""
        ...


@runtime_checkable
class HasNeeds(Protocol):
    """A component whose weights or packages may be missing; asked before anything is loaded."""

    def ensure_available(self) -> None:
        """Raise WeightsError (neither local, nor cached, nor reachable) or MissingDependencyError now."""
        ...


@runtime_checkable
class FollowsPhoto(Protocol):
    """A depth model that reads something of its own for each photo, such as a file of the same name."""

    def next_photo(self, source: Path | None) -> None:
        """Say which photo comes next; None for one that is no file. Raises InputError."""
        ...


@dataclass(frozen=True)
class Surface:
    """What an objective sees of one step, at network size.

    Attributes:
        raw: (B,1,H,W) raw outputs of the members, in the photo's unit where the scale is ``auto``.
        depth: (B,1,H,W) relative depth of them.
        image: (1,3,H,W) the photo, sRGB.
        predicts: what ``raw`` is.
        sky: (1,1,H,W) bool, where the photo shows sky; None if that is not known.
    """

    raw: Tensor
    depth: Tensor
    image: Tensor
    predicts: Predicts = "disparity"
    sky: Tensor | None = None


@runtime_checkable
class LearnsByMember(Protocol):
    """A prior that learns while a member is refined, for each member apart."""

    def begin(self, members: Sequence[int]) -> None:
        """Forget what was learned: these members start. Rows of later calls are theirs, in this order."""
        ...


@dataclass(frozen=True)
class Execution:
    """How networks are executed; `config.Performance` says what each field does."""

    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    checkpointing: bool = False
    fused_kernels: bool = False
    explicit_attention: bool = False
    shared_prefix: bool = False
    decoders: Literal["auto", "loop", "batched"] = "auto"


@runtime_checkable
class BatchesDecoders(Protocol):
    """A depth model that can decode with as many decoders at once as its features have rows.

    Where ``batches_decoders`` is true, the ``parameters`` of `DepthModel.decode` may have these rows in
    front, (B, ...) each: row i is decoded with the weights i.
    """

    batches_decoders: bool


@runtime_checkable
class Tunable(Protocol):
    """A component whose networks can be executed in several ways, with the same mathematics."""

    def tune(self, how: Execution) -> None:
        """Execute the networks in this way from now on, in place of any before. Raises ConfigError."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """A component that keeps device memory between steps for the batch sizes that it has seen."""

    def release_memory(self) -> None:
        """Let go of it, such as captured graphs; the next step takes what it needs anew."""
        ...


@runtime_checkable
class Upcasts(Protocol):
    """A prior that may run in half precision and can go on in float32."""

    def upcast(self) -> str:
        """Go on in float32; return the precision until now, empty if it is that or has to stay."""
        ...


@runtime_checkable
class HasBackends(Protocol):
    """A component that can do its work in several ways, each of which may be unable to run here."""

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each backend and what to do before it can run here; empty if it can."""
        ...


class Objective(Protocol):
    """A label-free term added to the prior's loss."""

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        ...
