"""The pictures of docs/conventions.md, drawn with redepth's own functions.

    python examples/09_conventions.py [--out docs/pictures/conventions]

Numbers, colours and shading in them are computed, not drawn: a picture shows what the code does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from torch import Tensor

from redepth import viz
from redepth.cli.script import run
from redepth.contracts import Illumination
from redepth.ops import geometry, panorama
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from redepth.renderers.matte import Lambert

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

INK, RED, GREEN, BLUE, GREY = "#222222", "#c8322b", "#2c8a3c", "#2b5fc8", "#9a9a9a"
DPI = 90


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], label: str, colour: str) -> None:
    """Draw an arrow with its name at the head."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8})
    away = 0.14 * (np.subtract(end, start) / (np.hypot(*np.subtract(end, start)) or 1.0))
    axes.text(*np.add(end, 1.3 * away), label, color=colour, ha="center", va="center", fontsize=9)


def bare(axes: Any, title: str) -> None:
    """Remove the frame and set equal units."""
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.axis("off")


def pixels() -> Any:
    """Draw pixels, their indices, and the coordinates of their centres and corners."""
    figure, axes = plt.subplots(figsize=(6.4, 3.3))
    height, width = 3, 4
    for row in range(height):
        for column in range(width):
            marked = (row, column) == (1, 2)
            face = "#ffe2a8" if marked else "white"
            axes.add_patch(Rectangle((column, row), 1, 1, fc=face, ec=GREY))
            axes.plot(column + 0.5, row + 0.5, ".", color=INK, ms=3)
            axes.text(column + 0.5, row + 0.3, f"[{row}, {column}]", ha="center", fontsize=8, color=BLUE)
    axes.text(0.5, 0.75, "(0.5, 0.5)", ha="center", fontsize=8, color=RED)
    axes.text(2.5, 1.75, "(2.5, 1.5)", ha="center", fontsize=8, color=RED)
    axes.plot([0, width], [0, height], "s", color=RED, ms=4)
    axes.text(-0.05, -0.1, "corner (0, 0)", fontsize=8, color=RED, ha="right")
    axes.text(width + 0.05, height + 0.2, f"corner (W, H) = ({width}, {height})", fontsize=8, color=RED)
    axes.plot(width / 2, height / 2, "+", color=GREEN, ms=12, mew=2)
    axes.annotate(
        "centre (W/2, H/2)",
        (width / 2, height / 2),
        (0.6, 3.35),
        fontsize=8,
        color=GREEN,
        arrowprops={"arrowstyle": "-", "color": GREEN},
    )
    arrow(axes, (0, -0.25), (1.4, -0.25), "x", INK)
    arrow(axes, (-0.25, 0), (-0.25, 1.4), "y", INK)
    axes.set_xlim(-1.4, 6.3)
    axes.set_ylim(3.6, -0.6)
    bare(axes, "array index [row, column] in blue, coordinates (x, y) in red")
    return figure


def frame() -> Any:
    """Draw the frame of points from above and from the right."""
    figure, (above, side) = plt.subplots(1, 2, figsize=(6.4, 2.7))
    for axes, names, title in (
        (above, ("x right", "z away"), "from above"),
        (side, ("z away", "y up"), "from the right"),
    ):
        axes.plot(0, 0, "o", color=INK)
        arrow(axes, (0, 0), (1, 0), names[0], RED if axes is above else BLUE)
        arrow(axes, (0, 0), (0, 1), names[1], BLUE if axes is above else GREEN)
        axes.text(-0.08, -0.16, "camera", ha="center", fontsize=8)
        axes.set_xlim(-0.6, 1.7)
        axes.set_ylim(-0.35, 1.45)
        bare(axes, title)
    above.plot([-0.5, 0, 0.5], [0.85, 0, 0.85], ":", color=GREY)
    side.plot([0.85, 0, 0.85], [-0.3, 0, 0.5], ":", color=GREY)
    for axes, at in ((above, (0.42, 0.72)), (side, (0.72, 0.42))):
        axes.plot(*at, "o", color=INK, ms=4)
        axes.text(at[0] + 0.08, at[1], "P = (x, y, z)", fontsize=8)
    return figure


