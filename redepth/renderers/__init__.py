"""Re-lighting renderers: relative depth and a photo to the photo under another light."""

from __future__ import annotations

from redepth.contracts import Renderer
from redepth.registry import Registry

REGISTRY = Registry("renderer", "redepth.renderers", Renderer)
REGISTRY.add(
    "blinn-phong",
    "redepth.renderers.blinn_phong:BlinnPhong",
    "Blinn-Phong shading of the height field, composited with the photo (the paper's)",
)

register = REGISTRY.register
