"""Show pictures and pages in a notebook; IPython is used only where it runs already."""

from __future__ import annotations

import html
import importlib
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from PIL import Image

from redepth.io import save_text
from redepth.literals import VIEW_FILE
from redepth.viz.jpeg import jpeg_within

PICTURE_LIMIT = 2_000_000
"""Largest picture that is shown, in bytes."""


def in_notebook() -> bool:
    """Return whether this code runs in the kernel of a notebook, which shows pictures and pages.

    An IPython in a terminal has no kernel.
    """
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def show_picture(picture: Image.Image) -> None:
    """Show a picture below the running cell, or in the system's viewer if this is no notebook."""
    if not in_notebook():
        picture.show()
        return
    tools = _display_tools()
    tools.display(tools.Image(data=jpeg_within(picture, PICTURE_LIMIT), format="jpeg"))


def show_page(page: str, height: int = 720) -> None:
    """Show an HTML page below the running cell, or in the browser if this is no notebook.

    The page has a frame of its own, whose scripts reach neither the notebook nor its cookies. For the browser
    it is written to the system's folder of temporary files.

    Args:
        page: complete, with everything that it needs inside.
        height: of the frame in pixels.
    """
    if not in_notebook():
        path = Path(tempfile.mkdtemp(prefix="redepth-")) / VIEW_FILE
        save_text(path, page)
        webbrowser.open(path.as_uri())
        return
    frame = (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )
    # IPython advises against a bare frame, and offers one that needs an address.
    tools = _display_tools()
    tools.display(tools.HTML(f"<div>{frame}</div>"))


def _display_tools() -> Any:
    """Return IPython's functions of display. redepth does not depend on IPython: here it runs already."""
    return importlib.import_module("IPython.display")
