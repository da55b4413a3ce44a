"""Draw pictures of rooms, streets and terrain with exact depth and normals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor

from redepth.data.scenes.rooms.layouts import TRAINING, Layout
from redepth.data.scenes.rooms.lighting import (
    View,
    draw_light,
    exposed,
    shade,
    sky_colour,
    through_air,
)
from redepth.data.scenes.rooms.skins import Skins
from redepth.data.scenes.rooms.solids import unit
from redepth.data.scenes.rooms.stage import Stage
from redepth.data.scenes.rooms.world import World
from redepth.data.scenes.synthetic import DISPARITY_MARGIN, DISPARITY_SCALE
from redepth.ops.color import srgb_to_linear

PER_FAMILY = 2
"""Scenes of one family that are drawn together."""

FARTHEST = 25.0
"""What is this many times as far as the harmonic mean is sky."""


@dataclass(frozen=True)
class RoomScenes:
    """A batch of scenes seen by pinhole cameras.

    Attributes:
        image: (B, 3, H, W) sRGB in [0, 1].
        depth: (B, 1, H, W) depth along the optical axis, infinite in the sky; its harmonic mean is 1.
        normals: (B, 3, H, W) unit normals, x right, y up, z to the viewer; 0 in the sky.
        field_of_view: (B,) horizontal, in degrees.
        albedo: (B, 3, H, W) linear, of the surfaces; in the sky the picture's own colours.
    """

    image: Tensor
    depth: Tensor
    normals: Tensor
    field_of_view: Tensor
    albedo: Tensor

    @property
    def sky(self) -> Tensor:
        """Where nothing is, (B, 1, H, W) bool."""
        return torch.isinf(self.depth)

    @property
    def disparity(self) -> Tensor:
        """D = 7 / z - 0.1, so that ``ops.geometry.relative_depth`` gives z back; 0 in the sky."""
        return (DISPARITY_SCALE / self.depth - DISPARITY_MARGIN).clamp(min=0.0)

    def to(self, device: torch.device) -> RoomScenes:
        """Return a copy on the device."""
        return RoomScenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def room_scenes(
    count: int,
    generator: Generator,
    *,
    height: int = 96,
    width: int = 96,
    families: Mapping[str, Layout] = TRAINING,
    dtype: torch.dtype = torch.float32,
) -> RoomScenes:
    """Draw scenes of random families, ``PER_FAMILY`` of each that is drawn.

    Args:
        count: number of scenes.
        generator: of the CPU.
        height: in pixels.
        width: in pixels.
        families: `layouts.TRAINING` or `unseen.UNSEEN`, or a part of one.
        dtype: of the computation and the result.
    """
    names, parts, left = list(families), [], count
    while left > 0:
        layout = families[names[int(torch.randint(len(names), (), generator=generator))]]
        stage = Stage(min(left, PER_FAMILY), generator, dtype)
        layout(stage)
        parts.append(picture_of(stage, height, width))
        left -= PER_FAMILY
    return RoomScenes(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(RoomScenes)))


@torch.no_grad()
def picture_of(stage: Stage, height: int, width: int) -> RoomScenes:
    """Photograph a finished stage."""
    world = World(stage)
    view = seen(stage, world, height, width)
    albedo, gloss, exponent = Skins(stage).at(*_on_skins(stage, world, view))
    light = draw_light(stage)
    linear = shade(world, view, light, albedo, gloss, exponent)
    sky, horizon = sky_colour(stage, view.rays)
    linear = through_air(linear, horizon, view.depth, light.haze)
    linear = torch.where(view.sky[:, None], sky, linear)
    size = (height, width)
    image = exposed(stage, linear.unflatten(-1, size))
    # World to camera: its axes are the columns of `view`; z of normals is to the viewer.
    facing = stage.view.mT @ view.normals
    facing = torch.where(view.sky[:, None], 0.0, facing * facing.new_tensor([1.0, 1.0, -1.0])[:, None])
    depth = view.depth * mean_disparity(view.depth)[:, None]
    lit = torch.where(view.sky[:, None], srgb_to_linear(image).flatten(-2), albedo)
    return RoomScenes(
        image,
        depth.unflatten(-1, size)[:, None],
        facing.unflatten(-1, size),
        stage.field_of_view,
        lit.unflatten(-1, size),
    )


def mean_disparity(depth: Tensor) -> Tensor:
    """Return the mean of 1 / z outside of the sky, (N,), of depths (N, P); 1 if all is sky."""
    known = torch.isfinite(depth)
    mean = torch.where(known, 1 / depth, 0.0).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)
    return torch.where(mean > 0, mean, 1.0)


def seen(stage: Stage, world: World, height: int, width: int) -> View:
    """Cast the camera's rays; their component along the optical axis is 1, so t is the depth."""
    tangent = torch.tan(torch.deg2rad(stage.field_of_view) / 2)[:, None]
    u = (2 * torch.arange(width, dtype=stage.dtype) + 1) / width - 1
    v = (1 - (2 * torch.arange(height, dtype=stage.dtype) + 1) / height) * (height / width)
    across, up = (axis.flatten() * tangent for axis in torch.meshgrid(u, v, indexing="xy"))
    rays = stage.view @ torch.stack([across, up, torch.ones_like(across)], dim=1)
    depth, which = world.nearest(stage.eye[..., None], rays, 1e-3, torch.inf)
    beyond = depth * mean_disparity(depth)[:, None] > FARTHEST
    depth, which = depth.masked_fill(beyond, torch.inf), which.masked_fill(beyond, -1)
    points = stage.eye[..., None] + torch.where(which < 0, 0.0, depth)[:, None] * rays
    return View(height, width, rays, points, world.normals(points, which), depth, which)


def _on_skins(stage: Stage, world: World, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Return points in the axes of their things, the numbers of their materials, and the pitch of pixels."""
    rows = torch.arange(stage.count)[:, None]
    thing = view.which.clamp(min=0)
    turn = torch.stack([t.turn for t in stage.things], dim=1)[rows, thing]
    points = view.points.transpose(1, 2) - world.centre[rows, thing]
    local = torch.einsum("npji,npj->npi", turn, points)
    skin = torch.tensor([t.skin for t in stage.things])[thing]
    shell = torch.tensor([t.kind == "shell" for t in stage.things])[thing]
    upward = view.normals[:, 1]
    skin = skin + shell * torch.where(upward > 0.9, 0, torch.where(upward < -0.9, 2, 1))
    slant = (view.normals * unit(view.rays, dim=1)).sum(dim=1).abs().clamp(min=0.15)
    width = 2 * torch.tan(torch.deg2rad(stage.field_of_view) / 2)[:, None] / view.width
    depth = torch.where(view.sky, 1.0, view.depth)
    return local.transpose(1, 2), skin, depth * width / slant
