"""Re-lighting renderers: relative depth and a photo to the photo under another light."""

from __future__ import annotations

from redepth.registry import Registry

REGISTRY = Registry("renderer", "redepth.renderers", "redepth.contracts:Renderer")
REGISTRY.add(
    "blinn-phong",
    "redepth.renderers.blinn_phong:BlinnPhong",
    "Blinn-Phong shading of the height field, composited with the photo (the paper's); torch or Triton",
)
REGISTRY.add(
    "phong", "redepth.renderers.blinn_phong:Phong", "Phong shading: a highlight around the mirrored light"
)
REGISTRY.add("lambert", "redepth.renderers.matte:Lambert", "Lambert shading: a perfectly matte surface")
REGISTRY.add("oren-nayar", "redepth.renderers.matte:OrenNayar", "Oren-Nayar shading: a rough matte surface")
REGISTRY.add(
    "ggx", "redepth.renderers.ggx:GGX", "Cook-Torrance shading with GGX: roughness and metalness sampled"
)
REGISTRY.add(
    "spherical-harmonics",
    "redepth.renderers.matte:SphericalHarmonics",
    "matte shading under a random low-frequency environment, order 2",
)
REGISTRY.add(
    "mesh",
    "redepth.renderers.mesh:Mesh",
    "Blinn-Phong shading of a mesh cut at depth edges, the viewpoint turned; pytorch3d or nvdiffrast",
)

register = REGISTRY.register
