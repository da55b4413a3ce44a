"""The report of an adaptation: one page with numbers, curves and pictures that are those of the result."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redepth.adaptation.pictures import BYTES, SIDE, held_out_pictures
from redepth.adaptation.record import Adapted
from redepth.adaptation.report import HeldOut, read_losses, write_report
from redepth.adaptation.targets import Target
from redepth.ops.geometry import relative_depth
from tests.adaptation.test_card import adapted, job

LOSSES = {
    "total": [(step, 1 / step) for step in range(1, 76)],
    "keep": [(step, 0.1) for step in range(1, 76)],
}
HELD_OUT = HeldOut("holiday-1", 9.87, 8.12, {"photo": b"\xff\xd8one", "depth, after": b"\xff\xd8two"})


def page(tmp_path: Path, shown: Any = (HELD_OUT,), **changes: Any) -> str:
    result = adapted(folder=tmp_path, **changes)
    write_report(job(), result, LOSSES if result.steps else {}, shown)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    html = page(
        tmp_path,
        left_out={"blurred": "geometry collapse: 0.9, above 0.71"},
        seconds={"refine": 120.0, "train": 300.0},
        keep=4,
        peak_memory=3 * 2**29,
    )
    rows = dict(re.findall(r"<tr><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td></tr>", html))
    assert rows["photos learned from"] == "2"
    assert rows["photos held out"] == "1"
    assert rows["photos left out"] == "1"
    assert rows["photos to keep"] == "4"
    assert rows["steps"] == f"75 of {job().preset.adapt.steps}"
    assert rows["step of the result"] == "50"
    assert rows["learned"] == "all: 1,000 of 4,000 numbers"
    assert rows["time of the optimisation of the photos used"] == "2 min 00 s"
    assert rows["time of the training"] == "5 min 00 s"
    assert rows["most GPU memory of the training"] == "1.5 GiB"
    assert (rows["one prediction"], rows["one refinement"]) == ("21 ms", "42.0 s")
    assert rows["refinement over prediction"] == f"{42 / 0.0213:.0f} times"
    assert rows["blurred"] == "geometry collapse: 0.9, above 0.71"
    assert "went from 9.87 % to 8.12 % (-17.7 %), at step 50" in html
    assert "holiday-1: 9.87 % to 8.12 %" in html


def test_it_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", html)
    for content in HELD_OUT.pictures.values():
        assert base64.b64encode(content).decode() in html
    (curves,) = (source for source in sources if source.startswith("data:image/png"))
    assert Image.open(io.BytesIO(base64.b64decode(curves.partition(",")[2]))).width > 600


def test_without_validation_or_gain_it_says_so(tmp_path: Path) -> None:
    html = page(tmp_path, (), validations=[], held_out=[], chosen=75)
    assert "No photos were held out" in html
    assert "went from" not in html
    assert "Held-out photos</h2>" not in html
    html = page(tmp_path, chosen=0)
    assert "the result is the starting model" in html
    html = page(tmp_path, (), steps=0, chosen=0, validations=[])
    assert "No step was taken" in html


def test_on_a_cpu_no_memory_is_claimed_and_commands_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "two words").mkdir()
    html = page(tmp_path / "two words")
    assert "GPU memory" not in html
    lines = unescape(html.partition("<pre>")[2].partition("</pre>")[0]).splitlines()
    assert shlex.split(lines[0])[-1] == f"{tmp_path}/two words/preset.yaml"
    assert shlex.split(lines[1])[-1] == f"depth_model.checkpoint={tmp_path}/two words/checkpoint"


def test_names_are_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    html = page(
        tmp_path, [HeldOut(hostile, 2.0, 1.0, {hostile: b"x"})], left_out={hostile: hostile}, stopped=hostile
    )
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_losses_are_read_from_the_log_with_their_parts(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_losses(tmp_path) == {}
    both = {"learn": {"total": 3.0, "distil": 2.0, "drift": 1.0}, "keep": {"total": 0.5}}
    unknown = {"learn": {"total": 2.0, "distil": None, "drift": 0.1}, "keep": {"total": 0.5}}
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 3.5, "losses": both},
        {"step": 1, "distance": 8.0},
        {"step": 2, "loss": 2.5, "losses": unknown},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_losses(tmp_path) == {
        "loss": [(1, 3.5), (2, 2.5)],
        "learn": [(1, 3.0), (2, 2.0)],
        "learn: distil": [(1, 2.0)],
        "learn: drift": [(1, 1.0), (2, 0.1)],
        "keep": [(1, 0.5), (2, 0.5)],
    }
    # One lesson with one part is the loss itself.
    log.write_text(json.dumps({"step": 1, "loss": 3.0, "losses": {"learn": {"total": 3.0, "distil": 3.0}}}))
    assert read_losses(tmp_path) == {"loss": [(1, 3.0)]}


def test_pictures_share_the_range_of_the_refinement() -> None:
    rows = torch.linspace(0.5, 3.0, 24)[None, None, :, None].expand(1, 1, 24, 32).contiguous()
    target = Target(initial=rows, refined=rows, trust=torch.ones_like(rows))
    photo = np.zeros((48, 64, 3), np.uint8)
    pictures = held_out_pictures(photo, target, rows.clone(), relative_depth)
    assert list(pictures) == [
        "photo",
        *(f"depth, {when}" for when in ("before", "refined on its own", "after")),
        *(f"normals, {when}" for when in ("before", "refined on its own", "after")),
    ]
    opened = {name: Image.open(io.BytesIO(jpeg)) for name, jpeg in pictures.items()}
    assert {picture.size for picture in opened.values()} == {(SIDE, SIDE * 3 // 4)}
    assert all(len(jpeg) <= BYTES for jpeg in pictures.values())
    assert pictures["depth, before"] == pictures["depth, after"]
    # Nearer is brighter: disparity grows downward.
    grey = np.asarray(opened["depth, after"].convert("L"), np.float32).mean(axis=1)
    assert grey[-20] > grey[20] + 50
    # A nearer surface is brighter in the common range, and its normals differ.
    nearer = held_out_pictures(photo, target, 2 * rows, relative_depth)
    brighter = np.asarray(Image.open(io.BytesIO(nearer["depth, after"])).convert("L"), np.float32)
    assert brighter.mean() > grey.mean() + 10
    assert nearer["depth, before"] == pictures["depth, before"]
    assert nearer["normals, after"] != pictures["normals, after"]


@pytest.mark.parametrize("chosen", [0, 50])
def test_before_and_after_are_those_of_the_chosen_step(chosen: int) -> None:
    result: Adapted = adapted(chosen=chosen)
    assert result.before == 9.87
    assert result.after == (9.87 if chosen == 0 else 8.12)
    assert result.checkpoint == result.folder / "checkpoint"
