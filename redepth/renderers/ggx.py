"""Cook-Torrance shading with the GGX distribution: the material model of physically based rendering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination, Material
from redepth.ops import shading
from redepth.renderers.shaded import ShadedRenderer, check_order, draw_uniform

UnitInterval = Annotated[float, Field(ge=0, le=1)]
Roughness = Annotated[float, Field(ge=0.05, le=1)]


@dataclass(kw_only=True, eq=False)
class GGX(ShadedRenderer):
    """Cook-Torrance shading with GGX, correlated Smith masking and Schlick's Fresnel (`ops.shading.ggx`).

    Each light: roughness uniform in [min_roughness, max_roughness], metalness uniform in [min_metalness,
    max_metalness]. The other options are `ShadedRenderer`'s.

    Args:
        min_roughness: least roughness rho; alpha = rho^2.
        max_roughness: largest roughness rho.
        min_metalness: least metalness m.
        max_metalness: largest metalness m.
    """

    min_roughness: Roughness = 0.3
    max_roughness: Roughness = 0.9
    min_metalness: UnitInterval = 0.0
    max_metalness: UnitInterval = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(
            roughness=(self.min_roughness, self.max_roughness),
            metalness=(self.min_metalness, self.max_metalness),
        )

    def draw_material(self, size: tuple[int, int], generator: Generator) -> Material:
        """Draw roughness and metalness, and state the Blinn-Phong lobe nearest to them."""
        roughness = draw_uniform(self.min_roughness, self.max_roughness, size, generator)
        metalness = draw_uniform(self.min_metalness, self.max_metalness, size, generator)
        # Exponent of the Blinn-Phong lobe with GGX's width (Walter et al. 2007).
        exponent = (2 / roughness**4 - 2).clamp(min=1.0)
        specular = shading.DIELECTRIC_REFLECTANCE + (1 - shading.DIELECTRIC_REFLECTANCE) * metalness
        return Material(1 - specular, specular, exponent, roughness=roughness, metalness=metalness)

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light reflected by the Cook-Torrance model."""
        material = illumination.material
        if material.roughness is None or material.metalness is None:
            raise ValueError("these draws have no roughness and metalness: they are of another renderer")
        return shading.ggx(
            normals, albedo, illumination.direction, material.roughness, material.metalness, view
        )
