"""The report of a benchmark run: one self-contained page, best and worst images first."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from redepth import io
from redepth.bench.losses import losses
from redepth.bench.pictures import PICTURES, view_path
from redepth.bench.records import RANKED_BY, Result, Run, Summary
from redepth.runtime.resume import Task
from redepth.viz import pages

SHOWN_FIRST = 4
"""Number of best and of worst images of each preset that are open when the page is loaded."""

_STYLE = """
.compare{position:relative;line-height:0}.compare img+img{position:absolute;inset:0;
clip-path:inset(0 0 0 var(--at,50%))}.compare::after{content:"";position:absolute;top:0;bottom:0;
left:var(--at,50%);width:2px;background:#fff;box-shadow:0 0 2px #000}
input[type=range]{width:100%;margin:.3rem 0 0}
"""

_SCRIPT = """
for (const slider of document.querySelectorAll('input[type=range]'))
  slider.addEventListener('input', () =>
    slider.previousElementSibling.style.setProperty('--at', slider.value + '%'));
"""


def write_report(
    run: Run,
    results: Sequence[Result],
    summaries: Mapping[str, Sequence[Summary]],
    row_paths: Mapping[Task, Path],
    path: Path,
) -> None:
    """Write the page.

    Args:
        run: the run that was measured.
        results: its rows.
        summaries: its tables, by preset.
        row_paths: path of each row; the pictures of the image lie beside it.
        path: path of the page.
    """
    protocol = run.protocol
    parts = [
        f"<h1>{pages.text(run.dataset)}: {len(run.images)} images</h1>",
        f'<p class="soft">protocol {pages.text(protocol.name)} version {protocol.version} '
        f"({protocol.sha256[:12]}), seed {run.seed}. {pages.text(protocol.description)}</p>",
        f'<p class="soft">All figures: {pages.text(protocol.line)}.</p>',
    ]
    parts += [f"<p>{pages.text(line)}</p>" for line in losses(results)]
    for preset, table in summaries.items():
        ranked = sorted((r for r in results if r.preset == preset), key=lambda r: r.change(RANKED_BY))
        parts += [f"<h2>Preset {pages.text(preset)}</h2>", _summary_table(table)]
        parts += ["<h2>Images, most improved first</h2>", _image_table(ranked)]
        parts += [
            _image(r, row_paths[(preset, r.image)], shown, path.parent)
            for r, shown in _best_and_worst_first(ranked)
        ]
    settings = json.dumps({k: p.model_dump(mode="json") for k, p in run.presets.items()}, indent=2)
    parts.append(f"<details><summary>Settings</summary><pre>{pages.text(settings)}</pre></details>")
    page = pages.page(f"redepth: {run.dataset}", parts, style=_STYLE, script=_SCRIPT)
    io.save_text(path, page)


def _summary_table(table: Sequence[Summary]) -> str:
    head = ("metric", "initial", "refined", "change", "95 % interval", "improved", "images")
    rows = []
    for s in table:
        change = f"{s.change:+.1f} %" if np.isfinite(s.change) else "-"
        interval = f"{s.low:+.1f} to {s.high:+.1f} %" if np.isfinite(s.low) else "-"
        wins = f"{100 * s.wins:.0f} %"
        values = (_number(s.initial), _number(s.refined))
        rows.append((s.metric, *values, change, interval, wins, str(s.images)))
    return pages.table(head, rows)


def _image_table(results: Sequence[Result]) -> str:
    head = ("image", "SI-log initial", "refined", "change", "abs_rel initial", "refined", "flags")
    rows = []
    for r in results:
        silog, silog_after, rel, rel_after = map(_number, (*r.silog, *r.values("abs_rel")))
        change = f"{r.change(RANKED_BY):+.1f} %"
        rows.append((r.image, silog, silog_after, change, rel, rel_after, ", ".join(r.diagnostics)))
    return pages.table(head, rows, sortable=True)


def _best_and_worst_first(results: Sequence[Result]) -> list[tuple[Result, bool]]:
    """Return the best and the worst with True (shown open), then the rest with False (closed)."""
    best, others = results[:SHOWN_FIRST], results[SHOWN_FIRST:]
    middle, worst = others[:-SHOWN_FIRST], reversed(others[-SHOWN_FIRST:])
    return [(r, True) for r in (*best, *worst)] + [(r, False) for r in middle]


def _image(result: Result, row: Path, shown: bool, folder: Path) -> str:
    before, after = result.silog
    change = result.change(RANKED_BY)
    tone = "good" if change < 0 else "bad"
    title = (
        f"{pages.text(result.image)}: SI-log {before:.2f} to {after:.2f} "
        f'(<span class="{tone}">{change:+.1f} %</span>)'
    )
    pictures = {name: pages.jpeg_url(row.with_suffix(f".{name}.jpg")) for name in PICTURES}
    if not all(pictures.values()):
        return f"<details><summary>{title}</summary><p>Its pictures are missing.</p></details>"
    slider = (
        f'<figure><div class="compare"><img alt="initial depth" src="{pictures["initial"]}">'
        f'<img alt="refined depth" src="{pictures["refined"]}"></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="from initial to refined depth">'
        "<figcaption>left of the line the initial depth, right of it the refined one</figcaption></figure>"
    )
    captions = {"photo": "photo", "error-initial": "error before", "error-refined": "error after"}
    figures = [pages.figure(pictures[name], text) for name, text in captions.items()]
    body = "".join([figures[0], slider, *figures[1:]])
    opened = " open" if shown else ""
    link = _view_link(view_path(row), folder)
    return f'<details{opened}><summary>{title}</summary>{link}<div class="row">{body}</div></details>'


def _view_link(view: Path, folder: Path) -> str:
    """Return a link to the page of an image, relative to the report's folder; empty if it has none."""
    if not view.is_file():
        return ""
    address = quote(os.fsencode(view.relative_to(folder).as_posix()))
    return f'<p><a href="{pages.text(address)}">Under a light, and in 3D</a></p>'


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"
