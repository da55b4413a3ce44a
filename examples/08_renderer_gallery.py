"""The same photo, depth and light under every renderer.

    python examples/08_renderer_gallery.py [--photo gravel.png] [--size 256] [--out out/gallery]

Writes renderers.png (one row of every renderer) and renderer-options.png (one row of the shared options). The
mesh renderer is shown where one of its rasterizers can run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import skimage
import torch
import typer
from torch import Tensor

from redepth import Pipeline, renderers, viz
from redepth.cli.script import run
from redepth.contracts import Illumination
from redepth.errors import MissingDependencyError
from redepth.io import save_png
from redepth.ops import color, shading

GRAVEL = Path(skimage.__file__).parent / "data" / "gravel.png"

# Towards the light, x right, y up, z to the viewer: from the upper left, 40 degrees above the picture.
LIGHT = (-0.6, 0.6, 0.7)
MATERIAL = {
    "diffuse": 0.7,
    "specular": 0.3,
    "shininess": 16.0,
    "roughness": 0.5,
    "metalness": 0.2,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "blinn-phong": {},
    "shadows=soft": {"shadows": "soft"},
    "camera=pinhole": {"camera": "pinhole", "field_of_view": 60.0},
    "ambient=0.3": {"ambient": 0.3},
    "light_saturation=0.8": {"light_saturation": 0.8},
    "albedo=grey": {"albedo": "grey"},
}


def same_light(renderer: Any) -> Illumination:
    """Return this gallery's light as an illumination of the renderer; its other values are seeded."""
    drawn = renderer.draw(1, torch.Generator().manual_seed(0)).tensors
    direction = shading.normalize(torch.tensor([[LIGHT]]))
    fixed = {"direction": direction} | {k: torch.tensor([[v]]) for k, v in MATERIAL.items()}
    light = {**drawn, **{k: v for k, v in fixed.items() if k in drawn}}
    if "coefficients" in drawn:
        light["coefficients"] = shading.project_lights(direction[:, :, None], torch.ones(1, 1, 1, 3))
    return Illumination(light)


def relit(name: str, options: dict[str, Any], depth: Tensor, linear: Tensor) -> np.ndarray:
    """Return the photo re-lit by a renderer, (H, W, 3) sRGB."""
    renderer = renderers.REGISTRY.build(name, options)
    if hasattr(renderer, "ensure_available"):
        renderer.ensure_available()
    picture = renderer(depth, linear, same_light(renderer))[0, 0]
    return picture.permute(1, 2, 0).numpy()


def main(
    photo: Annotated[Path, typer.Option(help="The photo.")] = GRAVEL,
    size: Annotated[int, typer.Option(help="Longer side of the pictures.", min=32)] = 256,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out/gallery"),
) -> None:
    """Draw the photo under every renderer, and under the options that they share."""
    pipeline = Pipeline("embedded", overrides={"depth_model.longer_side": size}, device="cpu")
    refined = pipeline.refine(photo)
    pixels = torch.from_numpy(refined.photo).permute(2, 0, 1)[None]
    image = pipeline.refiner.depth_model.prepare(pixels)
    depth, linear = refined.outcome.refined_depth, color.srgb_to_linear(image)
    row: dict[str, Any] = {"the photo": image[0].permute(1, 2, 0).numpy()}
    for name in sorted(renderers.REGISTRY.entries()):
        try:
            row[name] = relit(name, {}, depth, linear)
        except MissingDependencyError as error:
            print(f"{name} is left out: {error}")
    save_png(out / "renderers.png", viz.side_by_side(row, columns=4))
    options = {label: relit("blinn-phong", changes, depth, linear) for label, changes in OPTIONS.items()}
    save_png(out / "renderer-options.png", viz.side_by_side(options, columns=3))
    print("written to", out)


if __name__ == "__main__":
    run(main)
