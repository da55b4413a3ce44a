"""The pictures of an image in the report: photo, depth before and after, errors before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from redepth import io, viz
from redepth.literals import VIEW_FILE
from redepth.protocols import Measurement

PICTURES = ("photo", "initial", "refined", "error-initial", "error-refined")
ERRORS = ("error-initial", "error-refined")
"""The pictures that differ between protocols that share a prediction."""

ERROR_CMAP = "magma"


def draw(
    photo: NDArray[np.float32], measured: Mapping[str, Measurement], names: Sequence[str], width: int
) -> dict[str, Image.Image]:
    """Draw pictures of one image, each at most ``width`` wide.

    Both depths share one colour range, that of the known ground truth; both errors, |log depth - log truth|,
    share another. Without a refinement there are no pictures of it.

    Args:
        photo: (H, W, 3) sRGB in [0, 1].
        measured: ``initial`` and, after a refinement, ``refined``.
        names: of `PICTURES`.
        width: in pixels.
    """
    initial = measured["initial"]
    low, high = viz.display_range(initial.truth[initial.mask].log().numpy())
    errors = {when: error_map(measurement) for when, measurement in measured.items()}
    largest = viz.display_range(*errors.values())[1]
    pictures: dict[str, NDArray[np.uint8]] = {}
    if "photo" in names:
        pictures["photo"] = io.to_uint8(photo)
    for when, measurement in measured.items():
        if when in names:
            depth = _log(measurement.depth).float().numpy()
            # Near is bright, as in every other depth picture of redepth.
            pictures[when] = viz.colorize(-depth, lo=-high, hi=-low)
        pictures[f"error-{when}"] = viz.colorize(errors[when], ERROR_CMAP, 0.0, largest)
    return {name: _narrowed(Image.fromarray(pictures[name]), width) for name in names if name in pictures}


def beside(row: Path, number: int, ending: str) -> Path:
    """Return the path of a file of an image, beside its row.

    Args:
        row: path of the row.
        number: of the protocol in the row; 0 is the first one, whose files have no number.
        ending: such as ``photo.jpg`` or ``npz``.
    """
    if number == 0:
        return row.with_suffix(f".{ending}")
    # The name of a row leaves room for the longest ending of the first protocol.
    separator = "-" if "." in ending else "."
    return row.with_suffix(f".{number + 1}{separator}{ending.replace('error', 'e')}")


def view_path(row: Path, number: int = 0) -> Path:
    """Return the path of an image's page, beside its row."""
    return beside(row, number, VIEW_FILE)


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