def ball(size: int = 180) -> Tensor:
    """Return the relative depth of a ball in front of a wall, (1, 1, H, W)."""
    u, v = ORTHOGRAPHIC.axes(size, size, dtype=torch.float64)
    squares = u[None, :] ** 2 + v[:, None] ** 2
    return (3 - (0.9**2 - squares).clamp(min=0).sqrt())[None, None]


def normals() -> Any:
    """Draw the normals of a ball as colours, and their three parts."""
    depth = ball()
    found = geometry.normals_from_depth(depth)[0]
    picture = viz.normals_to_rgb(found.permute(1, 2, 0).numpy())
    figure, panels = plt.subplots(1, 4, figsize=(6.4, 1.9))
    panels[0].imshow(picture)
    bare(panels[0], "normals.png")
    size = len(picture)
    for x, y, text in ((0.5, 0.5, "z"), (0.86, 0.5, "x"), (0.5, 0.12, "y")):
        panels[0].text(x * size, y * size, text, ha="center", va="center", fontsize=9)
    names = ("x right: red", "y up: green", "z to the viewer: blue")
    for axes, part, name in zip(panels[1:], found, names, strict=True):
        axes.imshow(part.numpy(), cmap="gray", vmin=-1, vmax=1)
        bare(axes, name)
    return figure


def light() -> Any:
    """Draw a ball under lights from four directions."""
    depth = ball(120)
    renderer = Lambert(albedo="grey")
    figure, panels = plt.subplots(1, 4, figsize=(6.4, 1.9))
    for axes, direction in zip(panels, ((-1, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1)), strict=True):
        unit = torch.tensor(direction, dtype=torch.float64)
        drawn = renderer.draw(1, torch.Generator().manual_seed(0))
        tensors = {**drawn.tensors, "direction": (unit / unit.norm())[None, None]}
        picture = renderer(depth, torch.ones(1, 3, 120, 120, dtype=torch.float64), Illumination(tensors))
        axes.imshow(picture[0, 0].permute(1, 2, 0).numpy())
        bare(axes, f"l ~ {direction}".replace("-", "\N{MINUS SIGN}"))
    return figure


