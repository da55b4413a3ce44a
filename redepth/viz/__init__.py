"""Pictures for people: colour maps, normals as colours, labelled comparison sheets.

Maps are (H, W) and pictures (H, W, 3). Sheets are drawn with Pillow at exact pixel positions;
matplotlib gives the colour maps and the typeface and is imported by the functions that need them.
Nothing here keeps or changes global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from redepth.io import to_uint8

DISPARITY_CMAP = "inferno"
DIFFERENCE_CMAP = "RdBu_r"
ERROR_CMAP = "Reds"
UNCERTAINTY_CMAP = "viridis"

_INVALID = (160, 160, 160)
_PERCENTILES = (1.0, 99.0)
_PANEL_SIDE = 640
_SMALLEST_PANEL_SIDE = 320
_SMALLEST_CELL = 250
_INK, _SOFT_INK, _FRAME = "#1a1a1a", "#6b6b6b", "#d9d9d9"
_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


# --- colours --------------------------------------------------------------------------------------


def display_range(*maps: ArrayLike) -> tuple[float, float]:
    """Return the 1st and 99th percentile of the finite values of one or several maps together.

    Several maps coloured with one range can be compared. (0, 1) where nothing is finite. Of a map
    with millions of pixels, about a million, evenly spread, are looked at.
    """
    flat = [np.ravel(np.asarray(m, dtype=np.float32)) for m in maps]
    values = np.concatenate([f[:: max(1, f.size // 1_000_000)] for f in flat])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    lo, hi = np.percentile(values, _PERCENTILES)
    return float(lo), float(hi)


def colorize(
    values: ArrayLike,
    cmap: str = DISPARITY_CMAP,
    lo: float | None = None,
    hi: float | None = None,
) -> NDArray[np.uint8]:
    """Colour a map.

    Args:
        values: (H, W); pixels that are not finite become grey.
        cmap: a matplotlib colour map. The default is perceptually uniform and reads in greyscale:
            for disparity, near is bright.
        lo: the value of the first colour, by default the lower end of `display_range`.
        hi: the value of the last colour, by default the upper end.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: ``values`` is not (H, W), or there is no such colour map.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"values must be (H, W), got {array.shape}")
    if lo is None or hi is None:
        robust_lo, robust_hi = display_range(array)
        lo = robust_lo if lo is None else lo
        hi = robust_hi if hi is None else hi
    valid = np.isfinite(array)
    unit = (np.where(valid, array, lo) - lo) / ((hi - lo) or 1.0)
    colours = _colour_table(cmap)[np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)]
    colours[~valid] = _INVALID
    return colours


@cache
def _colour_table(cmap: str) -> NDArray[np.uint8]:
    """Return the 256 colours of a matplotlib colour map, (256, 3)."""
    import matplotlib

    try:
        colour_map = matplotlib.colormaps[cmap]
    except KeyError:
        raise ValueError(f"no colour map '{cmap}'; see matplotlib.colormaps") from None
    table: NDArray[np.uint8] = colour_map(np.linspace(0, 1, 256), bytes=True)[:, :3]
    return table


def normals_to_rgb(normals: ArrayLike) -> NDArray[np.uint8]:
    """Show unit normals as the usual colours, (n + 1) / 2.

    Args:
        normals: (H, W, 3), x right, y up, z to the viewer, so that a surface facing the viewer is
            light blue. Pixels that are not finite become grey.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: ``normals`` is not (H, W, 3).
    """
    array = np.asarray(normals, dtype=np.float32)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"normals must be (H, W, 3), got {array.shape}")
    colours = to_uint8((array + 1) / 2)
    colours[~np.isfinite(array).all(axis=2)] = _INVALID
    return colours


