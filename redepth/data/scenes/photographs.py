"""Photographs of height fields: light, albedo and camera, within the narrow domain or outside of it.

A photograph has one white light from the upper half plane, so that bumps and dents look different, an ambient
part, an albedo and a sensor. All pictures are (count, 3, H, W) sRGB in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redepth.data.scenes.canvas import Canvas
from redepth.data.scenes.relief import narrow_relief
from redepth.ops.color import linear_to_srgb
from redepth.ops.filters import gaussian_blur
from redepth.ops.geometry import normals_from_depth
from redepth.ops.shading import normalize
from redepth.ops.shadows import soft_shadows

QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Luminance table of JPEG (ITU-T T.81, annex K)."""


@dataclass(frozen=True)
class Lighting:
    """Light on a batch of scenes.

    Attributes:
        direction: (count, 3) unit vectors towards the light, x right, y up, z to the viewer.
        ambient: (count, 1, 1) share of the light that comes from everywhere.
        exposure: (count, 1, 1) factor on all light.
        tint: (count, 3, 1, 1) colour of all light.
        second: (count, 3) direction and ``fill`` (count, 3, 1, 1) colour of another light, if there is one.
        hard: (count, 1, 1) 1 where the light casts hard shadows.
    """

    direction: Tensor
    ambient: Tensor
    exposure: Tensor
    tint: Tensor
    second: Tensor
    fill: Tensor
    hard: Tensor


def narrow_photograph(c: Canvas, depth: Tensor) -> Tensor:
    """Photograph a surface (count, 1, H, W) in the depth model's domain: plain albedo, mild light."""
    light = upper_light(c, 50.0, (0.4, 0.95))
    ambient = c.uniform(0.03, 0.2)
    linear = plain_albedo(c) * diffuse(depth, light, ambient)[:, None]
    linear = linear * c.uniform(0.8, 1.4)[:, None]
    return exposed(linear, sensor_noise(c, 0.01))


def broad_photograph(c: Canvas, depth: Tensor) -> Tensor:
    """Photograph a surface in the priors' domain: patterns, highlights, more kinds of light, more noise.

    Seven scenes in ten are well exposed and lit from above. Three have a dark or a bright exposure, a tint,
    and light from the side or at a grazing angle.
    """
    hard = c.uniform(0, 1) < 0.3
    light = torch.where(hard[:, 0], upper_light(c, 80.0, (0.3, 1.5)), upper_light(c, 75.0, (0.35, 1.1)))
    ambient = c.uniform(0.03, 0.2)
    linear = broad_albedo(c) * diffuse(depth, light, ambient)[:, None]
    strength = c.uniform(0.0, 0.3) * (c.uniform(0, 1) < 0.5)
    half = normalize(light + light.new_tensor([0.0, 0.0, 1.0]))
    linear = linear + (strength * cosine(depth, half) ** c.log_uniform(8, 60))[:, None]
    exposure = torch.where(hard, c.log_uniform(0.45, 1.5), c.uniform(0.8, 1.4))
    linear = linear * exposure[:, None]
    linear = linear * torch.where(hard[:, None], c.uniform(0.7, 1.0, 3), 1.0)
    return exposed(linear, sensor_noise(c, 0.03))


def shifted_photograph(c: Canvas, depth: Tensor, factor: str, strength: float) -> tuple[Tensor, Tensor]:
    """Photograph a surface as `narrow_photograph` does but for one factor; return photo and linear albedo.

    Args:
        c: canvas.
        depth: (count, 1, H, W).
        factor: ``lighting``, ``texture`` or ``degraded``; any other name changes nothing.
        strength: 0 for the narrow domain to 1.
    """
    # The narrow domain is drawn first, so that every factor is shifted from the same picture.
    lighting, albedo, grain = narrow_lighting(c), plain_albedo(c), sensor_noise(c, 0.01)
    if factor == "lighting":
        lighting = shifted_lighting(c, lighting, strength)
    if factor == "texture":
        albedo = albedo * painted(c, strength)
    image = exposed(lit(depth, albedo, lighting), grain)
    if factor == "degraded":
        image = degraded(c, image, strength)
    return image, albedo.expand_as(image)


# --- light ----------------------------------------------------------------------------------------


def upper_light(c: Canvas, spread: float, tangent: tuple[float, float]) -> Tensor:
    """Draw unit vectors (count, 3) at azimuth 90 +- spread degrees with this range of the slant's tangent."""
    azimuth = torch.deg2rad(90 + c.uniform(-spread, spread))[:, 0, 0]
    slant = c.uniform(*tangent)[:, 0, 0]
    return towards(azimuth, slant)


def towards(azimuth: Tensor, slant: Tensor) -> Tensor:
    """Return unit vectors (count, 3) of an azimuth in radians and the tangent of the angle to the viewer."""
    ones = torch.ones_like(slant)
    return normalize(torch.stack([slant * azimuth.cos(), slant * azimuth.sin(), ones], dim=1))


