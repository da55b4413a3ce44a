"""Cast shadows of a height field, smooth in the depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.geometry import point_map, valid_depth


def soft_shadows(
    depth: Tensor,
    direction: Tensor,
    *,
    camera: Camera = ORTHOGRAPHIC,
    samples: int = 24,
    reach: float = 0.5,
    softness: float = 0.1,
) -> Tensor:
    r"""Return the share of each light that reaches each point of the surface.

    From a point P the ray P + t l is marched towards the light at K distances and compared with the surface
    that is seen where the ray passes:

    .. math:: V = \prod_{k=1}^{K} \sigma\!\Big(\frac{1 - e_k}{\tau}\Big), \qquad
        e_k = \frac{z_P - z_{surface}(t_k)}{z_P - z_{ray}(t_k)}, \qquad t_k = \rho \Big(\frac{k}{K}\Big)^2

    e is how high the surface rises there above P, in parts of the ray's own rise: above 1 it hides the
    light. Samples are denser near P. Where the ray has left the picture, or passes an invalid pixel, nothing
    occludes.

    Cost: K bilinear look-ups per pixel and light, forward and backward, and their memory. No other option of
    a renderer costs as much.

    Args:
        depth: (B, 1, H, W) relative depth.
        direction: (B, L, 3) unit vectors towards the light: x right, y up, z towards the viewer.
        camera: the camera of the depth map.
        samples: K >= 1.
        reach: rho, the farthest sampled distance, in units of the plane (the picture is 2 high) for an
            orthographic camera, of the point's own depth for a pinhole.
        softness: tau > 0, the width of the penumbra in parts of the ray's rise.

    Returns:
        (B, L, H, W) in [0, 1]; 1 is fully lit. Differentiable in the depth.

    Raises:
        ValueError: for a spherical camera: its light has another direction at each pixel.
    """
    if camera.spherical:
        raise ValueError("shadows of a panorama are not available: choose a renderer without them")
    height, width = depth.shape[-2:]
    surface = _without_invalid(depth)
    points = point_map(surface, camera)
    # The z axis of points grows away from the camera, that of lights towards it.
    towards = torch.cat([direction[..., :2], -direction[..., 2:]], dim=-1)[..., None, None]
    unit = surface.detach()[:, None] if camera.pinhole else torch.ones_like(surface)[:, None]
    climb = unit[:, :, 0] * direction[..., 2].clamp(min=1e-3)[..., None, None]
    lit = depth.new_ones(*direction.shape[:2], height, width)
    for k in range(1, samples + 1):
        distance = reach * (k / samples) ** 2
        ray = points[:, None] + distance * unit * towards
        occluder, inside = _look_up(surface, ray, camera)
        above = (ray[:, :, 2] - occluder) / (distance * climb)
        lit = lit * torch.where(inside, torch.sigmoid(-above / softness), torch.ones_like(above))
    return torch.where(valid_depth(depth), lit, torch.ones_like(lit))


def _without_invalid(depth: Tensor) -> Tensor:
    """Put invalid pixels as far away as the farthest valid one: they occlude nothing."""
    valid = valid_depth(depth)
    farthest = torch.where(valid, depth, torch.zeros_like(depth)).amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(valid, depth, farthest.detach().clamp(min=1e-6))


def _look_up(surface: Tensor, ray: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return the surface's depth (B, L, H, W) where rays (B, L, 3, H, W) pass, and whether it is in view."""
    batch, lights, _, height, width = ray.shape
    u, v, z = ray.unbind(2)
    if camera.pinhole:
        u, v = u / z.clamp(min=1e-6), v / z.clamp(min=1e-6)
    axis_u, axis_v = camera.axes(height, width, dtype=surface.dtype, device=surface.device)
    grid = torch.stack([_relative(u, axis_u), _relative(v, axis_v)], dim=-1)
    inside = (grid.abs() <= 1).all(dim=-1) & (z > 0)
    found = F.grid_sample(
        surface,
        grid.view(batch, lights * height, width, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return found.view(batch, lights, height, width), inside


def _relative(values: Tensor, axis: Tensor) -> Tensor:
    """Map the first and last pixel of an axis to -1 and 1."""
    span = axis[-1] - axis[0]
    # A single pixel is everywhere: there is no other one to be occluded by.
    return torch.zeros_like(values) if len(axis) == 1 else 2 * (values - axis[0]) / span - 1