def depths() -> Any:
    """Draw what the numbers of the three kinds of map do with distance."""
    metres = np.linspace(1, 10, 200)
    disparity = torch.from_numpy(1 / metres)[None, None, None]
    relative = geometry.relative_depth(7 * disparity)[0, 0, 0].numpy()
    figure, panels = plt.subplots(1, 3, figsize=(6.4, 2.1), layout="constrained")
    curves = (
        ("disparity", disparity[0, 0, 0].numpy(), "1 / metres, or affine:\nlarger is nearer"),
        ("relative depth", relative, "s / (D + m), no unit:\nlarger is farther"),
        ("depth in metres", metres, "along z or the ray:\nlarger is farther"),
    )
    for axes, (title, values, note), colour in zip(panels, curves, (RED, GREEN, BLUE), strict=True):
        axes.plot(metres, values, color=colour)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("distance in metres", fontsize=8)
        axes.text(
            0.97, 0.55 if colour == RED else 0.1, note, transform=axes.transAxes, ha="right", fontsize=8
        )
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def cameras() -> Any:
    """Draw how the three cameras see a wall, from above; the points are those of `point_map`."""
    figure, panels = plt.subplots(1, 3, figsize=(8.2, 3.2))
    kinds = (
        ("orthographic", ORTHOGRAPHIC, "depth z, parallel rays"),
        ("pinhole", Camera(field_of_view=80.0), "depth z, not along the ray"),
        ("spherical", SPHERICAL, "distance r along the ray"),
    )
    for axes, (name, camera, note) in zip(panels, kinds, strict=True):
        depth = torch.full((1, 1, 1, 9), 2.0, dtype=torch.float64)
        if camera.spherical:
            depth = torch.full((1, 1, 8, 16), 1.2, dtype=torch.float64)
        points = geometry.point_map(depth, camera)[0]
        if camera.spherical:
            points = points[:, 3]
        x, _, z = points.reshape(3, -1).numpy()
        if camera.kind == "orthographic":
            x = x / x.max()
        for px, pz in zip(x, z, strict=True):
            start = (px, 0.0) if camera.kind == "orthographic" else (0.0, 0.0)
            axes.plot([start[0], px], [start[1], pz], color=GREY, lw=0.7)
        axes.plot(x, z, "o", color=BLUE, ms=4)
        if not camera.spherical:
            axes.plot([-2, 2], [2, 2], color=INK, lw=1)
            axes.annotate("", (2.1, 2), (2.1, 0), arrowprops={"arrowstyle": "<->", "color": RED})
            axes.text(2.2, 1, "z", color=RED, fontsize=9)
            axes.plot([-2, 2], [0, 0], ":", color=GREY, lw=0.8)
        else:
            axes.annotate("", (x[10], z[10]), (0, 0), arrowprops={"arrowstyle": "<->", "color": RED})
            axes.text(x[10] / 2 - 0.2, z[10] / 2 + 0.15, "r", color=RED, fontsize=9)
            axes.text(0, 1.45, "ahead: centre of the picture", ha="center", fontsize=7)
            axes.text(0, -1.6, "behind: its left and right edge", ha="center", fontsize=7)
        axes.plot(0, 0, "o", color=INK, ms=4)
        axes.set_xlim(-2.4, 2.6)
        axes.set_ylim(*((-1.8, 1.8) if camera.spherical else (-0.6, 2.9)))
        bare(axes, f"{name}\n{note}")
    return figure


