"""Relighting of a triangle mesh of the scene, from the photo's viewpoint or from one beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination
from redepth.errors import MissingDependencyError
from redepth.ops import color, mesh, shading
from redepth.renderers import rasterize_nvdiffrast, rasterize_pytorch3d
from redepth.renderers.blinn_phong import Glossy


class Fragments(Protocol):
    """What a rasterizer sees through each pixel of N pictures."""

    @property
    def covered(self) -> Tensor:
        """Whether there is a triangle, (N, 1, H, W) bool."""
        ...

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Return attributes (N, V, A) of the vertices as pictures (N, A, H, W), 0 where nothing is seen."""
        ...

    def antialias(self, image: Tensor) -> Tensor:
        """Smooth a picture (N, C, H, W) across silhouettes, if the rasterizer can."""
        ...


class Rasterizer(Protocol):
    """A module that rasterizes and interpolates, and does nothing else."""

    def ensure_available(self) -> None:
        """Raise MissingDependencyError now if it cannot run here."""
        ...

    def rasterize(self, clip: Tensor, faces: Sequence[Tensor], height: int, width: int) -> Fragments:
        """Find what covers the pixels: (N, V, 4) clip coordinates (`ops.mesh.clip_space`), N times (F, 3)."""
        ...


RASTERIZERS: dict[str, Rasterizer] = {"pytorch3d": rasterize_pytorch3d, "nvdiffrast": rasterize_nvdiffrast}


