"""The table of published numbers: the page holds what the data say, and its commands run."""

from __future__ import annotations

import shlex

import pytest

from benchmarks.accuracy import anchors
from redepth.bench import Run, against
from redepth.bench.anchors import load_anchors, published
from redepth.cli.bench import _names
from redepth.cli.options import resolved_model
from redepth.data.datasets import REGISTRY
from redepth.protocols import load_protocol


def test_the_page_holds_the_table_of_the_data() -> None:
    text = anchors.PAGE.read_text(encoding="utf-8")
    assert text.count(anchors.START) == 1
    assert anchors.with_table(text, published()) == text
    changed = published().model_dump()
    changed["anchors"][0]["value"] *= 2
    assert anchors.with_table(text, load_anchors(changed)) != text


def test_ours_has_a_column() -> None:
    data = published().model_dump()
    data["sources"]["redepth"] = {"kind": "ours", "by": "redepth", "url": "https://example.org/run"}
    data["anchors"].append(data["anchors"][0] | {"source": "redepth", "value": 0.0779, "tolerance": 0.01})
    row = anchors.table(load_anchors(data)).splitlines()[2].split(" | ")
    assert row[5] == "[0.0779](https://example.org/run) (± 1 %)"


@pytest.mark.parametrize(
    ("model", "protocol"),
    dict.fromkeys((anchor.model, anchor.protocol) for anchor in published().anchors),
)
def test_a_command_measures_what_its_numbers_are_about(model: str, protocol: str) -> None:
    words = shlex.split(anchors.command(model, protocol, published()))
    assert words[:2] == ["redepth", "bench"]
    assert words[2] in REGISTRY.entries()
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options["--against"] == "published"
    (name,) = _names([options["--protocol"]])
    pinned = load_protocol(name)
    count = pinned.split.count or 0
    preset = resolved_model(options["--depth-model"], [options["--set"]] if "--set" in options else [])
    run = Run(
        dataset=words[2],
        options={},
        # Their names do not matter where the split has a number alone.
        images=[str(k) for k in range(count)],
        protocols=[pinned],
        presets={"model": preset},
        initial_only=True,
    )
    _, reasons = against.applicable(run, published())
    assert not any("another input" in reason or "its depth model" in reason for reason in reasons), reasons