def intrinsics() -> Any:
    """Draw the focal length, the principal point and the field of view of a picture 6 pixels wide."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6))
    width, fx, cx = 6, 4.0, 3.5
    camera = Camera.from_pixels(fx, fx, cx, 2.0, 4, width)
    left, right = -cx, width - cx
    for column in range(width):
        axes.add_patch(Rectangle((column - cx, fx), 1, 0.3, fc="#f2f2f2", ec=GREY))
        axes.text(column - cx + 0.5, fx + 0.12, str(column), ha="center", fontsize=7, color=BLUE)
    axes.plot([left * 1.15, 0, right * 1.15], [fx * 1.15, 0, fx * 1.15], color=GREY, lw=0.8)
    axes.annotate("", (0, fx), (0, 0), arrowprops={"arrowstyle": "<->", "color": RED})
    axes.text(0.1, fx / 2, f"fx = {fx:g} pixels", color=RED, fontsize=9)
    axes.annotate("", (0, fx + 0.75), (left, fx + 0.75), arrowprops={"arrowstyle": "<->", "color": GREEN})
    axes.text(
        left / 2, fx + 0.9, f"cx = {cx:g} pixels from the left edge", color=GREEN, fontsize=9, ha="center"
    )
    angles = camera.field_of_view_degrees(4, width)
    assert angles is not None
    axes.text(0, -0.55, f"horizontal field of view {angles[0]:.1f} degrees", ha="center", fontsize=9)
    axes.plot(0, 0, "o", color=INK, ms=4)
    axes.set_xlim(-7, 7)
    axes.set_ylim(-0.9, 5.4)
    bare(axes, "")
    return figure


def export() -> Any:
    """Draw the frame of points in redepth, and that of PLY and glTF files."""
    figure = plt.figure(figsize=(6.4, 2.7))
    for index, (title, away) in enumerate(
        (("redepth (point_map): z away", 1), ("points.ply, mesh.glb (glTF)", -1))
    ):
        axes: Any = figure.add_subplot(1, 2, index + 1, projection="3d")
        # The plot's own axes: right, into the page, up.
        for direction, name, colour in (
            ((1, 0, 0), "x right", RED),
            ((0, 0, 1), "y up", GREEN),
            ((0, away, 0), "z" if away > 0 else "z to the viewer", BLUE),
        ):
            axes.quiver(0, 0, 0, *direction, color=colour, lw=2, arrow_length_ratio=0.15)
            axes.text(*(1.25 * np.array(direction)), name, color=colour, fontsize=8, ha="center")
        axes.plot([0, 0], [0, 1.5], [0, 0], ":", color=GREY)
        axes.text(0.1, 1.6, 0.1, "the camera\nlooks here", fontsize=7, color=GREY)
        axes.scatter([0], [0], [0], color=INK, s=15)
        axes.set(xlim=(-0.5, 1.1), ylim=(-1.1, 1.5), zlim=(-0.3, 1.1))
        axes.view_init(elev=22, azim=-62)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


def channels() -> Any:
    """Draw the channels of depth.exr and normals.exr."""
    depth = ball(120)
    found = geometry.normals_from_depth(depth)[0]
    figure, panels = plt.subplots(1, 4, figsize=(6.4, 1.9))
    panels[0].imshow(depth[0, 0].numpy(), cmap="gray")
    bare(panels[0], "depth.exr: Z")
    for axes, part, name in zip(panels[1:], found, "XYZ", strict=True):
        axes.imshow(part.numpy(), cmap="gray", vmin=-1, vmax=1)
        bare(axes, f"normals.exr: {name}")
    return figure


def around() -> Any:
    """Draw a panorama with its directions, the wrapped margins and the weights of the blend."""
    figure, (picture, weights) = plt.subplots(
        2, 1, figsize=(5.6, 3.0), height_ratios=(2.2, 1), layout="constrained", sharex=True
    )
    height, width = 90, 180
    points = geometry.point_map(torch.ones(1, 1, height, width, dtype=torch.float64), SPHERICAL)
    colours = panorama.extend(0.55 + 0.4 * points, panorama.margin_columns(width))[0].permute(1, 2, 0)
    edge = 180 * (1 + 2 * panorama.SHARE)
    picture.imshow(colours.numpy(), extent=(-edge, edge, -90, 90), aspect="auto")
    for azimuth, name in ((-90, "left"), (0, "ahead"), (90, "right"), (-180, "behind"), (180, "behind")):
        picture.axvline(azimuth, color="white", lw=1.6 if abs(azimuth) == 180 else 0.5)
        picture.text(azimuth, 4, name, ha="center", fontsize=8)
    picture.axhline(0, color="white", lw=0.5)
    picture.set_ylabel("elevation v", fontsize=8)
    picture.set_title("the photo is between the two thick lines; beyond them it goes on", fontsize=9)
    along = np.linspace(-edge, edge, 500)
    ramp = np.clip(0.5 + (180 - np.abs(along)) / (2 * 360 * panorama.SHARE), 0, 1)
    weights.plot(along, ramp, color=RED)
    weights.axvline(-180, color=GREY, lw=0.8)
    weights.axvline(180, color=GREY, lw=0.8)
    weights.set_ylabel("weight", fontsize=8)
    weights.set_xlabel("azimuth u in degrees", fontsize=8)
    for axes in (picture, weights):
        axes.tick_params(labelsize=7)
    weights.set_xticks([-180, -90, 0, 90, 180])
    return figure


PICTURES: dict[str, Callable[[], Any]] = {
    "pixels": pixels,
    "frame": frame,
    "normals": normals,
    "light": light,
    "depth": depths,
    "cameras": cameras,
    "intrinsics": intrinsics,
    "export": export,
    "exr": channels,
    "panorama": around,
}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/pictures/conventions"),
) -> None:
    """Draw all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw()
        figure.savefig(out / f"{name}.png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        print(out / f"{name}.png")


if __name__ == "__main__":
    run(main)
