"""Render the path-traced rooms of the data set `synthetic`: furnished rooms and streets, by Mitsuba 3.

    pip install "redepth[mitsuba]"
    python -m training.path_trace_rooms

It writes benchmarks/data/path_traced_rooms.npz (a test holds its SHA-256),
docs/pictures/path-traced-rooms.jpg and docs/results/path-traced-rooms.json.

No model is trained on these scenes. Their layouts (``training/traced_rooms``) share nothing with those of
`redepth.data.scenes.rooms`, which models are trained on: meshes and Mitsuba's shapes instead of solids in
torch, other things, textures, lamps, windows and cameras. Light is reflected up to twelve times between
micro-facet surfaces. The pictures have the grain of the path tracer; each pixel leaves out its brightest
passes, because a few paths that meet a lamp by chance would make it white (`without_fireflies`).

Depth, normals and albedo are those of one ray through each pixel's centre. Before anything is written, the
script compares Mitsuba's depth with its points by redepth's camera, and checks the exposure and that the
camera is not inside a thing. Each scene depends on its own seed alone; ``--only NAME`` renders one, to look
at. Mitsuba's LLVM variant is three times as fast as the scalar one; where Mitsuba finds no LLVM, take
``--variant scalar_rgb``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from redepth.cli.checks import sha256
from redepth.data.scenes.path_traced_rooms import ASSET, NORMAL_STEPS
from redepth.io import save_jpeg, save_json, save_npz
from redepth.io.assets import CHECKOUT
from redepth.ops.camera import Camera
from redepth.viz import side_by_side
from training.path_trace import DOCS, renderer
from training.traced_rooms import indoors, outdoors
from training.traced_rooms.stage import Stage

app = typer.Typer(add_completion=False, help=__doc__)

SIZE, SEED = 160, 90_000
SAMPLES, BOUNCES = 192, 12
PASSES, BRIGHTEST = 16, 3
LLVM = "llvm_ad_rgb"

LAYOUTS: tuple[Callable[[Stage], None], ...] = (
    indoors.living_room,
    indoors.library,
    indoors.dining_room,
    indoors.bedroom,
    indoors.kitchen,
    indoors.study,
    indoors.bathroom,
    indoors.corridor,
    indoors.staircase,
    indoors.gallery,
    indoors.attic,
    indoors.workshop,
    indoors.sunroom,
    outdoors.courtyard,
    outdoors.street,
    outdoors.terrace,
    outdoors.garden,
    outdoors.market,
)
COUNT = 24
"""Scenes: each layout once, and the first of them again with other things, light, textures and camera."""

NEAR = 0.01
"""Metres from the eye to where Mitsuba's rays start, along the optical axis."""

NEAREST = 0.35
"""Metres in front of the camera that are free."""

CONTRAST = 1.25

MIN_COSINE = 0.8
"""Between the normal of a mesh's triangle and the smooth normal there, at least."""

MAX_DEPTH_ERROR = 1e-4
"""Relative difference between the depth of a ray's length and that of its point."""


@dataclass(frozen=True)
class Shot:
    """What was rendered of one scene.

    Attributes:
        name: its layout and number.
        photo: (SIZE, SIZE, 3) sRGB.
        depth: (SIZE, SIZE) metres along the optical axis, infinite in the sky.
        normals: (SIZE, SIZE, 3) unit normals, x right, y up, z to the viewer; 0 in the sky.
        albedo: (SIZE, SIZE, 3) linear; 0 in the sky.
        field_of_view: horizontal, in degrees.
        depth_error: largest relative difference between Mitsuba's depth and its points.
        seconds: of CPU time.
    """

    name: str
    photo: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    field_of_view: float
    depth_error: float
    seconds: float


def name_of(index: int) -> str:
    """Return the name of a scene: its layout and its number."""
    return f"{LAYOUTS[index % len(LAYOUTS)].__name__}-{index:02}"


def sensor(stage: Stage, size: int, sampler: dict[str, Any]) -> dict[str, Any]:
    """Return the stage's pinhole; its field of view is horizontal, its pixels are square."""
    look = stage.mi.ScalarTransform4f().look_at(
        origin=stage.eye.tolist(), target=stage.target.tolist(), up=[0, 1, 0]
    )
    return {
        "type": "perspective",
        "fov": stage.field_of_view,
        "fov_axis": "x",
        "near_clip": NEAR,
        "far_clip": 1000.0,
        "to_world": look,
        "film": {"type": "hdrfilm", "width": size, "height": size, "filter": {"type": "box"}},
        "sampler": sampler,
    }