def cosine(depth: Tensor, direction: Tensor) -> Tensor:
    """Return max(n . l, 0), (count, H, W)."""
    normals = normals_from_depth(depth)
    return torch.einsum("bchw,bc->bhw", normals, direction).clamp(min=0.0)


def diffuse(depth: Tensor, direction: Tensor, ambient: Tensor) -> Tensor:
    """Return ambient + (1 - ambient) max(n . l, 0), (count, H, W)."""
    return ambient + (1 - ambient) * cosine(depth, direction)


def narrow_lighting(c: Canvas) -> Lighting:
    """Draw the light of the depth model's domain."""
    direction = upper_light(c, 50.0, (0.4, 0.95))
    ones = c.uniform(1.0, 1.0, 3)
    return Lighting(
        direction, c.uniform(0.03, 0.2), c.uniform(0.8, 1.4), ones, direction, 0 * ones, 0 * ones[:, 0]
    )


def shifted_lighting(c: Canvas, known: Lighting, strength: float) -> Lighting:
    """Shift one of four properties of each scene's light by the strength.

    Grazing (slant's tangent up to 2.4), dark (a fifth to a tenth of the exposure), coloured (a strong tint
    and a second light of another colour), or hard shadows (of a low light).
    """
    kind = c.integers(4).to(c.device).view(-1, 1, 1)
    grazing, dark, coloured, hard = ((kind == k).to(c.dtype) for k in range(4))
    azimuth = torch.atan2(known.direction[:, 1], known.direction[:, 0])
    slant = known.direction[:, :2].norm(dim=1) / known.direction[:, 2]
    low = grazing * c.uniform(1.6, 2.4) + hard * c.uniform(1.3, 1.8)
    slant = slant + strength * torch.relu(low[:, 0, 0] - slant)
    dimmed = known.exposure * c.log_uniform(0.1, 0.2) ** (strength * dark)
    tint = 1 - strength * coloured[:, None] * c.uniform(0.0, 0.7, 3)
    fill = strength * coloured[:, None] * c.uniform(0.0, 0.5, 3)
    return replace(
        known,
        direction=towards(azimuth, slant),
        exposure=dimmed,
        tint=tint,
        second=upper_light(c, 90.0, (0.6, 1.4)),
        fill=fill,
        hard=strength * hard,
    )


def lit(depth: Tensor, albedo: Tensor, light: Lighting) -> Tensor:
    """Return the linear light that a matte surface reflects, (count, 3, H, W)."""
    direct = cosine(depth, light.direction)
    rows = light.hard.flatten().nonzero()[:, 0]
    if len(rows):
        direction = light.direction[rows, None]
        visible = soft_shadows(depth[rows], direction, samples=32, reach=0.8, softness=0.03)[:, 0]
        direct[rows] = direct[rows] * (1 - light.hard[rows] * (1 - visible))
    shading = light.ambient + (1 - light.ambient) * direct
    received = light.tint * shading[:, None] + light.fill * cosine(depth, light.second)[:, None]
    return albedo * received * light.exposure[:, None]


# --- albedo ---------------------------------------------------------------------------------------


def plain_albedo(c: Canvas) -> Tensor:
    """Draw one muted colour a scene, (count, 3, 1, 1)."""
    base = c.uniform(0.35, 0.8)
    tint = c.uniform(0.85, 1.0, 3)
    return base[:, None] * tint


def broad_albedo(c: Canvas) -> Tensor:
    """Draw plain, blotched or striped colour, (count, 3, H, W)."""
    base = c.uniform(0.25, 0.9)[:, None] * c.uniform(0.6, 1.0, 3)
    other = c.uniform(0.15, 0.9)[:, None] * c.uniform(0.6, 1.0, 3)
    x, _ = c.rotated()
    blotches = torch.sigmoid(c.uniform(1, 8) * c.some_noise(2, 8))
    stripes = torch.sigmoid(c.uniform(1, 8) * torch.sin(c.log_uniform(4, 25) * x))
    kind = c.uniform(0, 1)
    pattern = torch.where(kind < 0.3, blotches, stripes) * (kind < 0.45)
    strength = c.uniform(0.1, 0.7) * pattern
    return base * (1 - strength[:, None]) + other * strength[:, None]


def painted(c: Canvas, strength: float) -> Tensor:
    """Draw a factor on the albedo that is busy or looks like shading, (count, 3, H, W) in (0, 1].

    Each scene has one of four: speckle, checks, blotches of two scales, or a painted picture of another lit
    relief. The contrast grows with the strength and differs by channel.
    """
    kind = c.integers(4).to(c.device).view(-1, 1, 1)
    x, y = c.rotated()
    rate = c.log_uniform(6, 16)
    speckle = torch.sigmoid(4 * c.some_noise(24, 40))
    checks = torch.sigmoid(6 * torch.sin(rate * x) * torch.sin(rate * y))
    blotches = torch.sigmoid(3 * c.some_noise(3, 6) + 2 * c.some_noise(12, 20))
    other = 1.0 - narrow_relief(c)[:, None]
    shading = cosine(other, upper_light(c, 50.0, (0.6, 1.2)))
    patterns = torch.stack([speckle, checks, blotches, shading])
    pattern = sum((kind == k) * p for k, p in enumerate(patterns))
    contrast = strength * c.uniform(0.35, 0.7)[:, None] * c.uniform(0.7, 1.0, 3)
    return 1 - contrast * (1 - torch.as_tensor(pattern))[:, None]


