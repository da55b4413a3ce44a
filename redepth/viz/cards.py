"""A result as a card in a notebook: a strip of pictures, the key facts, and notes of what to check."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from redepth.io import to_uint8
from redepth.viz.color import colorize, display_range, normals_to_rgb
from redepth.viz.jpeg import jpeg_within

PICTURE_LIMIT = 200_000
"""Largest picture of a card in bytes; as text inside the card it takes a third more."""
_LONGEST, _SHORTEST = 320, 200
"""Limits of the longer side of each picture, in pixels."""
_GAP = 4
_GREY = (128, 128, 128)
_NARROWEST = 640

# No colours of text or background, so that a card reads on light and on dark.
_CARD = "max-width: {width}px; line-height: 1.5"
_PICTURE = "display: block; width: {width}px; max-width: 100%; margin: 4px 0 2px"
_LABELS = (
    "display: grid; grid-template-columns: repeat({columns}, 1fr); width: {width}px; max-width: 100%; "
    "text-align: center; font-size: 85%; opacity: 0.75"
)
_FACT = (
    '<span style="white-space: nowrap; margin-right: 1.5em"><span style="opacity: 0.65">{}</span> {}</span> '
)
_NOTE = '<div style="border-left: 4px solid #d97706; padding-left: 8px; margin-top: 4px">{}</div>'


def card(
    photo: ArrayLike,
    initial: ArrayLike,
    refined: ArrayLike,
    normals: ArrayLike,
    *,
    title: str,
    subtitle: str,
    facts: Mapping[str, str],
    remark: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Return the HTML of a card. Texts are escaped; nothing is read from elsewhere.

    The pictures are one JPEG of `PICTURE_LIMIT` bytes at most. Both disparities share one colour range.

    Args:
        photo: (H, W, 3) sRGB, uint8 or floats in [0, 1]. Every picture has its proportions.
        initial: (h, w) disparity before.
        refined: (h, w) disparity after.
        normals: (h, w, 3), as for `normals_to_rgb`.
        title: its heading.
        subtitle: beside it.
        facts: name -> value, each short.
        remark: a sentence below them.
        notes: lines that stand out.
    """
    low, high = display_range(initial, refined)
    pictures = {
        "photo": to_uint8(photo),
        "initial": colorize(initial, lo=low, hi=high),
        "refined": colorize(refined, lo=low, hi=high),
        "refined normals": normals_to_rgb(normals),
    }
    whole = strip(list(pictures.values()))
    data = base64.b64encode(jpeg_within(whole, PICTURE_LIMIT)).decode("ascii")
    labels = "".join(f"<span>{label}</span>" for label in pictures)
    listed = "".join(_FACT.format(escape(name), escape(value)) for name, value in facts.items())
    marked = "".join(_NOTE.format(escape(note)) for note in notes)
    heading = f"<strong>{escape(title)}</strong> · {escape(subtitle)}"
    return (
        f'<div style="{_CARD.format(width=max(whole.width, _NARROWEST))}">{heading}'
        f'<img alt="{", ".join(pictures)}" style="{_PICTURE.format(width=whole.width)}" '
        f'src="data:image/jpeg;base64,{data}">'
        f'<div style="{_LABELS.format(columns=len(pictures), width=whole.width)}">{labels}</div>'
        f'<div>{listed}</div><div style="opacity: 0.65">{escape(remark)}</div>{marked}</div>'
    )


def strip(pictures: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Return pictures side by side, all of the first one's proportions and 200 to 320 pixels long."""
    height, width = pictures[0].shape[:2]
    longest = max(height, width)
    factor = min(max(longest, _SHORTEST), _LONGEST) / longest
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    whole = Image.new("RGB", (len(pictures) * (size[0] + _GAP) - _GAP, size[1]), _GREY)
    for number, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        whole.paste(small, (number * (size[0] + _GAP), 0))
    return whole