def camera_axes(stage: Stage) -> NDArray[np.float64]:
    """Return the camera's right, up and forward as rows."""
    forward = stage.target - stage.eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), forward])


def photograph(index: int, samples: int = SAMPLES, variant: str = LLVM, size: int = SIZE) -> Shot:
    """Build and render one scene."""
    started = time.process_time()
    mi = renderer(variant)
    stage = Stage(mi, SEED + index)
    LAYOUTS[index % len(LAYOUTS)](stage)
    scene = mi.load_dict({"type": "scene", **stage.parts})
    # One sample in the middle of each pixel: no value is a mean over an edge.
    middle = mi.load_dict(sensor(stage, size, {"type": "stratified", "sample_count": 1, "jitter": False}))
    maps = mi.load_dict({"type": "aov", "aovs": "t:depth,p:position,n:sh_normal,g:geo_normal,a:albedo"})
    found = np.array(mi.render(scene, sensor=middle, integrator=maps, spp=1, seed=0), dtype=np.float64)
    each = math.ceil(samples / PASSES)
    camera = mi.load_dict(sensor(stage, size, {"type": "independent", "sample_count": each}))
    path = mi.load_dict({"type": "path", "max_depth": BOUNCES + 1})
    seeds = range(PASSES * index, PASSES * (index + 1))
    passes = [np.array(mi.render(scene, sensor=camera, integrator=path, spp=each, seed=s)) for s in seeds]
    linear = without_fireflies(np.stack(passes)[..., :3])
    length, points, smooth, flat, albedo = np.split(found[..., -13:], [1, 4, 7, 10], axis=-1)
    length, axes = length[..., 0], camera_axes(stage)
    sky = length == 0
    u, v = (
        a.numpy() for a in Camera(field_of_view=stage.field_of_view).axes(size, size, dtype=torch.float64)
    )
    rays = np.sqrt(u**2 + v[:, None] ** 2 + 1)
    seen = (points - stage.eye) @ axes.T
    depth = np.where(sky, np.inf, length / rays + NEAR)
    directions = np.stack(np.broadcast_arrays(u, v[:, None], 1.0), axis=-1)
    error = np.abs(seen[~sky] / depth[~sky, None] - directions[~sky])
    shading, facets = (towards_viewer(n @ axes.T * [1, 1, -1], directions) for n in (smooth, flat))
    # Where triangles of a mesh have no area, its smooth normals are arbitrary.
    with np.errstate(invalid="ignore"):
        good = (shading * facets).sum(axis=-1, keepdims=True) > MIN_COSINE
    normals = np.where(good, shading, facets)
    return Shot(
        name_of(index),
        developed(linear),
        depth.astype(np.float32),
        np.where(sky[..., None], 0.0, normals).astype(np.float32),
        np.where(sky[..., None], 0.0, np.clip(albedo, 0, 1)).astype(np.float32),
        stage.field_of_view,
        float(error.max()),
        time.process_time() - started,
    )


