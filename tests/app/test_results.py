"""The files and the words of a real result of the preset smoke."""

import json
import zipfile
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth.app.frame import page_frame
from redepth.app.results import FIRST_PAIR, PAIRS, pictures_of, write_result
from redepth.app.settings import RunSettings
from redepth.app.words import diagnostics_html, note_html, progress_html, summary_html, summary_of
from redepth.pipeline import refine
from redepth.refinement import Refinement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(real_photos: dict[str, Path]) -> Refinement:
    refined = refine(real_photos["coins"], RunSettings("smoke").resolved(), device="cpu")
    return replace(refined, source="<b>coins</b>.png")


def test_a_result_is_written(result: Refinement, tmp_path: Path) -> None:
    shown = write_result(result, tmp_path)
    names = {path.name for path in shown.files}
    assert {"run.json", "disparity.npy", "normals.png", "comparison.png", "mesh.glb", "view.html"} <= names
    with zipfile.ZipFile(shown.archive) as packed:
        assert set(packed.namelist()) == names
        assert json.loads(packed.read("run.json"))["photo"]["source"] == "<b>coins</b>.png"
    assert shown.record["seed"] == 0
    sizes = set()
    for title in PAIRS:
        for path in shown.pair(title):
            with Image.open(path) as picture:
                sizes.add(picture.size)
    assert sizes == {(384, 303)}
    assert shown.pair("nothing that is known") == shown.pair(FIRST_PAIR)


def test_near_is_bright_for_both_kinds_of_model(result: Refinement) -> None:
    disparity = pictures_of(result)
    as_depth = replace(result, outcome=replace(result.outcome, predicts="depth"))
    for name in ("initial", "refined"):
        # Above 0, so that depth has an inverse.
        values = result.map_of(name) - result.map_of("initial").min() + 1.0
        as_depth.__dict__[name] = 1.0 / values
    depth = pictures_of(as_depth)
    for name in ("initial", "refined"):
        np.testing.assert_allclose(depth[name].astype(int), disparity[name].astype(int), atol=3)


def test_the_summary_says_what_happened(result: Refinement) -> None:
    line = summary_of(result)
    assert line.startswith("Done: 2 members of 3 steps in ")
    assert "384 x 303 pixels" in line
    partial = replace(result, outcome=replace(result.outcome, partial=True, reason="cancelled"))
    assert summary_of(partial).startswith("Partial (cancelled): ")
    assert "redepth-bad" in summary_html(partial)


def test_the_diagnostics_are_in_words(result: Refinement) -> None:
    page = diagnostics_html(result)
    assert page.count('<div class="redepth-card') == len(result.diagnostics)
    for signature in result.diagnostics.values():
        assert f"<h4>{signature.title.capitalize()}" in page
    assert "What to do:" not in page or result.flagged


def test_a_flagged_diagnostic_says_what_to_do(result: Refinement) -> None:
    changed = replace(result)
    worse = {name: replace(s, value=9.0) for name, s in result.diagnostics.items()}
    changed.__dict__["diagnostics"] = worse
    page = diagnostics_html(changed)
    assert page.count("What to do:") == 4
    assert "4 of 4 diagnostics" in page


def test_texts_are_escaped() -> None:
    name = "<script>alert(1)</script>"
    for page in (progress_html(name, 0.5), note_html(name)):
        assert "<script>" not in page
    assert 'width: 50.0%"' in progress_html("", 0.5)


def test_the_frame_holds_the_viewer(result: Refinement, tmp_path: Path) -> None:
    shown = write_result(result, tmp_path)
    frame = page_frame(shown.page, "space")
    assert frame.count("<") == 2, "the page is not escaped"
    text = unescape(frame.partition('srcdoc="')[2].rpartition('"></iframe>')[0])
    assert text.replace(' data-start="space"', "", 1) == shown.page.read_text(encoding="utf-8")
    assert 'data-start="space"' in text.partition(">")[2].partition(">")[0]
    assert 'sandbox="allow-scripts"' in frame
