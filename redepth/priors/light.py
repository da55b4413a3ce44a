"""The light that a prior is conditioned on."""

from __future__ import annotations

from torch import Tensor

from redepth.contracts import Illumination
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
