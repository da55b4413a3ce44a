"""A clip with exact depth and exact motion: a camera glides over a relief and turns a little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.data.scenes import photographs, relief
from redepth.data.scenes.canvas import Canvas
from redepth.data.scenes.unseen_relief import UNSEEN_RELIEF, UNSEEN_SHAPES, shifted_relief
from redepth.errors import ConfigError

FINE = 2
"""Samples along a side of a pixel, of which its light is the mean."""

FAMILIES = {"relief": UNSEEN_RELIEF, "shapes": UNSEEN_SHAPES}


@dataclass(frozen=True)
class Glide:
    """A clip of a surface that does not move, seen from above by an orthographic camera that does.

    Attributes:
        image: (N, 3, S, S) sRGB in [0, 1], with noise of its own in each frame.
        depth: (N, 1, S, S) relative depth z = 1 - h > 0 of the surface at the centre of each pixel.
        back: (N - 1, 2, S, S) x and y in pixels: what is at pixel p of frame t + 1 is at ``p + back[t]`` of
            frame t.
        poses: (N, 4, 4) camera to world, OpenCV's axes, in units of half of the picture's side: one unit of
            relative depth is one unit of length.
    """

    image: Tensor
    depth: Tensor
    back: Tensor
    poses: Tensor


def glide(
    frames: int,
    split: str,
    generator: Generator,
    *,
    size: int = 96,
    speed: float = 1.3,
    turn: float = 0.4,
    noise: float = 0.02,
) -> Glide:
    """Draw a clip of a split of `data.scenes.synthetic.benchmark_scenes`.

    The camera moves along an arc, by no whole number of pixels, and turns about its axis. Light, albedo and
    surface stay. Computed in float64 on the CPU, the picture rounded to 8 bits per channel.

    Args:
        frames: N.
        split: ``in-domain``, ``relief`` or ``shapes``.
        generator: of the CPU.
        size: S, of a side in pixels.
        speed: pixels from frame to frame.
        turn: degrees from frame to frame.
        noise: standard deviation of each frame's noise, in sRGB.

    Raises:
        ConfigError: another split, or a way so long that the relief would be steeper than it is deep.
    """
    if split not in ("in-domain", *FAMILIES):
        raise ConfigError(f"a glide has the splits in-domain, relief and shapes, not '{split}'")
    centres, angles = _way(frames, speed, math.radians(turn), generator)
    reach = 2 * math.ceil(float(centres.abs().max()) + 0.2 * size * float(angles.abs().max())) + 8
    if reach > size // 2:
        raise ConfigError(
            f"{frames} frames of {speed:g} pixels go beyond a relief of {size} pixels: "
            f"take {longest(size, speed, turn)}, or a larger size"
        )
    canvas = Canvas(1, FINE * (size + reach), FINE * (size + reach), generator, dtype=torch.float64)
    height = (
        shifted_relief(canvas, FAMILIES[split], 1.0) if split in FAMILIES else relief.narrow_relief(canvas)
    )
    linear = photographs.lit(
        1 - height[:, None], photographs.plain_albedo(canvas), photographs.narrow_lighting(canvas)
    )
    # The same slopes over a smaller window: heights in units of the window are larger.
    height = height[:, None] * (canvas.height - 1) / (FINE * (size - 1))
    places = _places(size, centres, angles)
    light = torch.cat([_mean_light(linear, place) for place in places])
    grain = noise * Canvas(frames, size, size, generator, dtype=torch.float64).randn(frames, 3, size, size)
    image = photographs.exposed(light, grain)
    depth = 1 - torch.cat([_sample(height, place) for place in places])
    return Glide(
        image=(image * 255).round().float() / 255,
        depth=depth.float(),
        back=_back(places, centres, angles).float(),
        poses=_poses(centres * 2 / (size - 1), angles),
    )


def longest(size: int, speed: float = 1.3, turn: float = 0.4) -> int:
    """Return a number of frames that fit whatever way the camera takes; arguments as of `glide`."""
    share = 0.5 * speed + 0.2 * size * 0.5 * math.radians(turn)
    return 1 + max(0, math.floor((size // 2 - 8) // 2 / share))


def _way(frames: int, speed: float, turn: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the centres (N, 2) in pixels, x right and y down, about their mean, and angles (N,)."""
    start, bend = torch.rand(2, generator=generator, dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)
    heading = 2 * math.pi * start + (bend - 0.5) * 0.12 * time
    steps = speed * torch.stack([heading.cos(), heading.sin()], 1)
    centres = steps.cumsum(0)
    return centres - (centres.amin(0) + centres.amax(0)) / 2, turn * (time - time.mean())


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """Turn (..., 2) by an angle, from x to y."""
    x, y = points.unbind(-1)
    return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], -1)


def _grid(size: int) -> Tensor:
    """Return the pixels' places (S, S, 2) from the centre of the picture, x right, y down."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


def _places(size: int, centres: Tensor, angles: Tensor) -> Tensor:
    """Return where each frame's pixels are in the world, (N, S, S, 2), in pixels from its centre."""
    grid = _grid(size)
    return torch.stack([_turned(grid, a) + c for c, a in zip(centres, angles, strict=True)])


def _sample(values: Tensor, places: Tensor) -> Tensor:
    """Read a map (1, C, h, w) of FINE samples a pixel at places (S, S, 2) in pixels from its centre."""
    span = values.new_tensor([values.shape[-1] - 1, values.shape[-2] - 1]) / 2
    grid = (places * FINE / span)[None]
    return F.grid_sample(values, grid, mode="bicubic", padding_mode="border", align_corners=True)


def _mean_light(linear: Tensor, places: Tensor) -> Tensor:
    """Return the light that falls on each pixel: the mean of FINE x FINE samples of it."""
    offsets = (torch.arange(FINE, dtype=torch.float64) + 0.5) / FINE - 0.5
    shifts = torch.cartesian_prod(offsets, offsets)
    return torch.stack([_sample(linear, places + shift) for shift in shifts]).mean(0)


def _back(places: Tensor, centres: Tensor, angles: Tensor) -> Tensor:
    grid = _grid(places.shape[1])
    flows = [
        (_turned(place - c, -a) - grid).permute(2, 0, 1)
        for place, c, a in zip(places[1:], centres[:-1], angles[:-1], strict=True)
    ]
    return torch.stack(flows) if flows else grid.new_zeros(0, 2, *grid.shape[:2])


def _poses(centres: Tensor, angles: Tensor) -> Tensor:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    poses[:, 0, 0] = poses[:, 1, 1] = angles.cos()
    poses[:, 1, 0] = angles.sin()
    poses[:, 0, 1] = -angles.sin()
    poses[:, :2, 3] = centres
    return poses