# --- camera ---------------------------------------------------------------------------------------


def exposed(linear: Tensor, grain: Tensor) -> Tensor:
    """Develop linear light to sRGB and add the sensor's noise."""
    return (linear_to_srgb(linear.clamp(0.0, 1.0)) + grain).clamp(0.0, 1.0)


def sensor_noise(c: Canvas, most: float) -> Tensor:
    """Draw noise of a standard deviation of up to ``most``, (count, 3, H, W)."""
    sigma = c.uniform(0.0, most)[:, None]
    return sigma * c.randn(c.count, 3, c.height, c.width)


def degraded(c: Canvas, image: Tensor, strength: float) -> Tensor:
    """Blur (up to 1.6 pixels), add noise (up to 0.1) and compress (JPEG, quality down to 10), by strength."""
    if strength == 0:
        return image
    # One width for the batch, so that the blur is one convolution; its share differs by scene.
    blurred = gaussian_blur(image, 1.6 * strength)
    share = c.uniform(0, 1)[:, None]
    image = image + share * (blurred - image)
    image = image + strength * c.uniform(0.02, 0.1)[:, None] * c.randn(*image.shape)
    quality = 95 - strength * c.uniform(30, 85)
    return jpeg(image.clamp(0, 1), quality)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    r"""Compress a picture by JPEG: DCT coefficients of 8 x 8 blocks are rounded to multiples.

    .. math:: c' = q \lfloor c / q + 1/2 \rfloor, \qquad
        q = \max(1, \lfloor (s Q + 50) / 100 \rfloor), \qquad
        s = 5000 / quality \;\text{below 50, else}\; 200 - 2\, quality

    on Y, Cb and Cr at full resolution, all by the luminance table Q; blocks past the border repeat it.

    Args:
        image: (B, 3, H, W) in [0, 1].
        quality: (B, 1, 1) in [1, 100].

    Source: ITU-T T.81, annex K; the scale of the table is the one of the Independent JPEG Group.
    """
    height, width = image.shape[-2:]
    padding = (0, -width % 8, 0, -height % 8)
    to_ycc = image.new_tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    ycc = torch.einsum("dc,bchw->bdhw", to_ycc, 255 * image) - image.new_tensor([128.0, 0, 0]).view(3, 1, 1)
    ycc = torch.nn.functional.pad(ycc, padding, mode="replicate")
    blocks = ycc.unfold(2, 8, 8).unfold(3, 8, 8)
    k = torch.arange(8, dtype=image.dtype, device=image.device)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    dct[0] *= math.sqrt(0.5)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[..., None]
    table = torch.floor((scale * image.new_tensor(QUANTISATION) + 50) / 100).clamp(min=1)
    table = table.view(-1, 1, 1, 1, 8, 8)
    # Slightly above a half, so that exact halves of flat blocks round alike on every machine.
    coefficients = table * torch.floor(dct @ blocks @ dct.T / table + 0.5 + 1e-6)
    ycc = (dct.T @ coefficients @ dct).permute(0, 1, 2, 4, 3, 5).reshape(ycc.shape)[..., :height, :width]
    ycc = ycc + image.new_tensor([128.0, 0, 0]).view(3, 1, 1)
    rgb = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(to_ycc), ycc)
    return (rgb / 255).clamp(0.0, 1.0)


# --- sky ------------------------------------------------------------------------------------------

SKIES = torch.tensor([(0.35, 0.55, 0.9), (0.65, 0.7, 0.75), (0.85, 0.6, 0.45)])
"""sRGB of a clear, an overcast and an evening sky at its top."""


def with_sky(c: Canvas, image: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Put sky above a winding horizon: the picture, and the mask (count, 1, H, W).

    The horizon lies at up to ``strength`` times half of the picture's height; the sky goes from a bright
    horizon to a darker top, blue, grey or red, some with clouds.
    """
    share = strength * c.uniform(0.25, 0.5)
    horizon = 1 - 2 * share + 0.1 * strength * c.noise(3)[:, :1]
    sky = c.y > horizon
    rise = ((c.y - horizon) / (2 * share.clamp(min=1e-3))).clamp(0, 1)[:, None]
    top = SKIES.to(c.device, c.dtype)[c.integers(len(SKIES))][..., None, None]
    bright = 0.5 * top + 0.5 * c.uniform(0.8, 1.0)[:, None]
    clouds = torch.sigmoid(4 * c.some_noise(3, 6) - 1)[:, None] * (c.uniform(0, 1) < 0.5)[:, None]
    colour = bright + (top * c.uniform(0.7, 1.0)[:, None] - bright) * rise
    colour = colour + 0.8 * clouds * (0.95 - colour)
    return torch.where(sky[:, None], colour, image), sky[:, None]
