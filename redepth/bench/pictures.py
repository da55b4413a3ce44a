"""The pictures of an image in the report: photo, depth before and after, errors before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from redepth import io, viz
from redepth.literals import VIEW_FILE
from redepth.protocols import Measurement
from redepth.refinement import Refinement

PICTURES = ("photo", "initial", "refined", "error-initial", "error-refined")
ERROR_CMAP = "magma"


def image_pictures(
    refinement: Refinement, measured: Mapping[str, Measurement], width: int
) -> dict[str, Image.Image]:
    """Draw the pictures of one image, each at most ``width`` wide.

    Both depths share one colour range, that of the known ground truth; both errors, |log depth - log truth|,
    share another.
    """
    initial = measured["initial"]
    low, high = viz.display_range(initial.truth[initial.mask].log().numpy())
    errors = {when: error_map(measurement) for when, measurement in measured.items()}
    largest = viz.display_range(*errors.values())[1]
    pictures: dict[str, NDArray[np.uint8]] = {"photo": io.to_uint8(refinement.photo)}
    for when in ("initial", "refined"):
        depth = _log(measured[when].depth).float().numpy()
        # Near is bright, as in every other depth picture of redepth.
        pictures[when] = viz.colorize(-depth, lo=-high, hi=-low)
        pictures[f"error-{when}"] = viz.colorize(errors[when], ERROR_CMAP, 0.0, largest)
    return {name: _narrowed(Image.fromarray(picture), width) for name, picture in pictures.items()}


def view_path(row: Path) -> Path:
    """Return the path of an image's page, beside its row."""
    return row.with_suffix(f".{VIEW_FILE}")


def error_map(measured: Measurement) -> NDArray[np.float32]:
    """Return |log depth - log truth|, (H, W), NaN where nothing was measured."""
    depth, truth = _log(measured.depth), _log(measured.truth)
    error = (depth - truth).abs()
    unknown = torch.full_like(error, float("nan"))
    values: NDArray[np.float32] = torch.where(measured.mask, error, unknown).float().numpy()
    return values


def _log(depth: torch.Tensor) -> torch.Tensor:
    """Return ln of depth in any unit, NaN where it is unknown."""
    return torch.where(depth > 0, depth, torch.nan).log()


def _narrowed(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