# --- sheets ---------------------------------------------------------------------------------------


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
) -> Image.Image:
    """Draw on one labelled sheet what a refinement changed.

    The columns are: the photo and the difference; the disparity and the normals before; the same
    after. Both disparities share one colour range. With ``uncertainty``, that takes the place of
    the difference, and a fourth column shows what changed in each row. ``ground_truth`` adds a row
    of errors, each disparity fitted to it by scale and shift (least squares).

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
    photo_panel = _Panel(_resize(picture, size), "Photo", f"{width} {_TIMES} {height} pixels")
    first = [photo_panel, *_disparity_panels(before, after, size)]
    normals = _normals_panels(normals_before, normals_after, size)
    caption = f"refined {_MINUS} initial, red is nearer"
    difference = _change_panel(after - before, size, "Difference", caption)
    errors: list[_Panel] = []
    if ground_truth is not None:
        errors = _error_panels(before, after, np.asarray(ground_truth, np.float32), size)
    if uncertainty is None:
        # Without a column of changes there is no place for the last panel of the errors.
        rows = [first, [difference, *normals], errors[:3]]
    else:
        second = [_uncertainty_panel(uncertainty, size), *normals]
        turn = _turn_panel(normals_before, normals_after, size)
        rows = [[*first, difference], [*second, turn], errors]
    return _compose([row for row in rows if row], title, subtitle)


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
        _Panel(_resize(p, (max(1, round(height * p.shape[1] / p.shape[0])), height)), label)
        for label, p in pictures.items()
    ]
    step = columns or len(panels)
    return _compose([panels[i : i + step] for i in range(0, len(panels), step)], title, subtitle)


@dataclass(frozen=True)
class _Scale:
    """A colour map, the values of its ends, and the words that its bar shows there."""

    cmap: str
    lo: float
    hi: float
    low_label: str
    high_label: str


@dataclass(frozen=True)
class _Panel:
    picture: Image.Image
    heading: str
    caption: str = ""
    scale: _Scale | None = None


def _map_panel(
    values: NDArray[np.float32], scale: _Scale, size: tuple[int, int], heading: str, caption: str
) -> _Panel:
    picture = _resize(colorize(values, scale.cmap, scale.lo, scale.hi), size)
    return _Panel(picture, heading, caption, scale)


def _disparity_panels(
    before: NDArray[np.float32], after: NDArray[np.float32], size: tuple[int, int]
) -> list[_Panel]:
    scale = _Scale(DISPARITY_CMAP, *display_range(before, after), "far", "near")
    return [
        _map_panel(before, scale, size, "Initial disparity", "near is bright"),
        _map_panel(after, scale, size, "Refined disparity", "near is bright, same colours"),
    ]


def _normals_panels(before: ArrayLike, after: ArrayLike, size: tuple[int, int]) -> list[_Panel]:
    caption = "red right, green up, blue to viewer"
    return [
        _Panel(_resize(normals_to_rgb(normals), size), heading, caption)
        for heading, normals in (("Normals before", before), ("Normals after", after))
    ]


def _change_panel(change: NDArray[np.float32], size: tuple[int, int], heading: str, caption: str) -> _Panel:
    reach = max(map(abs, display_range(change)))
    label = _number(reach)
    scale = _Scale(DIFFERENCE_CMAP, -reach, reach, f"{_MINUS}{label}", f"+{label}")
    return _map_panel(change, scale, size, heading, caption)


def _uncertainty_panel(uncertainty: ArrayLike, size: tuple[int, int]) -> _Panel:
    values = np.asarray(uncertainty, np.float32)
    high = display_range(values)[1]
    scale = _Scale(UNCERTAINTY_CMAP, 0.0, high, "0", _number(high))
    return _map_panel(values, scale, size, "Uncertainty", "spread of the refined disparity")


def _turn_panel(before: ArrayLike, after: ArrayLike, size: tuple[int, int]) -> _Panel:
    cosine = np.sum(np.asarray(before, np.float32) * np.asarray(after, np.float32), axis=2)
    degrees = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    high = display_range(degrees)[1]
    scale = _Scale(ERROR_CMAP, 0.0, high, "0°", f"{high:.0f}°")
    return _map_panel(degrees, scale, size, "Turn of normals", "angle from before to after")


def _error_panels(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    truth: NDArray[np.float32],
    size: tuple[int, int],
) -> list[_Panel]:
    if truth.shape != before.shape:
        raise ValueError(f"ground_truth is {truth.shape}, the disparity {before.shape}")
    truth = np.where(np.isfinite(truth) & (truth > 0), truth, np.nan)
    if np.isnan(truth).all():
        raise ValueError("ground_truth has no pixel that is finite and positive")
    scale = _Scale(DISPARITY_CMAP, *display_range(truth), "far", "near")
    panels = [_map_panel(truth, scale, size, "Ground truth", "disparity, grey is unknown")]
    errors = [np.abs(_fitted(prediction, truth) - truth) for prediction in (before, after)]
    high = display_range(*errors)[1]
    scale = _Scale(ERROR_CMAP, 0.0, high, "0", _number(high))
    for when, error in zip(("before", "after"), errors, strict=True):
        caption = f"|fitted {_MINUS} truth|, mean {_number(float(np.nanmean(error)))}"
        panels.append(_map_panel(error, scale, size, f"Error {when}", caption))
    caption = f"after {_MINUS} before, blue is better"
    panels.append(_change_panel(errors[1] - errors[0], size, "Change of error", caption))
    return panels


def _number(value: float) -> str:
    """Return a number at three significant digits; large ones are written out in full."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _fitted(prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the prediction under the scale and shift that bring it closest to the truth."""
    import torch

    from redepth.ops.align import scale_and_shift

    known = np.isfinite(truth) & np.isfinite(prediction)
    scale, shift = scale_and_shift(*map(torch.from_numpy, (prediction, truth, known)))
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
    """Return the (width, height) of a panel of that aspect ratio, neither tiny nor huge."""
    longest = max(width, height)
    factor = min(max(longest, _SMALLEST_PANEL_SIDE), _PANEL_SIDE) / longest
    return max(1, round(factor * width)), max(1, round(factor * height))


