"""The protocols DepthModel, Renderer, Prior and Objective, and the records that pass between them.

The data flow, for a batch whose rows are the members of an ensemble::

    image (1,3,H,W) sRGB [0,1] -> DepthModel.encode -> Features -> DepthModel.decode -> raw (B,1,H,W)
      -> ops.geometry -> relative depth (B,1,H,W) -> Renderer -> relit (B,L,3,H,W)
      -> Prior -> loss (B*L,)

All random numbers come from ``Renderer.draw`` and ``Prior.draw``: a step is a deterministic function of its
`StepDraws`, so a run can be recorded, replayed, split and joined.

Light directions, normals and view vectors are in one frame everywhere: x right, y up, z towards the viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from redepth.guidance import UNGUIDED, Guidance, SkyMask
from redepth.literals import Predicts as Predicts
from redepth.ops.camera import Camera

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
class Draw:
    """Random tensors of one step, each with the leading shape (members, lights).

    Attributes:
        tensors: name -> tensor; the component that drew them defines the names.
        on_cpu: names of the tensors whose values the host reads: they stay on the CPU.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    on_cpu: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of that name."""
        return self.tensors[name]

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on the device without waiting for a GPU; the tensors of ``on_cpu`` stay."""
        moved = {k: v if k in self.on_cpu else _copied(v, device) for k, v in self.tensors.items()}
        return replace(self, tensors=moved)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with the function applied to each tensor."""
        return replace(self, tensors={name: function(values) for name, values in self.tensors.items()})

    def clone(self) -> Self:
        """Return a copy that shares no memory."""
        return self.map(torch.clone)

    def flatten(self) -> Self:
        """Merge (members, lights, ...) to (members * lights, ...), the shape a prior is called with."""
        return self.map(lambda values: values.flatten(0, 1))

    def rows(self, rows: slice) -> Self:
        """Return the draws of some members."""
        return self.map(lambda values: values[rows])

    def as_member(self) -> Self:
        """Add a leading member axis: (lights, ...) to (1, lights, ...)."""
        return self.map(lambda values: values[None])

    @classmethod
    def cat(cls, draws: Sequence[Self]) -> Self:
        """Join the draws of several members along the member axis."""
        return cls({k: torch.cat([d.tensors[k] for d in draws]) for k in draws[0].tensors}, draws[0].on_cpu)


def _copied(values: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device; to CUDA from pinned memory, as any other copy waits for all earlier work."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@dataclass(frozen=True)
class Material:
    """How the surface reflects each light, tensors (B, L).

    A renderer states the Blinn-Phong parameters of its surface, or the ones nearest to them: priors that are
    conditioned on the light read them.

    Attributes:
        diffuse: weight k_d >= 0 of the matte part.
        specular: weight k_s >= 0 of the highlight.
        shininess: exponent p > 0 of the highlight.
        roughness: of a rough surface: rho in (0, 1] of `ops.shading.ggx`, sigma in radians of
            `ops.shading.oren_nayar`.
        metalness: m in [0, 1] of `ops.shading.ggx`.
    """

    diffuse: Tensor
    specular: Tensor
    shininess: Tensor
    roughness: Tensor | None = None
    metalness: Tensor | None = None

    @classmethod
    def matte(cls, size: Sequence[int], device: torch.device | None = None) -> Self:
        """Return a perfectly matte surface: k_d = 1 and k_s = 0."""
        ones = torch.ones(tuple(size), device=device)
        return cls(diffuse=ones, specular=torch.zeros_like(ones), shininess=4 * ones)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters that are there, by name."""
        return {name: values for name, values in vars(self).items() if values is not None}


@dataclass(frozen=True)
class Illumination(Draw):
    """Light and material of one step; `of` makes one.

    ``tensors`` also holds any further draws of a renderer, under names that it chooses.
    """

    @classmethod
    def of(cls, direction: Tensor, material: Material | None = None, **others: Tensor) -> Self:
        """Return the record of a light.

        Args:
            direction: (B, L, 3) unit vectors towards the light: x right, y up, z towards the viewer.
            material: None for a renderer that has no such parameters.
            others: what else the renderer draws, (B, L, ...).
        """
        tensors = {"direction": direction, **others}
        return cls(tensors if material is None else tensors | material.tensors())

    @property
    def direction(self) -> Tensor:
        """Unit vectors towards the light, (B, L, 3): x right, y up, z towards the viewer."""
        return self.tensors["direction"]

    @property
    def material(self) -> Material:
        """The material under each light; matte if the renderer draws none.

        Raises:
            ValueError: if the renderer draws a part of it alone.
        """
        drawn = {f.name: self.tensors[f.name] for f in fields(Material) if f.name in self.tensors}
        if not drawn:
            return Material.matte(self.direction.shape[:-1], self.direction.device)
        if missing := [name for name in ("diffuse", "specular", "shininess") if name not in drawn]:
            raise ValueError(f"the renderer draws {', '.join(drawn)} but not {', '.join(missing)}")
        return Material(**drawn)


