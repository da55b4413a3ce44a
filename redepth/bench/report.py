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
from redepth.bench.pictures import PICTURES, beside, view_path
from redepth.bench.records import RANKED_BY, Result, Row, Run, Summary
from redepth.bench.tables import of_protocol, results_of, side_by_side
from redepth.bench.together import preparations_line
from redepth.protocols import EvaluationProtocol
from redepth.runtime.resume import Task
from redepth.viz import pages

SHOWN_FIRST = 4
"""Number of best and of worst images of each preset that are open when the page is loaded."""

_STYLE = """
.compare{position:relative;line-height:0}.compare img+img{position:absolute;inset:0;
clip-path:inset(0 0 0 var(--at,50%))}.compare::after{content:"";position:absolute;top:0;bottom:0;
left:var(--at,50%);width:2px;background:#fff;box-shadow:0 0 2px #000}
@media(max-width:600px){.beside :is(td,th){white-space:normal;overflow-wrap:anywhere;font-size:.75rem;
padding-right:.3rem}}
input[type=range]{width:100%;margin:.3rem 0 0}h3{margin-top:1.6rem}h4{font-size:.9rem;margin:.8rem 0 0}
"""

_SCRIPT = """
for (const slider of document.querySelectorAll('input[type=range]'))
  slider.addEventListener('input', () =>
    slider.previousElementSibling.style.setProperty('--at', slider.value + '%'));
"""


def write_report(
    run: Run,
    rows: Sequence[Row],
    summaries: Mapping[str, Mapping[str, Sequence[Summary]]],
    row_paths: Mapping[Task, Path],
    path: Path,
) -> None:
    """Write the page.

    Args:
        run: the run that was measured.
        rows: its rows.
        summaries: its tables, by protocol and preset.
        row_paths: path of each row; the pictures of the image lie beside it.
        path: path of the page.
    """
    kind = "predictions, nothing refined" if run.initial_only else f"seed {run.seed}"
    parts = [f"<h1>{pages.text(run.dataset)}: {_images(len(run.images))}</h1>"]
    parts += [_protocol_line(protocol, kind) for protocol in run.protocols]
    if line := preparations_line(run.protocols):
        parts.append(f"<p>{pages.text(line[:1].upper() + line[1:])}.</p>")
    parts += [f"<p>{pages.text(line)}</p>" for line in losses(results_of(run, rows))]
    for preset in dict.fromkeys(row.preset for row in rows):
        parts.append(f"<h2>Preset {pages.text(preset)}</h2>")
        parts += _preset(preset, run, rows, summaries, row_paths, path.parent)
    settings = json.dumps({k: p.model_dump(mode="json") for k, p in run.presets.items()}, indent=2)
    parts.append(f"<details><summary>Settings</summary><pre>{pages.text(settings)}</pre></details>")
    page = pages.page(f"redepth: {run.dataset}", parts, style=_STYLE, script=_SCRIPT)
    io.save_text(path, page)


def _protocol_line(protocol: EvaluationProtocol, kind: str) -> str:
    line = protocol.line[:1].upper() + protocol.line[1:]
    return (
        f'<p class="soft">{pages.text(line)}. Version {protocol.version} ({protocol.sha256[:12]}), {kind}; '
        f"{pages.text(protocol.description)}.</p>"
    )


def _preset(
    preset: str,
    run: Run,
    rows: Sequence[Row],
    summaries: Mapping[str, Mapping[str, Sequence[Summary]]],
    row_paths: Mapping[Task, Path],
    folder: Path,
) -> list[str]:
    """Return the parts of one preset: its tables by protocol, then its images."""
    own = [row for row in rows if row.preset == preset]
    several = len(run.protocols) > 1
    parts = []
    if several:
        head, body = side_by_side({name: tables[preset] for name, tables in summaries.items()})
        parts.append(f'<div class="beside">{pages.table(head, body)}</div>')
    order = "most improved" if not run.initial_only else "best"
    for protocol in run.protocols:
        ranked = sorted(_under(protocol, own), key=_rank)
        heading = f"Protocol {pages.text(protocol.name)}: images" if several else "Images"
        images = _image_table(ranked, refined=not run.initial_only)
        table = _summary_table(summaries[protocol.name][preset], refined=not run.initial_only)
        if several:
            parts.append(f"<h3>Protocol {pages.text(protocol.name)}</h3>{table}")
            parts.append(f"<details><summary>{heading}, {order} first</summary>{images}</details>")
        else:
            parts += [table, f"<h2>{heading}, {order} first</h2>", images]
    if several:
        first = pages.text(run.protocols[0].name)
        parts.append(
            f"<h3>Pictures, {order} first by {first}; errors in a range of colours for each protocol</h3>"
        )
    by_name = {row.image: row for row in own}
    for result, shown in _best_and_worst_first(sorted(_under(run.protocols[0], own), key=_rank)):
        row = by_name[result.image]
        parts.append(_image(run, row, result, row_paths[(preset, row.image)], shown, folder))
    return parts


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _under(protocol: EvaluationProtocol, rows: Sequence[Row]) -> list[Result]:
    return of_protocol(protocol, [result for row in rows for result in row.results])