def _resize(picture: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


# --- layout ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Style:
    """Fonts and distances, all in units of the heading's size: a sheet keeps its proportions."""

    unit: int

    def font(self, size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
        """Return the typeface that comes with matplotlib, at ``size`` units."""
        import matplotlib

        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
        # The basic engine draws the same on every machine; the other is not always there.
        return ImageFont.truetype(str(path), round(size * self.unit), layout_engine=ImageFont.Layout.BASIC)

    def px(self, units: float) -> int:
        """Return a distance in pixels."""
        return round(units * self.unit)


def _compose(rows: Sequence[Sequence[_Panel]], title: str, subtitle: str) -> Image.Image:
    """Lay panels out in a grid, left-aligned in columns as wide as their widest panel."""
    widths = [
        max(_SMALLEST_CELL, *(panel.picture.width for panel in column if panel))
        for column in zip_longest(*rows)
    ]
    style = _Style(min(max(round(0.042 * sum(widths) / len(widths)), 16), 26))
    margin, gutter = style.px(1.6), style.px(1.1)
    header = style.px(2.0) * bool(title) + style.px(1.5) * bool(subtitle)
    header += style.px(0.9) * bool(header)
    parts = [_row_parts(row, style) for row in rows]
    width = 2 * margin + sum(widths) + gutter * (len(widths) - 1)
    height = 2 * margin + header + sum(map(sum, parts)) + gutter * (len(rows) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    text_width = width - 2 * margin
    _text(sheet, margin, margin, title, style.font(1.5, bold=True), _INK, text_width)
    below = margin + style.px(2.0) * bool(title)
    _text(sheet, margin, below, subtitle, style.font(0.95), _SOFT_INK, text_width)
    y = margin + header
    for row, (labels, pictures, bars) in zip(rows, parts, strict=True):
        x = margin
        for panel, cell in zip(row, widths, strict=False):
            _draw_panel(sheet, panel, (x, y), cell, labels, style)
            x += cell + gutter
        y += labels + pictures + bars + gutter
    return sheet


def _row_parts(row: Sequence[_Panel], style: _Style) -> tuple[int, int, int]:
    """Return the heights of a row's labels, pictures and colour bars."""
    labels = style.px(1.6) + style.px(1.25) * any(panel.caption for panel in row)
    bars = style.px(1.4) * any(panel.scale for panel in row)
    return labels, max(panel.picture.height for panel in row), bars


def _draw_panel(
    sheet: Image.Image, panel: _Panel, at: tuple[int, int], cell: int, labels: int, style: _Style
) -> None:
    x, y = at
    _text(sheet, x, y, panel.heading, style.font(1.0, bold=True), _INK, cell)
    _text(sheet, x, y + style.px(1.4), panel.caption, style.font(0.75), _SOFT_INK, cell)
    sheet.paste(panel.picture, (x, y + labels))
    right, bottom = x + panel.picture.width, y + labels + panel.picture.height
    ImageDraw.Draw(sheet).rectangle((x, y + labels, right - 1, bottom - 1), outline=_FRAME)
    if panel.scale:
        _draw_bar(sheet, panel.scale, (x, bottom + style.px(0.5)), cell, style)


def _draw_bar(sheet: Image.Image, scale: _Scale, at: tuple[int, int], cell: int, style: _Style) -> None:
    """Draw ``low [colours] high``."""
    x, y = at
    font, gap = style.font(0.75), style.px(0.4)
    bar = Image.fromarray(_colour_table(scale.cmap)[None]).resize((cell // 3, style.px(0.6)))
    middle = y + bar.height // 2
    x = _text(sheet, x, middle, scale.low_label, font, _SOFT_INK, cell // 3, anchor="lm") + gap
    sheet.paste(bar, (x, y))
    _text(sheet, x + bar.width + gap, middle, scale.high_label, font, _SOFT_INK, cell // 3, "lm")


def _text(
    sheet: Image.Image,
    x: int,
    y: int,
    text: str,
    font: ImageFont.FreeTypeFont,
    ink: str,
    width: int,
    anchor: str = "la",
) -> int:
    """Write one line, cut with an ellipsis to ``width`` pixels; return where it ends."""
    text = " ".join(text.split())  # Pillow cannot measure more than one line
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}…") > width:
            text = text[:-1]
        text = f"{text.rstrip()}…"
    ImageDraw.Draw(sheet).text((x, y), text, fill=ink, font=font, anchor=anchor)
    return x + round(font.getlength(text))
