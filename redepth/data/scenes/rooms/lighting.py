"""Light on a scene: a lamp or sun with shadows, light from all around that corners keep out, a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.data.scenes.rooms.solids import unit
from redepth.data.scenes.rooms.stage import Stage
from redepth.data.scenes.rooms.world import World

TILE = 4
"""Neighbouring pixels sample different points of a lamp, in tiles of this side, and are then averaged."""

SUN = 1e3
LIFT = 2e-3


@dataclass(frozen=True)
class View:
    """What the camera sees, all (N, ., H * W): points, unit normals, depth and which thing."""

    height: int
    width: int
    rays: Tensor
    points: Tensor
    normals: Tensor
    depth: Tensor
    which: Tensor

    @property
    def sky(self) -> Tensor:
        """Where nothing is, (N, P)."""
        return self.which < 0


@dataclass(frozen=True)
class Light:
    """The light of N scenes.

    Attributes:
        position: (N, 3) of the lamp.
        middle: (N, 3) point at which the lamp has strength 1.
        radius: (N, 1) of the lamp.
        colour: (N, 3, 1) and
        above, below: (N, 3, 1) light from above and from below.
        reach: (N, 1) how far away a thing still keeps out light from all around.
        fill: (N, 3) direction towards a weak second light, (N, 1) ``fill_strength``.
        haze: (N, 1) distance in which air hides a thing by 63 %.
    """

    position: Tensor
    middle: Tensor
    radius: Tensor
    colour: Tensor
    above: Tensor
    below: Tensor
    reach: Tensor
    fill: Tensor
    fill_strength: Tensor
    haze: Tensor


def draw_light(stage: Stage) -> Light:
    """Draw the light: a lamp near what the camera looks at, or a sun."""
    # Behind the camera is -90 degrees; from behind the scene is rare.
    azimuth = torch.deg2rad(-90 + stage.uniform(-1, 1).sign() * stage.uniform(0, 1) ** 0.7 * 150)
    elevation = torch.deg2rad(stage.uniform(25, 80))
    towards = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.sin(), elevation.cos() * azimuth.sin()], dim=-1
    )
    span = stage.target.norm(dim=-1, keepdim=True).clamp(min=0.5)
    sun = stage.chance(0.35 if stage.indoors else 0.8)[:, None]
    distance = torch.where(sun, SUN, span * stage.uniform(0.6, 1.8)[:, None])
    soft = stage.uniform(0.0, 1.0)[:, None] ** 2 * 0.3
    warm = stage.uniform(-0.25, 0.25)[:, None]
    colour = torch.cat([1 + warm, torch.ones_like(warm), 1 - warm], dim=1)[..., None]
    ambient = stage.log_uniform(0.12, 0.9)[:, None, None]
    cool = 1 - 0.5 * (colour - 1)
    return Light(
        position=stage.target + towards * distance,
        middle=stage.target,
        radius=soft * torch.where(sun, SUN * 0.3, distance),
        colour=colour,
        above=ambient * cool,
        below=ambient * stage.uniform(0.2, 0.9)[:, None, None] * colour,
        reach=span * stage.uniform(0.1, 0.4)[:, None],
        fill=F.normalize(stage.rand(3) * 2 - 1 + torch.tensor([0, 1.2, 0]), dim=-1),
        fill_strength=stage.uniform(0.1, 0.5)[:, None] * stage.chance(0.4)[:, None],
        haze=torch.where(
            stage.chance(0.0 if stage.indoors else 0.35)[:, None], stage.log_uniform(1, 8)[:, None], 1e4
        )
        * span,
    )


def shade(world: World, view: View, light: Light, albedo: Tensor, gloss: Tensor, exponent: Tensor) -> Tensor:
    """Return the linear light that each pixel sees of things, (N, 3, P)."""
    lit, open_ = _visibility(world, view, light)
    towards = light.position[..., None] - view.points
    square = (towards * towards).sum(dim=1)
    towards = towards * square.rsqrt()[:, None]
    near = (light.position - light.middle).square().sum(dim=-1, keepdim=True)
    strength = (near / square).clamp(max=6.0) * lit
    cosine = (view.normals * towards).sum(dim=1).clamp(min=0)
    up = 0.5 + 0.5 * view.normals[:, 1:2]
    around = torch.lerp(light.below, light.above, up) * open_[:, None]
    fill = (view.normals * light.fill[..., None]).sum(dim=1).clamp(min=0) * light.fill_strength * open_
    diffuse = albedo * (light.colour * (strength * cosine)[:, None] + around + fill[:, None])
    half = unit(towards - unit(view.rays, dim=1), dim=1)
    shine = (view.normals * half).sum(dim=1).clamp(min=1e-4) ** exponent
    return diffuse + (gloss * strength * shine * (cosine > 0))[:, None]


def _visibility(world: World, view: View, light: Light) -> tuple[Tensor, Tensor]:
    """Return the shares of the lamp and of the surroundings that reach each pixel, (N, P) each."""
    lift = LIFT * view.depth.clamp(max=1e4)[:, None]
    start = torch.where(view.sky[:, None], 0.0, view.points) + lift.clamp(max=0.05) * view.normals
    tile = _tiles(view.height, view.width)
    u, v = ((tile + 0.5) / TILE**2), _van_der_corput(tile)
    first, second = _frame(view.normals)
    lamp = light.position[..., None] + light.radius[..., None] * _on_ball(u, v).to(start)
    blocked = torch.isfinite(world.nearest(start, lamp - start, 0.0, 1.0, walls=False, rough=True)[0])
    radius, angle = u.to(start).sqrt(), 2 * math.pi * v.to(start)
    around = (
        first * (radius * angle.cos())
        + second * (radius * angle.sin())
        + view.normals * (1 - radius**2).sqrt()
    )
    met = world.nearest(start, around, 0.0, 1e3, rough=True)[0]
    free = 1 - torch.exp(-met / light.reach)
    both = torch.stack([1 - blocked.to(start), torch.where(torch.isfinite(met), free, 1.0)], dim=1)
    lit, open_ = _averaged(both, view).unbind(dim=1)
    hard = light.radius < 0.02 * (light.position - light.middle).norm(dim=-1, keepdim=True)
    return torch.where(hard, both[:, 0], lit), open_


def _tiles(height: int, width: int) -> Tensor:
    """Return the number of each pixel's place in its tile, 0 to 15, (H * W,), scattered."""
    order = torch.tensor([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5]).view(TILE, TILE)
    rows, columns = -(-height // TILE), -(-width // TILE)
    return order.repeat(rows, columns)[:height, :width].flatten()


def _van_der_corput(number: Tensor) -> Tensor:
    """Reverse the four bits of a number, and divide by 16."""
    bits = [(number >> k) & 1 for k in range(4)]
    return (bits[0] * 8 + bits[1] * 4 + bits[2] * 2 + bits[3] + 0.5) / TILE**2


def _on_ball(u: Tensor, v: Tensor) -> Tensor:
    """Return unit vectors (3, P), spread over the ball."""
    z, angle = 2 * u - 1, 2 * math.pi * v
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z])


