"""The page: its data, styles and scripts in one file, under a policy that lets it load nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from redepth import io
from redepth.exports.source import Source, Written
from redepth.exports.viewer.facts import facts_of, title_of
from redepth.exports.viewer.geometry import light_of, space_of
from redepth.exports.viewer.pictures import pictures_of, size_of
from redepth.literals import VIEW_FILE

BYTES = 5_000_000
"""What the page takes at most."""

SCRIPTS = ("codec.js", "shading.js", "light.js", "compare.js", "space.js", "page.js")
"""In the order in which they run, as one script."""


def write_view(source: Source, folder: Path) -> Written:
    """Write the page."""
    io.save_text(folder / VIEW_FILE, page_of(source))
    return Written(
        VIEW_FILE, "before and after under a light to drag, compared, and in 3D; open it in a browser"
    )


def page_of(source: Source) -> str:
    """Return the text of the page that shows a result.

    It holds everything that it needs, and may be opened from a disk without a network. Photos are reduced to
    1500 pixels.
    """
    height, width = size_of(source)
    record = source.record()
    data = {
        "width": width,
        "height": height,
        "pictures": pictures_of(source, members=record["members_done"]),
        "light": light_of(source),
        "space": space_of(source),
        "facts": facts_of(source, record),
    }
    script, style, three = _script(), _asset("style.css"), _asset("three.min.js")
    parts = {
        "policy": html.escape(_policy(scripts=(script, three), style=style)),
        "title": html.escape(title_of(source)),
        "style": style,
        "data": _as_json(data),
        "three": _packed_three(),
        "script": script,
        "licence": html.escape(_asset("three.LICENSE.txt")),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _policy(*, scripts: tuple[str, ...], style: str) -> str:
    """Return the content security policy: these scripts and styles, the page's own pictures, no more."""
    allowed = " ".join(f"'{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; img-src data:; script-src {allowed}; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _as_json(data: Any) -> str:
    """Return JSON that no parser of HTML takes for markup: a photo may have any name."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(_asset(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


@cache
def _packed_three() -> str:
    """Return three.js compressed: it is unpacked when its tab is opened."""
    data = gzip.compress(_asset("three.min.js").encode(), 9, mtime=0)
    return base64.b64encode(data).decode("ascii")
