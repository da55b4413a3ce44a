"""Pictures for people: colour maps, normals as colours, labelled comparison sheets.

Maps are (H, W) and pictures (H, W, 3). matplotlib provides the colour maps and the typeface; only the
functions that need it import it. Nothing here keeps or changes global state.
"""

from redepth.viz.cards import card
from redepth.viz.color import (
    DIFFERENCE_CMAP,
    DISPARITY_CMAP,
    ERROR_CMAP,
    UNCERTAINTY_CMAP,
    colorize,
    display_range,
    normals_to_rgb,
)
from redepth.viz.compare import clip_frame, comparison, side_by_side
from redepth.viz.curves import curve_figure
from redepth.viz.jpeg import jpeg_within
from redepth.viz.losses import loss_figure
from redepth.viz.normals import normals_at_size, normals_of, normals_picture
from redepth.viz.notebook import in_notebook, show_page, show_picture
from redepth.viz.reduction import SHEET_SIDE, reduced_map, reduced_photo, reduction

__all__ = [
    "DIFFERENCE_CMAP",
    "DISPARITY_CMAP",
    "ERROR_CMAP",
    "SHEET_SIDE",
    "UNCERTAINTY_CMAP",
    "card",
    "clip_frame",
    "colorize",
    "comparison",
    "curve_figure",
    "display_range",
    "in_notebook",
    "jpeg_within",
    "loss_figure",
    "normals_at_size",
    "normals_of",
    "normals_picture",
    "normals_to_rgb",
    "reduced_map",
    "reduced_photo",
    "reduction",
    "show_page",
    "show_picture",
    "side_by_side",
]
