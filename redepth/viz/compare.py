"""Comparison sheets: what a refinement changed, or several pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from redepth.io import to_uint8
from redepth.viz.color import (
    DIFFERENCE_CMAP,
    DISPARITY_CMAP,
    ERROR_CMAP,
    UNCERTAINTY_CMAP,
    colorize,
    display_range,
    normals_to_rgb,
)
from redepth.viz.sheet import Panel, Scale, compose

_PANEL_SIDE = 640
_SMALLEST_PANEL_SIDE = 320
_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def comparison(
    photo: ArrayLike,
    initial: ArrayLike,
    refined: ArrayLike,
    normals_before: ArrayLike,
    normals_after: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    ground_truth: ArrayLike | None = None,
    title: str = "",
    subtitle: str = "",
    photo_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw what a refinement changed on one labelled sheet.

    The first column shows the photo and the difference, the second the disparity and the normals
    before, the third both after. Both disparities share one colour range. ``uncertainty`` takes the
    place of the difference and adds a fourth column with the change of each row. ``ground_truth``
    adds a row of errors, after a least-squares fit of each disparity to it by scale and shift.

    Args:
        photo: (H, W, 3) sRGB, uint8 or floats in [0, 1]. Every panel has its aspect ratio and is
            at most 640 pixels long.
        initial: (h, w) disparity before.
        refined: (h, w) disparity after.
        normals_before: (h, w, 3), as for `normals_to_rgb`.
        normals_after: (h, w, 3).
        uncertainty: (h, w), >= 0, in units of disparity.
        ground_truth: (h, w) disparity; pixels that are not finite and positive are unknown.
        title: a heading for the sheet.
        subtitle: a line below the heading.
        photo_size: height and width of the photo to name, where the arrays are reduced.

    Returns:
        An RGB picture.

    Raises:
        ValueError: the shapes do not match, or ``ground_truth`` has no known pixel.
    """
    picture = to_uint8(photo)
    before, after = np.asarray(initial, np.float32), np.asarray(refined, np.float32)
    if before.shape != after.shape:
        raise ValueError(f"initial is {before.shape}, refined {after.shape}; give the same shape")
    height, width = picture.shape[:2]
    size = _panel_size(width, height)
    shown = (height, width) if photo_size is None else photo_size
    photo_panel = Panel(_resize(picture, size), "Photo", f"{shown[1]} {_TIMES} {shown[0]} pixels")
    first = [photo_panel, *_disparity_panels(before, after, size)]
    normals = _normals_panels(normals_before, normals_after, size)
    caption = f"refined {_MINUS} initial, red is nearer"
    difference = _change_panel(after - before, size, "Difference", caption)
    errors: list[Panel] = []
    if ground_truth is not None:
        errors = _error_panels(before, after, np.asarray(ground_truth, np.float32), size)
    if uncertainty is None:
        # Without a fourth column there is no place for the last error panel, the change of error.
        rows = [first, [difference, *normals], errors[:3]]
    else:
        second = [_uncertainty_panel(uncertainty, size), *normals]
        turn = _turn_panel(normals_before, normals_after, size)
        rows = [[*first, difference], [*second, turn], errors]
    return compose([row for row in rows if row], title, subtitle)


def clip_frame(
    photo: ArrayLike,
    initial: ArrayLike,
    refined: ArrayLike,
    colours: tuple[float, float],
    *,
    title: str = "",
    subtitle: str = "",
) -> Image.Image:
    """Draw a frame of a clip: the photo, and the disparity before and after in the colours of the clip.

    Args:
        photo: (H, W, 3) sRGB, uint8 or floats in [0, 1].
        initial: (h, w) disparity before.
        refined: (h, w) disparity after.
        colours: the disparity of the first and of the last colour, the same for all frames.
        title: a heading.
        subtitle: a line below the heading.

    Returns:
        An RGB picture, of one size for all frames of one size.
    """
    picture = to_uint8(photo)
    size = _panel_size(picture.shape[1], picture.shape[0])
    before, after = np.asarray(initial, np.float32), np.asarray(refined, np.float32)
    panels = [Panel(_resize(picture, size), "Photo"), *_disparity_panels(before, after, size, colours)]
    return compose([panels], title, subtitle)


def side_by_side(
    images: Mapping[str, ArrayLike | Image.Image],
    *,
    columns: int | None = None,
    title: str = "",
    subtitle: str = "",
) -> Image.Image:
    """Draw several labelled pictures at one height.

    Args:
        images: label -> (H, W, 3) uint8 or floats in [0, 1], a Pillow image, a mask (H, W) bool,
            or a map (H, W), which `colorize` colours by its own range.
        columns: pictures in a row, by default all of them.
        title: a heading for the sheet.
        subtitle: a line below the heading.

    Returns:
        An RGB picture.

    Raises:
        ValueError: there is no image, or one has another shape.
    """
    if not images:
        raise ValueError("no image given")
    pictures = {label: _as_rgb(label, image) for label, image in images.items()}
    sizes = [_panel_size(p.shape[1], p.shape[0]) for p in pictures.values()]
    height = min(height for _, height in sizes)
    panels = [
        Panel(_resize(p, (max(1, round(height * p.shape[1] / p.shape[0])), height)), label)
        for label, p in pictures.items()
    ]
    step = len(panels) if columns is None else columns
    return compose([panels[i : i + step] for i in range(0, len(panels), step)], title, subtitle)