@dataclass(kw_only=True, eq=False)
class Mesh(Glossy):
    """Blinn-Phong shading of a triangle mesh (`ops.mesh`), one vertex per pixel, cut at depth edges.

    Positions and normals are interpolated over the triangles and shaded as `BlinnPhong` shades the pixels;
    the photo is carried along. From the photo's own viewpoint the picture is `BlinnPhong`'s, but for the
    normals, which are those of the faces around a vertex and never span a cut. Pixels without a triangle show
    the albedo where it stands in the photo, unlit: the photo itself, or the grey of ``shading-only``.

    With ``max_rotation`` each light comes with a viewpoint of its own: the scene is turned about the point at
    median depth on the optical axis, about an axis in the image plane. The light stays with the camera, so
    ``direction`` says how the picture is lit, as it does without rotation; shadows are those of the scene as
    the photo shows it, cast by the light turned back, and are carried along like the photo. An orthographic
    camera takes relative depth for a distance in half picture heights: what is far from the median moves far.

    Light is drawn as for `BlinnPhong`. The other options are those of `Glossy` and `ShadedRenderer`.

    Args:
        rasterizer: ``pytorch3d`` (CPU, slowly, and CUDA) or ``nvdiffrast`` (CUDA only, fast, smooth
            silhouettes; its licence is non-commercial).
        cut: relative step of depth between neighbouring pixels that counts as an edge and is cut.
        max_rotation: largest angle of a random turn of the viewpoint, in degrees, uniform over the disc of
            yaw and pitch; 0: the photo's viewpoint. B * L meshes are rasterized instead of B.
    """

    rasterizer: Literal["pytorch3d", "nvdiffrast"] = "pytorch3d"
    cut: Annotated[float, Field(gt=0)] = 0.1
    max_rotation: Annotated[float, Field(ge=0, le=15)] = 0.0

    waits: ClassVar[bool] = True
    """How many triangles a mesh has is read from the device: such a step is no CUDA graph."""

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each rasterizer and what stands in its way here, if anything."""
        return {name: _obstacle(rasterizer) for name, rasterizer in RASTERIZERS.items()}

    def ensure_available(self) -> None:
        """Raise MissingDependencyError now if the rasterizer cannot run here."""
        RASTERIZERS[self.rasterizer].ensure_available()

    def sample(self, batch: int, generator: Generator) -> Illumination:
        """Draw the light of ``batch`` members, and last, if viewpoints turn, ``rotation`` (batch, L, 3).

        That is a rotation vector (`ops.mesh.rotation_matrix`) in radians.
        """
        light = super().sample(batch, generator)
        if not self.max_rotation:
            return light
        rotation = draw_rotations(math.radians(self.max_rotation), (batch, self.lights), generator)
        return Illumination({**light.tensors, "rotation": rotation})

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """Re-light: (B,1,H,W) relative depth, (B|1,3,H,W) linear image -> sRGB (B,L,3,H,W)."""
        lights, (height, width) = illumination.direction.shape[1], depth.shape[-2:]
        surface = mesh.grid_mesh(depth, self._camera, cut=self.cut)
        albedo, light = self.albedo(image_linear).expand(len(depth), -1, -1, -1), illumination
        if "rotation" in illumination.tensors:
            # Each light has a viewpoint of its own: from here on a batch of B * L pictures with one light.
            light = Illumination({name: t.flatten(0, 1)[:, None] for name, t in illumination.tensors.items()})
            depth, albedo = (x.repeat_interleave(lights, 0) for x in (depth, albedo))
            surface = self._turned(surface.repeat(lights), depth, light)
        clip = mesh.clip_space(surface.points, self._camera, height, width)
        fragments = RASTERIZERS[self.rasterizer].rasterize(clip, surface.faces, height, width)
        relit = self._shade(fragments, surface, depth, albedo, light)
        unlit = color.linear_to_srgb(albedo)[:, None]
        picture = torch.where(fragments.covered[:, None], relit, unlit)
        return fragments.antialias(picture.flatten(1, 2)).view(-1, lights, 3, height, width)

    def _turned(self, surface: mesh.GridMesh, depth: Tensor, light: Illumination) -> mesh.GridMesh:
        rotation = mesh.rotation_matrix(light["rotation"][:, 0])
        return mesh.turn(surface, rotation, mesh.median_depth(depth), self._camera)

    def _shade(
        self,
        fragments: Fragments,
        surface: mesh.GridMesh,
        depth: Tensor,
        albedo: Tensor,
        light: Illumination,
    ) -> Tensor:
        """Return the re-lit sRGB (N, L, 3, H, W) of what is seen; what is not has no meaning."""
        attributes = torch.cat([surface.points, surface.normals, surface.uv], dim=-1)
        position, normal, uv = fragments.interpolate(attributes).split([3, 3, 2], dim=1)
        if self.shadows == "soft":
            albedo = torch.cat([albedo, self.visibility(depth, _in_scene(light))], dim=1)
        carried = F.grid_sample(albedo, uv.movedim(1, -1), padding_mode="border", align_corners=False)
        # The lights' frame is the points' reflected in the camera: there the way to it is the point itself.
        view = position if self._camera.pinhole else position.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
        normal, view = (shading.normalize(x, dim=1) for x in (normal, view))
        reflected = self.reflect(normal, view, carried[:, :3], light)
        if self.shadows == "soft":
            reflected = reflected * carried[:, 3:, None]
        return self.expose(reflected, carried[:, :3], light)


def draw_rotations(largest: float, size: tuple[int, int], generator: Generator) -> Tensor:
    """Draw rotation vectors (*size, 3) about axes in the image plane, uniform over a disc, in radians."""
    radius, azimuth = torch.rand(2, *size, generator=generator)
    angle, azimuth = largest * radius.sqrt(), 2 * math.pi * azimuth
    return torch.stack([angle * azimuth.cos(), angle * azimuth.sin(), torch.zeros(size)], dim=-1)


def _in_scene(light: Illumination) -> Illumination:
    """Turn the lights of turned viewpoints back to where they stand in the scene as the photo shows it."""
    if "rotation" not in light.tensors:
        return light
    rotation = mesh.rotation_matrix(light["rotation"])
    direction = (rotation.mT @ light.direction[..., None])[..., 0]
    return Illumination({**light.tensors, "direction": direction})


def _obstacle(rasterizer: Rasterizer) -> str:
    try:
        rasterizer.ensure_available()
    except MissingDependencyError as error:
        return str(error)
    return ""
