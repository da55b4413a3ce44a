"""Render the path-traced scenes of the data set `synthetic`: relief photographed by Mitsuba 3.

    pip install "redepth[mitsuba]"
    python -m training.path_trace

It writes benchmarks/data/path_traced.npz (a test holds its SHA-256), docs/pictures/path-traced.png and
docs/results/path-traced.json.

Unlike redepth's own renderings, these photos have interreflection, shadows of a lamp or sun of finite size, a
near lamp, a measured sky, a surface of micro-facets, and only the path tracer's noise. Every second scene is
outdoors (a sun and its sky), the others are indoors (a lamp, and weak light from all directions). The mesh
has its vertices at the centres of redepth's pixels, and continues past the borders by a view's width, so that
no edge of it is visible.

Before anything is written, the script compares the depth of Mitsuba's rays with the stored depth, and checks
that the photos are lit from above.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Generator, Tensor

from redepth.cli.checks import sha256
from redepth.data.scenes.path_traced import ASSET, DEPTH_STEP, as_scenes
from redepth.data.scenes.synthetic import Scenes, Split, benchmark_scenes
from redepth.io import save_json, save_npz, save_png
from redepth.io.assets import CHECKOUT
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.registry import require
from redepth.viz import side_by_side

app = typer.Typer(add_completion=False, help=__doc__)

COUNT, SIZE, SEED = 24, 96, 60_000
SAMPLES = 400
SCALAR = "scalar_rgb"
BOUNCES = 8
NEAR = 0.01
"""Start of the camera's rays: at a height of 1 over h = 0, so that their length is z = 1 - h."""

MAX_DEPTH_ERROR, MAX_MEAN_DEPTH_ERROR = 0.03, 5e-4
"""A view of `SIZE` shifted by half a pixel has ten times that mean. The maximum is at walls, where it depends
on how a cell is cut into two triangles; one path in millions passes between triangles and counts as depth
0."""

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Look:
    """Light, surface and exposure of a photo.

    Attributes:
        sun: whether the light is a sun with its sky, not a lamp with light from all around.
        azimuth: of the light in degrees, 90 is up; within the upper half plane.
        slant: tangent of the angle between the light and the line of sight.
        distance: of the lamp from the middle of the scene.
        radius: angle in degrees under which half the lamp is seen from there.
        ambient: radiance from all around, as a share of that of a white surface that faces the lamp.
        turbidity: of the sky.
        roughness: of the surface, the square root of its micro-facets' alpha.
        colours: the two linear colours of its texture.
        cells: features of the texture along a side.
        sharpness: of the borders between the colours.
        white: linear value that the exposure gives the 95th percentile of the brightness.
        seed: of the texture.
    """

    sun: bool
    azimuth: float
    slant: float
    distance: float
    radius: float
    ambient: float
    turbidity: float
    roughness: float
    colours: list[list[float]]
    cells: int
    sharpness: float
    white: float
    seed: int

    @property
    def direction(self) -> list[float]:
        """A vector towards the light: x right, y up, z to the viewer."""
        angle = math.radians(self.azimuth)
        return [self.slant * math.cos(angle), self.slant * math.sin(angle), 1.0]


def draw_look(seed: int) -> Look:
    """Draw a scene's look; even seeds are outdoors."""
    generator = Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    def colour() -> list[float]:
        base = uniform(0.15, 0.8)
        return [base * uniform(0.6, 1.0) for _ in range(3)]

    return Look(
        sun=seed % 2 == 0,
        azimuth=90 + uniform(-60, 60),
        slant=uniform(0.4, 1.3),
        distance=uniform(4.0, 12.0),
        radius=uniform(0.5, 6.0),
        ambient=uniform(0.05, 0.25),
        turbidity=uniform(2.0, 8.0),
        roughness=uniform(0.3, 0.9),
        colours=[colour(), colour()],
        cells=int(uniform(2, 9)),
        sharpness=uniform(0.0, 5.0),
        white=uniform(0.55, 0.85),
        seed=seed,
    )


def texture(look: Look, size: int = SIZE) -> Tensor:
    """Blotches of two colours at three scales, linear, (3, size, size)."""
    generator = Generator().manual_seed(look.seed)
    pattern = torch.zeros(1, 1, size, size)
    for octave in range(3):
        side = look.cells * 2**octave + 3
        grid = torch.randn(1, 1, side, side, generator=generator) / 2**octave
        pattern = pattern + F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=True)
    first, second = torch.tensor(look.colours)[:, :, None, None]
    return torch.lerp(first, second, torch.sigmoid(look.sharpness * pattern[0]))