def towards_viewer(normals: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn normals (H, W, 3), z to the viewer, of two-sided surfaces that show their backs.

    ``directions`` (H, W, 3) are those of the rays, z away from the viewer.
    """
    back = (normals * directions * [1, 1, -1]).sum(axis=-1, keepdims=True) > 0
    return np.where(back, -normals, normals)


def without_fireflies(passes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over passes (N, H, W, 3) without the brightest `BRIGHTEST` of them, pixel by pixel.

    A path that meets a lamp by chance after a rough surface makes one pixel of one pass hundreds of times as
    bright. Without those the picture loses a part of the light that is reflected often; no pixel takes
    anything from its neighbours.
    """
    order = np.argsort(passes.sum(axis=-1), axis=0)[: len(passes) - BRIGHTEST, ..., None]
    return np.take_along_axis(passes, order, axis=0).mean(axis=0)


def developed(linear: NDArray[np.float32], key: float = 0.27, white: float = 5.0) -> NDArray[np.uint8]:
    """Expose a linear picture (H, W, 3) as a camera does, and return it as sRGB.

    The mean of the logarithm of the brightness L becomes ``key``; a shoulder, L (1 + L / w^2) / (1 + L),
    keeps what is brighter than white up to ``white`` (Reinhard et al., "Photographic Tone Reproduction for
    Digital Images", 2002, equations 1 and 4). A power of `CONTRAST`, as film has it, and the sRGB curve
    follow.
    """
    bright = linear @ np.array([0.2126, 0.7152, 0.0722])
    scaled = linear * (key / np.exp(np.log(np.maximum(bright, 1e-4 * bright.mean())).mean()))
    level = np.maximum(scaled @ np.array([0.2126, 0.7152, 0.0722]), 1e-9)[..., None]
    toned = np.clip(scaled * (1 + level / white**2) / (1 + level), 0, 1) ** CONTRAST
    curve = np.where(toned <= 0.0031308, 12.92 * toned, 1.055 * toned ** (1 / 2.4) - 0.055)
    return np.round(curve * 255).astype(np.uint8)


def check(shot: Shot) -> dict[str, Any]:
    """Measure a scene; return its record.

    Raises:
        ValueError: if depth and camera do not match, the photo is too dark, too bright or flat, or the camera
            is inside a thing.
    """
    grey = shot.photo.mean(axis=-1) / 255
    found = {
        "name": shot.name,
        "field_of_view": shot.field_of_view,
        "nearest": float(shot.depth.min()),
        "median_depth": float(np.median(shot.depth)),
        "sky": float(np.isinf(shot.depth).mean()),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "white": float((grey > 0.99).mean()),
        "black": float((grey < 0.02).mean()),
        "depth_error": shot.depth_error,
        "cpu_seconds": shot.seconds,
    }
    wrong = []
    if shot.depth_error > MAX_DEPTH_ERROR:
        wrong.append("the depth is not that of the camera")
    if found["nearest"] < NEAREST:
        wrong.append("the camera is inside a thing or touches it")
    if not 0.2 < found["brightness"] < 0.75 or found["contrast"] < 0.08:
        wrong.append("the photo is too dark, too bright or flat")
    if found["white"] > 0.25 or found["black"] > 0.25:
        wrong.append("a quarter of the photo is white or black")
    if found["sky"] > 0.6:
        wrong.append("most of the photo is sky")
    if wrong:
        raise ValueError(f"{shot.name}: {'; '.join(wrong)}: {found}")
    return found


def arrays_of(shots: list[Shot]) -> dict[str, NDArray[Any]]:
    """Return what is stored; `redepth.data.scenes.path_traced_rooms` reads it."""
    depth = np.stack([s.depth for s in shots])
    return {
        "name": np.array([s.name for s in shots]),
        "image": np.stack([s.photo for s in shots]),
        "depth": np.where(np.isinf(depth), 0, depth).astype(np.float32),
        "normals": np.round(np.stack([s.normals for s in shots]) * NORMAL_STEPS).astype(np.int8),
        "albedo": np.round(np.stack([s.albedo for s in shots]) ** (1 / 2.2) * 255).astype(np.uint8),
        "field_of_view": np.array([s.field_of_view for s in shots]),
    }


@app.command()
def main(
    samples: Annotated[int, typer.Option(min=1, help="Paths a pixel.")] = SAMPLES,
    variant: Annotated[str, typer.Option(help="Of Mitsuba: llvm_ad_rgb or scalar_rgb.")] = LLVM,
    only: Annotated[
        str | None, typer.Option(help="Render this scene alone, write its photo to --out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of scenes.")] = CHECKOUT / ASSET,
    docs: Annotated[Path, typer.Option(help="Folder of the picture and the measurements.")] = DOCS,
) -> None:
    """Render, check and write all scenes."""
    names = [name_of(index) for index in range(COUNT)]
    if only is not None:
        if only not in names:
            raise typer.BadParameter(f"no scene {only}; there are {', '.join(names)}")
        shot = photograph(names.index(only), samples, variant)
        save_jpeg(out, shot.photo, 95)
        Console().print(check(shot))
        return
    shots = [photograph(index, samples, variant) for index in track(range(COUNT), "rendering")]
    rows = [check(shot) for shot in shots]
    save_npz(out, arrays_of(shots))
    record = {
        "mitsuba": renderer(variant).__version__,
        "variant": variant,
        "samples": samples,
        "bounces": BOUNCES,
        "sha256": sha256(out),
        "scenes": rows,
    }
    save_json(docs / "results" / "path-traced-rooms.json", record)
    sheet = side_by_side({shot.name: shot.photo for shot in shots}, columns=6)
    save_jpeg(docs / "pictures" / "path-traced-rooms.jpg", sheet, 90)
    Console().print(record)


if __name__ == "__main__":
    app()