def _rank(result: Result) -> float:
    """Return what images are sorted by: the change of SI-log, or SI-log where nothing was refined."""
    return result.silog[0] if result.refined is None else result.change(RANKED_BY)


def _summary_table(table: Sequence[Summary], refined: bool) -> str:
    if not refined:
        return pages.table(
            ("metric", "prediction", "images"), [(s.metric, _number(s.initial), str(s.images)) for s in table]
        )
    head = ("metric", "initial", "refined", "change", "95 % interval", "improved", "images")
    rows = []
    for s in table:
        change = f"{s.change:+.1f} %" if np.isfinite(s.change) else "-"
        interval = f"{s.low:+.1f} to {s.high:+.1f} %" if np.isfinite(s.low) and s.images > 1 else "-"
        wins = f"{100 * s.wins:.0f} %"
        values = (_number(s.initial), _number(s.refined))
        rows.append((s.metric, *values, change, interval, wins, str(s.images)))
    return pages.table(head, rows)


def _image_table(results: Sequence[Result], refined: bool) -> str:
    if not refined:
        head: tuple[str, ...] = ("image", "SI-log", "abs_rel")
        rows = [(r.image, _number(r.silog[0]), _number(r.values("abs_rel")[0])) for r in results]
        return pages.table(head, rows, sortable=True)
    head = ("image", "SI-log initial", "refined", "change", "abs_rel initial", "refined", "flags")
    body = []
    for r in results:
        silog, silog_after, rel, rel_after = map(_number, (*r.silog, *r.values("abs_rel")))
        change = f"{r.change(RANKED_BY):+.1f} %"
        body.append((r.image, silog, silog_after, change, rel, rel_after, ", ".join(r.diagnostics)))
    return pages.table(head, body, sortable=True)


def _best_and_worst_first(results: Sequence[Result]) -> list[tuple[Result, bool]]:
    """Return the best and the worst with True (shown open), then the rest with False (closed)."""
    best, others = results[:SHOWN_FIRST], results[SHOWN_FIRST:]
    middle, worst = others[:-SHOWN_FIRST], reversed(others[-SHOWN_FIRST:])
    return [(r, True) for r in (*best, *worst)] + [(r, False) for r in middle]


def _image(run: Run, row: Row, ranked: Result, path: Path, shown: bool, folder: Path) -> str:
    """Return the section of an image: the pictures of each protocol, under its numbers."""
    several = len(run.protocols) > 1
    hashes = {protocol.sha256 for protocol in run.protocols}
    bodies = []
    for number, result in enumerate(row.results):
        if result.initial["protocol_sha256"] in hashes:
            heading = f"<h4>{pages.text(result.protocol)}: {_silog(result)}</h4>" if several else ""
            bodies.append(heading + _pictures(path, number, folder))
    title = f"{pages.text(row.image)}: {_silog(ranked)}"
    opened = " open" if shown else ""
    return f"<details{opened}><summary>{title}</summary>{''.join(bodies)}</details>"


def _silog(result: Result) -> str:
    """Return SI-log before and after as HTML."""
    before, after = result.silog
    if result.refined is None:
        return f"SI-log {before:.2f}"
    change = result.change(RANKED_BY)
    tone = "good" if change < 0 else "bad"
    return f'SI-log {before:.2f} to {after:.2f} (<span class="{tone}">{change:+.1f} %</span>)'


def _pictures(row: Path, number: int, folder: Path) -> str:
    """Return the pictures of one protocol of an image, as many as it has."""
    urls = {name: pages.jpeg_url(beside(row, number, f"{name}.jpg")) for name in PICTURES}
    figures = [pages.figure(urls[name], text) for name, text in (("photo", "photo"),) if urls[name]]
    if urls["initial"] and urls["refined"]:
        figures.append(
            f'<figure><div class="compare"><img alt="initial depth" src="{urls["initial"]}">'
            f'<img alt="refined depth" src="{urls["refined"]}"></div>'
            '<input type="range" min="0" max="100" value="50" aria-label="from initial to refined depth">'
            "<figcaption>left of the line the initial depth, right of it the refined one</figcaption>"
            "</figure>"
        )
    elif urls["initial"]:
        figures.append(pages.figure(urls["initial"], "predicted depth"))
    captions = {"error-initial": "error before", "error-refined": "error after"}
    if not urls["error-refined"]:
        captions = {"error-initial": "error"}
    figures += [pages.figure(urls[name], text) for name, text in captions.items() if urls[name]]
    if not figures:
        return "<p>Its pictures are missing.</p>"
    link = _view_link(view_path(row, number), folder)
    return f'{link}<div class="row">{"".join(figures)}</div>'


def _view_link(view: Path, folder: Path) -> str:
    """Return a link to the page of an image, relative to the report's folder; empty if it has none."""
    if not view.is_file():
        return ""
    address = quote(os.fsencode(view.relative_to(folder).as_posix()))
    return f'<p><a href="{pages.text(address)}">Under a light, and in 3D</a></p>'


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"