@dataclass(frozen=True)
class Noise(Draw):
    """The random numbers of a prior: timesteps, diffusion noise, posterior noise, crop positions."""


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
    """The inputs of a prior that are computed once per photo (text embeddings, the photo)."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)


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

    ``lights`` is L, the number of lights per image and step.
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


@runtime_checkable
class HasNeeds(Protocol):
    """A component whose weights or packages may be missing; checked before anything is loaded."""

    def ensure_available(self) -> None:
        """Raise WeightsError (neither local, nor cached, nor reachable) or MissingDependencyError."""
        ...


@runtime_checkable
class FollowsPhoto(Protocol):
    """A depth model that reads another input for each photo, such as a file of the same name."""

    def next_photo(self, source: Path | None) -> None:
        """Set the file of the next photo; None if it has no file. Raises InputError."""
        ...


@runtime_checkable
class GoesAround(Protocol):
    """A depth model that reads a map of the photo, and extends it as a panorama is extended."""

    def go_around(self, margin: float) -> None:
        """Extend the next photo's map by this share of its width on either side; 0: not at all."""
        ...


@runtime_checkable
class LeavesHoles(Protocol):
    """A depth model whose map has holes, which it fills so that the optimisation can run."""

    @property
    def holes(self) -> Tensor | None:
        """The pixels of the last prediction that were filled, (1,1,h,w) bool, any size; None: no pixel."""
        ...


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


@runtime_checkable
class TakesMap(Protocol):
    """A depth model that returns a finished map in place of a prediction."""

    def take_map(self, values: NDArray[Any] | None) -> None:
        """Set the next photo's map, (h, w) of its aspect ratio; None: the model finds it by its options.

        Raises InputError.
        """
        ...


@runtime_checkable
class PredictsCamera(Protocol):
    """A depth model that estimates the camera of a photo."""

    @property
    def predicted_camera(self) -> Camera | None:
        """The camera of the last photo that was encoded; None if the checkpoint does not estimate it."""
        ...


@runtime_checkable
class FollowsCamera(Protocol):
    """A depth model whose metres depend on the camera of the photo."""

    def next_camera(self, camera: Camera | None) -> None:
        """Set the camera of the photo that is encoded next; None: it is not known."""
        ...


@runtime_checkable
class UsesCamera(Protocol):
    """A renderer that sees the surface through a camera."""

    @property
    def own_camera(self) -> Camera:
        """The camera of its options."""
        ...

    def look_through(self, camera: Camera) -> None:
        """Use this camera for the next photo."""
        ...


@runtime_checkable
class LearnsByMember(Protocol):
    """A prior that learns while members are refined, separately for each member."""

    def begin(self, members: Sequence[int]) -> None:
        """Start these members with nothing learned. Rows of later calls are theirs, in this order."""
        ...


@dataclass(frozen=True)
class Execution:
    """How networks are executed; `config.Performance` documents each field."""

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
    """A depth model that can decode each row of its features with its own decoder weights, in one call.

    If ``batches_decoders`` is true, the ``parameters`` of `DepthModel.decode` may have a leading batch
    axis, (B, ...) each: row i is decoded with weights i.
    """

    batches_decoders: bool


@runtime_checkable
class Tunable(Protocol):
    """A component whose networks can be executed in several ways, with the same mathematics."""

    def tune(self, how: Execution) -> None:
        """Execute the networks in this way from now on. Raises ConfigError."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """A component that keeps device memory between steps, for each batch size so far."""

    def release_memory(self) -> None:
        """Free that memory, such as captured graphs; the next step allocates what it needs."""
        ...


@runtime_checkable
class Upcasts(Protocol):
    """A prior that may run in half precision and can switch to float32."""

    def upcast(self) -> str:
        """Switch to float32; return the previous precision, empty if nothing changed."""
        ...


@runtime_checkable
class HasBackends(Protocol):
    """A component with several backends, some of which may not run on this machine."""

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each backend and what to do before it can run here; empty if it can run."""
        ...


class Objective(Protocol):
    """A label-free term added to the prior's loss."""

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        ...
