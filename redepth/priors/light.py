"""The light and the material that a prior is conditioned on."""

from __future__ import annotations

from torch import Tensor

from redepth.contracts import Illumination, Material
from redepth.errors import ConfigError


def light_direction(illumination: Illumination) -> Tensor:
    """Return unit vectors towards the light: x right, y up, z towards the viewer.

    Raises:
        ConfigError: if the renderer draws no direction.
    """
    if "direction" not in illumination.tensors:
        raise ConfigError(
            "the prior is conditioned on the light, and the renderer does not draw direction: set "
            "prior.condition_on=photo, or choose another renderer"
        )
    return illumination.direction


def light_material(illumination: Illumination) -> Material:
    """Return the material under each light.

    Raises:
        ConfigError: if the renderer draws a part of it alone.
    """
    try:
        return illumination.material
    except ValueError as error:
        raise ConfigError(
            f"the prior is conditioned on the material, and {error}: draw a whole contracts.Material, or set "
            "prior.condition_on=photo"
        ) from None
