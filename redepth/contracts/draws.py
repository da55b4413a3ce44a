"""The random numbers of a step, and the light and the material among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from typing_extensions import Self


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