def _frame(n: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors at right angles to unit normals and to each other, (N, 3, P) (Duff et al. 2017)."""
    x, y, z = n.unbind(1)
    sign = torch.where(z < 0, -1.0, 1.0).to(n)
    a = -1 / (sign + z)
    b = x * y * a
    first = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], dim=1)
    return first, torch.stack([b, sign + y * y * a, -y], dim=1)


def _averaged(values: Tensor, view: View) -> Tensor:
    """Average (N, C, P) over tiles around each pixel, among pixels of its own surface."""
    size = (view.height, view.width)
    inverse = torch.where(view.sky, 0.0, 1 / view.depth)
    guide = torch.cat([view.normals, inverse[:, None]], dim=1).unflatten(-1, size)
    values = values.unflatten(-1, size)
    both = F.pad(torch.cat([guide, values], dim=1), (2, 2, 2, 2), mode="replicate")
    total, weights = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    height, width = size
    for i in range(TILE + 1):
        for j in range(TILE + 1):
            there = both[:, :, i : i + height, j : j + width]
            alike = (there[:, :3] * guide[:, :3]).sum(dim=1, keepdim=True) > 0.9
            near = (there[:, 3:4] - guide[:, 3:4]).abs() < 0.06 * guide[:, 3:4]
            # Ends count half: each number of a tile then has the same weight.
            weight = (0.5 if i in (0, TILE) else 1.0) * (0.5 if j in (0, TILE) else 1.0) * (alike & near)
            total, weights = total + weight * there[:, 4:], weights + weight
    return (total / weights.clamp(min=1e-6)).flatten(2)


def sky_colour(stage: Stage, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sky's light in each direction (N, 3, P), and that at the horizon (N, 3, 1)."""
    towards = unit(rays, dim=1)
    grey = stage.uniform(0.5, 1.3)[:, None, None]
    blue = stage.uniform(0, 1)[:, None, None] ** 0.7
    horizon = grey * torch.cat([1 - 0.15 * blue, 1 - 0.08 * blue, torch.ones_like(blue)], dim=1)
    zenith = grey * torch.cat([1 - 0.75 * blue, 1 - 0.5 * blue, 1 - 0.1 * blue], dim=1)
    colour = torch.lerp(horizon, zenith, towards[:, 1:2].clamp(min=0) ** 0.6)
    angle = (
        stage.uniform(2, 9, 4, 2)[..., None]
        * towards[:, None, (0, 1)]
        * torch.tensor([1.0, 2.5]).view(2, 1).to(rays)
    )
    waves = torch.sin(angle.sum(dim=2) + stage.uniform(0, 6.3, 4)[..., None])
    cloud = torch.sigmoid(2.5 * waves.sum(dim=1, keepdim=True) - 1) * stage.chance(0.5)[:, None, None]
    return torch.lerp(colour, grey * 1.1, 0.7 * cloud), horizon


def through_air(things: Tensor, horizon: Tensor, depth: Tensor, haze: Tensor) -> Tensor:
    """Mix the horizon's light into what is far away."""
    clear = torch.exp(-depth.clamp(max=1e6) / haze)[:, None]
    return torch.lerp(horizon.expand_as(things), things, clear)


def exposed(stage: Stage, linear: Tensor) -> Tensor:
    """Return an 8-bit-like sRGB picture (N, 3, H, W) of linear light: exposure, lens, sensor."""
    bright = linear.mean(dim=1).flatten(1)
    anchor = bright.mean(dim=1) + 1.2 * bright.std(dim=1)
    linear = linear * (stage.uniform(0.4, 0.95) / anchor.clamp(min=1e-4)).view(-1, 1, 1, 1)
    rolled = 1 - torch.exp(-1.4 * linear)
    linear = torch.where(stage.chance(0.5).view(-1, 1, 1, 1), rolled, linear)
    tint = 1 + stage.uniform(-0.08, 0.08, 3, 1, 1)
    picture = (linear * tint).clamp(0, 1)
    soft = stage.uniform(0, 0.5).view(-1, 1, 1, 1)
    picture = torch.lerp(picture, F.avg_pool2d(F.pad(picture, (1,) * 4, mode="replicate"), 3, 1), soft)
    noise = torch.randn(picture.shape, generator=stage.generator, dtype=picture.dtype)
    picture = picture.clamp(min=1e-4) ** (1 / 2.2) + noise * (stage.uniform(0, 0.14) ** 2).view(-1, 1, 1, 1)
    return picture.clamp(0, 1)
