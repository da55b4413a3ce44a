"""Frames for pages and pictures inside the app's page; none of them reads another address."""

from __future__ import annotations

import base64
import io as streams
from html import escape
from pathlib import Path
from typing import Literal

from PIL import Image

from redepth.app.progress import Picture, Progress

Start = Literal["light", "space"]
"""A tab of the viewer's page."""

TITLES: dict[Start, str] = {
    "light": "The surface under a light that you drag",
    "space": "The surface in three dimensions",
}


def empty_html(text: str) -> str:
    """Return what stands where nothing is yet."""
    return f'<p class="redepth-empty">{escape(text)}</p>'


def page_frame(page: Path, start: Start) -> str:
    """Return a frame with a page of `redepth.exports.viewer`, which reaches nothing outside of it.

    Args:
        page: its file.
        start: the tab that it begins with.
    """
    text = page.read_text(encoding="utf-8").replace("<html", f'<html data-start="{start}"', 1)
    return (
        f'<iframe class="redepth-frame" title="{TITLES[start]}" sandbox="allow-scripts" '
        f'srcdoc="{escape(text, quote=True)}"></iframe>'
    )


def live_html(progress: Progress) -> str:
    """Return the pictures of a step, inside of the HTML: no file is written for them."""
    pictures = {"Normals of the surface": progress.normals, "Lit by the light of this step": progress.relit}
    figures = "".join(
        f'<figure><img alt="{title}" src="{_data_address(picture)}"><figcaption>{title}</figcaption></figure>'
        for title, picture in pictures.items()
    )
    return f'<div class="redepth-live">{figures}</div>'


def _data_address(picture: Picture) -> str:
    stream = streams.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