def draw_depths() -> Tensor:
    """Return the depths of half `relief` and half `shapes`, as they can be stored, (COUNT, 1, SIZE, SIZE)."""
    generator = Generator().manual_seed(SEED)
    splits: tuple[Split, ...] = ("relief", "shapes")
    drawn = [benchmark_scenes(COUNT // 2, s, generator, height=SIZE, width=SIZE).depth for s in splits]
    depth = torch.cat(drawn)
    return torch.round(depth / DEPTH_STEP) * DEPTH_STEP


def renderer(variant: str = SCALAR) -> Any:
    """Return Mitsuba on one thread, by default in its variant that needs neither LLVM nor a GPU."""
    mitsuba = require("mitsuba", "mitsuba")
    mitsuba.set_variant(variant)
    require("drjit", "mitsuba").set_thread_count(1)
    return mitsuba


def continued(height: Tensor) -> Tensor:
    """Return a relief (size, size) that continues past each border by the width of the view.

    The first two continue its slopes, so that no kink is within the outermost pixels; the others are a mirror
    image, so that the light finds the same kind of relief there.
    """
    margin = len(height) - 1
    near = 2 * F.pad(height[None], (2,) * 4, mode="replicate") - F.pad(height[None], (2,) * 4, mode="reflect")
    return F.pad(near, (margin - 2,) * 4, mode="reflect")[0]


def surface(mi: Any, depth: Tensor, look: Look) -> Any:
    """Return the mesh of a depth (size, size), with a vertex at each pixel's centre."""
    size = len(depth)
    margin = size - 1
    side = size + 2 * margin
    # With this margin the pitch of the pixels is that of a view three times as wide.
    u, v = (3 * axis for axis in ORTHOGRAPHIC.axes(side, side))
    points = torch.stack([u.expand(side, side), v[:, None].expand(side, side), continued(1 - depth)], dim=-1)
    corner = torch.arange(side * side).view(side, side)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = torch.stack([a, c, b, b, c, d], dim=-1).view(-1, 3)
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(
        {
            "type": "principled",
            "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
            "roughness": look.roughness,
        }
    )
    mesh = mi.Mesh("relief", side * side, len(faces), has_vertex_normals=True, props=properties)
    colour = F.pad(texture(look, size), (margin,) * 4, mode="reflect")
    mesh.add_attribute("vertex_color", 3, colour.permute(1, 2, 0).ravel().numpy())
    buffers = mi.traverse(mesh)
    buffers["vertex_positions"] = points.ravel().numpy()
    buffers["faces"] = faces.ravel().to(torch.int32).numpy()
    buffers.update()
    return mesh


def lights(mi: Any, look: Look) -> dict[str, Any]:
    """Return the emitters."""
    if look.sun:
        sky = {"type": "sunsky", "turbidity": look.turbidity, "sun_direction": look.direction}
        return {"sky": sky}
    angle = math.radians(look.radius)
    origin = look.distance * np.array(look.direction) / np.linalg.norm(look.direction)
    towards = mi.ScalarTransform4f().look_at(origin=origin.tolist(), target=[0, 0, 0], up=[1, 0, 0])
    lamp = {
        "type": "disk",
        "to_world": towards @ mi.ScalarTransform4f().scale(look.distance * math.tan(angle)),
        # A white surface that faces it in the middle of the scene has radiance 1.
        "emitter": {"type": "area", "radiance": 1 / math.sin(angle) ** 2},
    }
    return {"lamp": lamp, "around": {"type": "constant", "radiance": look.ambient}}


def camera(mi: Any, size: int) -> dict[str, Any]:
    """Return redepth's orthographic camera; its view reaches half a pixel past the outermost centres."""
    height = 1 + NEAR
    down = mi.ScalarTransform4f().look_at(origin=[0, 0, height], target=[0, 0, 0], up=[0, 1, 0])
    half = size / (size - 1)
    return {
        "type": "orthographic",
        "near_clip": NEAR,
        "to_world": down @ mi.ScalarTransform4f().scale([half, half, 1.0]),
        "film": {"type": "hdrfilm", "width": size, "height": size, "filter": {"type": "box"}},
        "sampler": {"type": "multijitter"},
    }


def photograph(
    depth: Tensor, look: Look, samples: int = SAMPLES, variant: str = SCALAR
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render one scene.

    Args:
        depth: (size, size), z = 1 - h.
        look: its light, surface and exposure.
        samples: paths a pixel.
        variant: of Mitsuba.

    Returns:
        The photo (size, size, 3), sRGB, and the mean depth that each pixel's paths met (size, size).
    """
    mi = renderer(variant)
    path = {"type": "path", "max_depth": BOUNCES + 1}
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "aov", "aovs": "z:depth", "path": path},
            "camera": camera(mi, len(depth)),
            "relief": surface(mi, depth, look),
            **lights(mi, look),
        }
    )
    found = np.array(mi.render(scene, spp=samples, seed=look.seed))
    linear, seen = found[..., :3], found[..., -1]
    return developed(mi, linear, look.white), seen


def developed(mi: Any, linear: NDArray[np.float32], white: float) -> NDArray[np.uint8]:
    """Return a linear picture (H, W, 3) as sRGB; ``white`` becomes the 95th percentile of the brightness."""
    bright = np.percentile(linear @ np.array([0.2126, 0.7152, 0.0722]), 95)
    exposed = mi.Bitmap((linear * (white / bright)).astype(np.float32))
    return np.array(exposed.convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.UInt8, srgb_gamma=True))


def depth_errors(seen: Tensor, depth: Tensor) -> Tensor:
    """Return the difference between what rays met and the mean depth over each pixel, (B, 1, H-2, W-2).

    Over a pixel around a vertex of piecewise linear relief, the mean weighs the neighbours in a row by 1/8,
    3/4 and 1/8, and likewise in a column. The outermost pixels have no such neighbours and are left out.
    """
    weights = torch.tensor([0.125, 0.75, 0.125])
    mean = F.conv2d(depth, (weights[:, None] * weights)[None, None])
    return (seen[..., 1:-1, 1:-1] - mean).abs()


def lit_from_above(stored: Scenes) -> Tensor:
    """Return whether slopes that face up are the brighter ones, (B,): their covariance is positive."""
    maps = stored.normals[:, 1], stored.image.mean(dim=1)
    centred = [values - values.mean(dim=(1, 2), keepdim=True) for values in maps]
    return (centred[0] * centred[1]).mean(dim=(1, 2)) > 0


def check_depth(stored: Scenes, seen: Tensor, max_error: float = MAX_DEPTH_ERROR) -> dict[str, float]:
    """Measure how well photos and depths match; ``seen`` (B, 1, H, W) is Mitsuba's depth.

    Raises:
        ValueError: if they do not match.
    """
    errors = depth_errors(seen, stored.depth)
    found = {"max_depth_error": float(errors.max()), "mean_depth_error": float(errors.mean())}
    # The same shift in pixels is a smaller one in depth where pixels are smaller.
    mean_limit = MAX_MEAN_DEPTH_ERROR * SIZE / stored.depth.shape[-1]
    if found["max_depth_error"] > max_error or found["mean_depth_error"] > mean_limit:
        raise ValueError(f"the photos are not aligned with the depth: {found}")
    return found


def check_light(from_above: Tensor) -> float:
    """Return the share of photos that are lit from above. Raises ValueError if it is below 0.9."""
    share = float(from_above.float().mean())
    if share < 0.9:
        raise ValueError(f"the photos are not lit from above: {share:.0%} are")
    return share


@app.command()
def main(
    samples: Annotated[int, typer.Option(min=1, help="Paths a pixel.")] = SAMPLES,
    out: Annotated[Path, typer.Option(help="The file of scenes.")] = CHECKOUT / ASSET,
    docs: Annotated[Path, typer.Option(help="Folder of the picture and the measurements.")] = DOCS,
) -> None:
    """Render, check and write all scenes."""
    depth = draw_depths()
    looks = [draw_look(SEED + index) for index in range(COUNT)]
    photos, maps, seconds = [], [], []
    for index, look in enumerate(track(looks, "rendering")):
        started = time.process_time()
        photo, seen = photograph(depth[index, 0], look, samples)
        seconds.append(time.process_time() - started)
        photos.append(photo)
        maps.append(torch.from_numpy(seen))
    arrays: dict[str, NDArray[Any]] = {
        "image": np.stack(photos),
        "depth": (depth / DEPTH_STEP).numpy().astype(np.uint16),
        "looks": np.array(json.dumps([asdict(look) for look in looks])),
    }
    stored = as_scenes(arrays)
    found = check_depth(stored, torch.stack(maps)[:, None])
    found["lit_from_above"] = check_light(lit_from_above(stored))
    save_npz(out, arrays)
    record = {
        "mitsuba": renderer().__version__,
        "samples": samples,
        "bounces": BOUNCES,
        "median_cpu_seconds": float(np.median(seconds)),
        **found,
        "sha256": sha256(out),
    }
    save_json(docs / "results" / "path-traced.json", record)
    labels = [f"{index} {'outdoors' if look.sun else 'indoors'}" for index, look in enumerate(looks)]
    sheet = side_by_side(dict(zip(labels, photos, strict=True)), columns=6)
    save_png(docs / "pictures" / "path-traced.png", sheet)
    Console().print(record)


if __name__ == "__main__":
    app()
