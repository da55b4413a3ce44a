"""The parts of self-contained pages: style, tables that sort, pictures as data."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """
:root{--ink:#1a1a1a;--soft:#6b6b6b;--line:#d9d9d9;--good:#1a7f37;--bad:#b3261e}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);margin:2rem auto;max-width:1100px;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:0}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.25rem .8rem .25rem 0;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
table.sortable th{cursor:pointer}table.sortable th:hover{text-decoration:underline}
.good{color:var(--good)}.bad{color:var(--bad)}.soft{color:var(--soft)}
.wide,pre{overflow-x:auto}details{border-top:1px solid var(--line);padding:.8rem 0}
summary{cursor:pointer}.row{display:flex;flex-wrap:wrap;gap:12px;margin-top:.6rem}
figure{margin:0;width:258px}figcaption{color:var(--soft);font-size:.85rem}figure img{width:100%;display:block}
"""

SCRIPT = """
for (const table of document.querySelectorAll('table.sortable'))
  for (const [column, head] of [...table.tHead.rows[0].cells].entries())
    head.addEventListener('click', () => {
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const sign = head.dataset.sign === '1' ? -1 : 1;
      head.dataset.sign = sign;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
      });
      table.tBodies[0].append(...rows);
    });
"""


def page(title: str, parts: Sequence[str], *, style: str = "", script: str = "") -> str:
    """Return a page that needs no other file.

    Args:
        title: of the window; it is escaped.
        parts: HTML.
        style: CSS after `STYLE`.
        script: JavaScript before `SCRIPT`.
    """
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style>"
        f"<body>{''.join(parts)}<script>{script}{SCRIPT}</script></body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, sortable: bool = False) -> str:
    """Return a table; texts are escaped. A click on a heading sorts a sortable one."""
    heads = "".join(f"<th>{text(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(value: str) -> str:
    """Return a table cell, with the number that the page sorts by if the text is one."""
    number = value.removesuffix(" %")
    try:
        return f'<td data-value="{float(number)}">{text(value)}</td>'
    except ValueError:
        return f"<td>{text(value)}</td>"


def figure(source: str, caption: str) -> str:
    """Return a picture with a caption, which is escaped.

    Args:
        source: as `data_url` returns it.
        caption: below the picture.
    """
    words = text(caption)
    return f'<figure><img alt="{words}" src="{source}"><figcaption>{words}</figcaption></figure>'


def jpeg_url(path: Path) -> str:
    """Return a JPEG file as a data URL; empty if it is missing."""
    return data_url(path.read_bytes()) if path.is_file() else ""


def data_url(picture: bytes, kind: str = "jpeg") -> str:
    """Return the content of a picture file as a data URL.

    Args:
        picture: the content.
        kind: ``jpeg`` or ``png``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def text(value: Any) -> str:
    """Return a value as escaped text."""
    return html.escape(str(value))
