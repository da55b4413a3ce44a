"""Write the table of published numbers in docs/benchmarks.md from redepth/bench/anchors.yaml.

    python -m benchmarks.accuracy.anchors page

A run with ``--against published`` stores what it measured in ``against.json``. To fill the column "ours", add
a source of the kind ``ours`` and the numbers to the file of anchors, and write the page again.
"""

from __future__ import annotations

import re
from typing import get_args

import typer

from benchmarks.accuracy.studies import REPOSITORY
from benchmarks.accuracy.tables import grid_of
from redepth.bench.anchors import Anchor, Anchors, Kind, published
from redepth.cli.options import resolved_model
from redepth.io import save_text
from redepth.protocols import load_protocol

app = typer.Typer(add_completion=False, help=__doc__)

PAGE = REPOSITORY / "docs" / "benchmarks.md"
START, END = "<!-- anchors -->", "<!-- end -->"

HEADINGS = {"published": "published", "reproduced": "reproduced by others", "ours": "ours"}


@app.callback()
def anchors() -> None:
    """Write the table of published numbers."""


@app.command()
def page() -> None:
    """Write the table into the page."""
    save_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), published()))


def with_table(text: str, anchors: Anchors) -> str:
    """Put the table between its marks."""
    section = f"{START}\n\n{table(anchors)}\n\n{END}"
    return re.sub(f"{START}.*?{END}", lambda _: section, text, flags=re.DOTALL)


def table(anchors: Anchors) -> str:
    """Return the numbers in Markdown: a row for each model, protocol and metric."""
    rows: dict[tuple[str, str, str], list[Anchor]] = {}
    for anchor in anchors.anchors:
        rows.setdefault((anchor.model, anchor.protocol, anchor.metric), []).append(anchor)
    body = []
    for (model, protocol, metric), own in rows.items():
        cells = [
            ", ".join(_number(one, anchors) for one in own if anchors.source(one).kind == kind)
            for kind in get_args(Kind)
        ]
        body.append(
            [f"`{model}`", f"`{protocol}`", f"`{metric}`", *cells, f"`{command(model, protocol, anchors)}`"]
        )
    heads = [HEADINGS[kind] for kind in get_args(Kind)]
    return grid_of(["model", "protocol", "metric", *heads, "command"], body)


def command(model: str, protocol: str, anchors: Anchors) -> str:
    """Return the command that measures a model as its numbers were measured."""
    dataset = load_protocol(protocol).dataset
    options = resolved_model(model, ()).depth_model.options
    settings = [
        f" --set depth_model.{key}={allowed[-1]}"
        for key, allowed in anchors.options(model).items()
        if options.get(key) not in allowed
    ]
    return (
        f"redepth bench {dataset} --root DATA --protocol {protocol} --depth-model {model}"
        f"{''.join(settings)} --against published"
    )


def _number(anchor: Anchor, anchors: Anchors) -> str:
    source = anchors.source(anchor)
    note = anchor.differs if anchor.tolerance is None else f"± {100 * anchor.tolerance:.0f} %"
    value = f"{anchor.value:.4f}".removesuffix("0")
    return f"[{value}]({source.url}) ({note})"


if __name__ == "__main__":
    app()
