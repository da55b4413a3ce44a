"""Matte shading models: Lambert, Oren-Nayar, and spherical-harmonics environment light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination, Material
from redepth.ops import shading
from redepth.ops.geometry import half_turn
from redepth.renderers.shaded import (
    ShadedRenderer,
    check_order,
    draw_colors,
    draw_directions,
    draw_uniform,
)


@dataclass(kw_only=True, eq=False)
class Lambert(ShadedRenderer):
    """Lambert shading (`ops.shading.lambert`): a perfectly matte surface. Options: `ShadedRenderer`'s."""

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light that a matte surface reflects."""
        return shading.lambert(normals, albedo, illumination.direction)


@dataclass(kw_only=True, eq=False)
class OrenNayar(ShadedRenderer):
    """Oren-Nayar shading (`ops.shading.oren_nayar`): a rough matte surface, flatter than Lambert's.

    Each light: roughness sigma uniform in [min_roughness, max_roughness]. The other options are
    `ShadedRenderer`'s.

    Args:
        min_roughness: least roughness sigma, in radians.
        max_roughness: largest roughness sigma, in radians.
    """

    min_roughness: Annotated[float, Field(ge=0, le=1.5)] = 0.1
    max_roughness: Annotated[float, Field(ge=0, le=1.5)] = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(roughness=(self.min_roughness, self.max_roughness))

    def draw_material(self, size: tuple[int, int], generator: Generator) -> Material:
        """Draw the roughness."""
        roughness = draw_uniform(self.min_roughness, self.max_roughness, size, generator)
        return replace(Material.matte(size), roughness=roughness)

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light that a rough matte surface reflects."""
        roughness = illumination.material.roughness
        if roughness is None:
            raise ValueError("these draws have no roughness: they are of another renderer")
        return shading.oren_nayar(normals, albedo, illumination.direction, roughness, view)


@dataclass(kw_only=True, eq=False)
class SphericalHarmonics(ShadedRenderer):
    """Matte shading under a random low-frequency environment (`ops.shading.spherical_harmonics`).

    Each of the L environments: one main light with weight 1 - f, its direction drawn from
    ``light_distribution`` (priors are conditioned on this one), and M fill lights anywhere on the sphere,
    f / M each; kept up to order 2 of the spherical harmonics. With ``light_saturation`` every light has its
    own colour. The other options are `ShadedRenderer`'s.

    Args:
        fill_lights: M, the number of weak lights around the main one.
        fill: f, the share of the light that the fill lights have.
    """

    fill_lights: Annotated[int, Field(ge=1, le=64)] = 3
    fill: Annotated[float, Field(ge=0, le=1)] = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shadows != "none":
            raise ValueError("shadows: an environment has no single light that could cast them; use none")

    def draw(self, batch: int, generator: Generator) -> Illumination:
        """Draw ``coefficients`` (batch, L, 9, 3) of the environments, and their main direction."""
        size, fills = (batch, self.lights), (batch, self.lights * self.fill_lights)
        main = draw_directions(self.light_distribution, self.min_elevation, size, generator)
        fill = shading.normalize(torch.randn(*fills, 3, generator=generator)).view(*size, self.fill_lights, 3)
        fill = half_turn(fill)  # for the same light per seed, see `draw_directions`
        weight = torch.tensor([1 - self.fill] + [self.fill / self.fill_lights] * self.fill_lights)
        colors = draw_colors(self.light_saturation, (*size, self.fill_lights + 1), generator)
        lights = torch.cat([main[:, :, None], fill], dim=2)
        coefficients = shading.project_lights(lights, weight[:, None] * colors)
        return Illumination.of(main, coefficients=coefficients)

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light that a matte surface reflects under the environment; invalid pixels stay dark."""
        valid = (normals[:, 2:3] > 0)[:, None]
        lit = shading.spherical_harmonics(normals, albedo, illumination["coefficients"])
        return torch.where(valid, lit, torch.zeros_like(lit))
