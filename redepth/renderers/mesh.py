"""Relighting of a triangle mesh of the scene, from the photo's viewpoint or from one beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination
from redepth.errors import ConfigError, MissingDependencyError
from redepth.ops import color, mesh, shading
from redepth.ops.camera import Camera
from redepth.ops.geometry import half_turn
from redepth.renderers import rasterize_nvdiffrast, rasterize_pytorch3d
from redepth.renderers.blinn_phong import Glossy


class Fragments(Protocol):
    """The visible triangles of N pictures."""

    @property
    def covered(self) -> Tensor:
        """Whether a pixel has a triangle, (N, 1, H, W) bool."""
        ...

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Return attributes (N, V, A) of the vertices as pictures (N, A, H, W), 0 in uncovered pixels."""
        ...

    def antialias(self, image: Tensor) -> Tensor:
        """Smooth a picture (N, C, H, W) across silhouettes, if the rasterizer can."""
        ...


class Rasterizer(Protocol):
    """A module that rasterizes and interpolates."""

    def ensure_available(self) -> None:
        """Raise MissingDependencyError if it cannot run here."""
        ...

    def rasterize(self, clip: Tensor, faces: Sequence[Tensor], height: int, width: int) -> Fragments:
        """Rasterize faces, N times (F, 3), of vertices (N, V, 4) in clip space (`ops.mesh.clip_space`)."""
        ...


RASTERIZERS: dict[str, Rasterizer] = {"pytorch3d": rasterize_pytorch3d, "nvdiffrast": rasterize_nvdiffrast}


@dataclass(kw_only=True, eq=False)
class Mesh(Glossy):
    """Blinn-Phong shading of a triangle mesh (`ops.mesh`), one vertex per pixel, cut at depth edges.

    Positions and normals are interpolated over the triangles and shaded as `BlinnPhong` shades pixels; the
    albedo is the texture. From the photo's viewpoint the picture differs from `BlinnPhong`'s only in the
    normals: they are those of the faces around a vertex and never span a cut. Pixels without a triangle show
    the unlit albedo at their place in the photo: the photo itself, unless ``albedo`` is another one.

    With ``max_rotation`` each light has another viewpoint: the scene is turned about the point at median
    depth on the optical axis, about an axis in the image plane. The light stays with the camera, so
    ``direction`` is relative to the picture, as without rotation. Shadows are those of the unturned scene,
    cast by the light turned back; they are part of the texture. An orthographic camera takes relative depth
    for a distance in half picture heights: points far from the median depth move far.

    Light is drawn as for `BlinnPhong`. The other options are those of `Glossy` and `ShadedRenderer`.

    Args:
        rasterizer: who draws the mesh: ``pytorch3d`` (CPU, slowly, and CUDA) or ``nvdiffrast`` (CUDA only,
            fast, smooth silhouettes; its licence is non-commercial).
        cut: relative step of depth between neighbouring pixels above which the mesh is cut.
        max_rotation: largest angle of a random turn of the viewpoint, in degrees; 0: the photo's viewpoint.
            It is uniform over the disc of yaw and pitch. B * L meshes are rasterized instead of B.
    """

    rasterizer: Literal["pytorch3d", "nvdiffrast"] = "pytorch3d"
    cut: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    max_rotation: Annotated[float, Field(ge=0, le=15)] = 0.0

    waits: ClassVar[bool] = True
    """The host reads the number of triangles from the device: such a step cannot be a CUDA graph."""

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each rasterizer and why it cannot run here; empty if it can."""
        return {name: _obstacle(rasterizer) for name, rasterizer in RASTERIZERS.items()}

    def ensure_available(self) -> None:
        """Raise MissingDependencyError if the rasterizer cannot run here, or as the base class."""
        super().ensure_available()
        RASTERIZERS[self.rasterizer].ensure_available()

    def look_through(self, camera: Camera) -> None:
        """Use this camera for the next photo.

        Raises:
            ConfigError: for a spherical camera: a rasterizer projects onto a plane.
        """
        if camera.spherical:
            raise ConfigError(
                "renderer mesh cannot see a panorama: choose another, such as renderer.name=blinn-phong"
            )
        super().look_through(camera)

    def draw(self, batch: int, generator: Generator) -> Illumination:
        """Draw the light of ``batch`` members, and ``rotation`` (batch, L, 3) if viewpoints turn.

        That is the rotation vector of the points (`ops.mesh.rotation_matrix`) in radians.
        """
        light = super().draw(batch, generator)
        if not self.max_rotation:
            return light
        rotation = draw_rotations(math.radians(self.max_rotation), (batch, self.lights), generator)
        return replace(light, tensors={**light.tensors, "rotation": rotation})

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """Re-light: (B,1,H,W) relative depth, (B|1,3,H,W) linear image -> sRGB (B,L,3,H,W)."""
        lights, (height, width) = illumination.direction.shape[1], depth.shape[-2:]
        surface = mesh.grid_mesh(depth, self._camera, cut=self.cut)
        albedo, light = self.albedo_of(image_linear).expand(len(depth), -1, -1, -1), illumination
        if "rotation" in illumination.tensors:
            # Each light has another viewpoint: from here on a batch of B * L pictures with one light.
            light = illumination.map(lambda values: values.flatten(0, 1)[:, None])
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
        """Return the re-lit sRGB (N, L, 3, H, W); uncovered pixels have no meaning."""
        attributes = torch.cat([surface.points, surface.normals, surface.uv], dim=-1)
        position, normal, uv = fragments.interpolate(attributes).split([3, 3, 2], dim=1)
        if self.shadows == "soft":
            albedo = torch.cat([albedo, self.visibility(depth, _in_scene(light))], dim=1)
        carried = F.grid_sample(albedo, uv.movedim(1, -1), padding_mode="border", align_corners=False)
        if self._camera.pinhole:
            # To the camera from (x, y, z), z away from it: (-x, -y, z) in the frame of the normals.
            view = half_turn(position, dim=1)
        else:
            view = position.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
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
    """Turn the lights of turned viewpoints back to their directions in the unturned scene."""
    if "rotation" not in light.tensors:
        return light
    rotation = mesh.viewer_rotation(mesh.rotation_matrix(light["rotation"]))
    direction = (rotation.mT @ light.direction[..., None])[..., 0]
    return replace(light, tensors={**light.tensors, "direction": direction})


def _obstacle(rasterizer: Rasterizer) -> str:
    try:
        rasterizer.ensure_available()
    except MissingDependencyError as error:
        return str(error)
    return ""