def _map_panel(
    values: NDArray[np.float32], scale: Scale, size: tuple[int, int], heading: str, caption: str
) -> Panel:
    picture = _resize(colorize(values, scale.cmap, scale.lo, scale.hi), size)
    return Panel(picture, heading, caption, scale)


def _disparity_panels(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    size: tuple[int, int],
    colours: tuple[float, float] | None = None,
) -> list[Panel]:
    scale = Scale(DISPARITY_CMAP, *(colours or display_range(before, after)), "far", "near")
    return [
        _map_panel(before, scale, size, "Initial disparity", "near is bright"),
        _map_panel(after, scale, size, "Refined disparity", "near is bright, same colours"),
    ]


def _normals_panels(before: ArrayLike, after: ArrayLike, size: tuple[int, int]) -> list[Panel]:
    caption = "red right, green up, blue to viewer"
    return [
        Panel(_resize(normals_to_rgb(normals), size), heading, caption)
        for heading, normals in (("Normals before", before), ("Normals after", after))
    ]


def _change_panel(change: NDArray[np.float32], size: tuple[int, int], heading: str, caption: str) -> Panel:
    low, high = display_range(change)
    reach = max(abs(low), abs(high))
    label = _number(reach)
    scale = Scale(DIFFERENCE_CMAP, -reach, reach, f"{_MINUS}{label}", f"+{label}")
    return _map_panel(change, scale, size, heading, caption)


def _uncertainty_panel(uncertainty: ArrayLike, size: tuple[int, int]) -> Panel:
    values = np.asarray(uncertainty, np.float32)
    high = display_range(values)[1]
    scale = Scale(UNCERTAINTY_CMAP, 0.0, high, "0", _number(high))
    return _map_panel(values, scale, size, "Uncertainty", "spread of the refined disparity")


def _turn_panel(before: ArrayLike, after: ArrayLike, size: tuple[int, int]) -> Panel:
    cosine = np.sum(np.asarray(before, np.float32) * np.asarray(after, np.float32), axis=2)
    degrees = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    high = display_range(degrees)[1]
    scale = Scale(ERROR_CMAP, 0.0, high, "0°", f"{high:.0f}°")
    return _map_panel(degrees, scale, size, "Turn of normals", "angle from before to after")


def _error_panels(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    truth: NDArray[np.float32],
    size: tuple[int, int],
) -> list[Panel]:
    if truth.shape != before.shape:
        raise ValueError(f"ground_truth is {truth.shape}, the disparity {before.shape}")
    truth = np.where(np.isfinite(truth) & (truth > 0), truth, np.nan)
    if np.isnan(truth).all():
        raise ValueError("ground_truth has no pixel that is finite and positive")
    scale = Scale(DISPARITY_CMAP, *display_range(truth), "far", "near")
    panels = [_map_panel(truth, scale, size, "Ground truth", "disparity, grey is unknown")]
    errors = [np.abs(_fit_to(truth, prediction) - truth) for prediction in (before, after)]
    high = display_range(*errors)[1]
    scale = Scale(ERROR_CMAP, 0.0, high, "0", _number(high))
    for when, error in zip(("before", "after"), errors, strict=True):
        caption = f"|fitted {_MINUS} truth|, mean {_number(float(np.nanmean(error)))}"
        panels.append(_map_panel(error, scale, size, f"Error {when}", caption))
    caption = f"after {_MINUS} before, blue is better"
    panels.append(_change_panel(errors[1] - errors[0], size, "Change of error", caption))
    return panels


def _number(value: float) -> str:
    """Return a number with three significant digits, or all its integer digits from 1000 on."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _fit_to(truth: NDArray[np.float32], prediction: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the prediction, scaled and shifted to the ground truth by least squares."""
    import torch

    from redepth.ops.align import scale_and_shift

    known = np.isfinite(truth) & np.isfinite(prediction)
    tensors = [torch.from_numpy(array) for array in (prediction, truth, known)]
    scale, shift = scale_and_shift(*tensors)
    return float(scale) * prediction + float(shift)


def _as_rgb(label: str, image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.ndim == 2 and array.dtype != np.bool_:
        return colorize(array)
    if array.ndim == 2:
        return np.repeat(to_uint8(array)[..., None], 3, axis=2)
    if array.ndim == 3 and array.shape[2] == 3:
        return to_uint8(array)
    raise ValueError(f"'{label}' must be (H, W) or (H, W, 3), got {array.shape}")


def _panel_size(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of a panel with that aspect ratio; its longer side is 320 to 640 pixels."""
    longest = max(width, height)
    factor = min(max(longest, _SMALLEST_PANEL_SIDE), _PANEL_SIDE) / longest
    return max(1, round(factor * width)), max(1, round(factor * height))


def _resize(picture: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
