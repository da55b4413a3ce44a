"""Frames for pages and pictures inside the app's page; none of them reads another address."""

from __future__ import annotations

import base64
import io as streams
from html import escape

from PIL import Image

from redepth.app.progress import Picture, Progress


def empty_html(text: str) -> str:
    """Return what stands where nothing is yet."""
    return f'<p class="redepth-empty">{escape(text)}</p>'


def page_frame(page: str, title: str) -> str:
    """Return a frame with a whole page, which may run its own scripts and reach nothing outside of it.

    Args:
        page: HTML document without external files.
        title: for screen readers.
    """
    return (
        f'<iframe class="redepth-frame" title="{escape(title)}" sandbox="allow-scripts" '
        f'srcdoc="{escape(page, quote=True)}"></iframe>'
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
