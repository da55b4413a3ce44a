"""How a result, a preset and a pipeline show themselves: one line, a card, the comparison, the page."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

import redepth
from redepth.components import resolve
from redepth.config import load_preset
from redepth.ground_truth import GroundTruth
from redepth.metrics.diagnostics import Signature
from redepth.refinement import Refinement
from tests.support.helpers import make_refiner, photo
from tests.support.notebooks import pretend_notebook


@pytest.fixture(scope="module")
def result() -> Refinement:
    """A refinement of a few pixels by the tiny models."""
    picture = photo(50, 60)
    outcome = make_refiner(steps=2, members=3).run(picture)
    return Refinement(
        photo=picture[0].permute(1, 2, 0).numpy(),
        outcome=outcome,
        preset=resolve(load_preset("smoke")),
        seed=7,
        source="photos/a <b>.png",
    )


def flagged(result: Refinement) -> Refinement:
    """The same refinement with one failure signature above its threshold."""
    copied = replace(result)
    copied.__dict__["diagnostics"] = {"over_smoothing": Signature("over_smoothing", 0.9, 0.2)}
    return copied


def test_a_repr_is_one_short_line(result: Refinement) -> None:
    line = repr(flagged(result))
    assert line == (
        "Refinement(photo='a <b>.png', size=(50, 60), preset='smoke', members=3, steps=2, "
        f"change={result.change:.3f}, flagged=['over-smoothing'])"
    )
    partial = replace(result, outcome=replace(result.outcome, partial=True), source=None)
    assert repr(partial).startswith("Refinement(photo=None, ")
    assert "steps=2, partial=True" in repr(partial)


def test_a_notebook_gets_one_card(result: Refinement) -> None:
    data, _ = DisplayFormatter().format(flagged(result))
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"] == repr(flagged(result))
    card = data["text/html"]
    assert "a &lt;b&gt;.png" in card
    for words in ("smoke · 3 members · 2 steps · seed 7", "60 x 50 pixels", result.meaning, "over-smoothing"):
        assert words.replace(">", "&gt;") in card
    assert card.count("<img") == 1
    assert "SI-log" not in card


def test_the_card_of_measured_depth_with_holes_says_what_it_knows(result: Refinement) -> None:
    truth = GroundTruth(np.linspace(1, 2, 3000, dtype=np.float32).reshape(50, 60))
    holes = torch.zeros(1, 1, 50, 60, dtype=torch.bool)
    holes[..., :20] = True
    outcome = replace(result.outcome, predicts="depth", partial=True, reason="interrupted")
    card = replace(result, outcome=outcome, ground_truth=truth, holes=holes, prompt="a & b")._repr_html_()
    for words in ("SI-log error", "a &amp; b", "partial", "affine-invariant depth"):
        assert words in card


def test_show_and_view_appear_below_the_cell(result: Refinement, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = pretend_notebook(monkeypatch)
    result.show()
    result.view()
    assert [type(item).__name__ for item in shown] == ["Image", "HTML"]
    assert "srcdoc=" in shown[1].data


def test_show_opens_the_systems_viewer_elsewhere(result: Refinement, monkeypatch: pytest.MonkeyPatch) -> None:
    viewed: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda shown: viewed.append(shown))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    result.show()
    assert [picture.size for picture in viewed] == [result.comparison().size]


def test_view_writes_its_page_to_a_path(result: Refinement, tmp_path: Path) -> None:
    result.view(tmp_path / "new" / "view.html")
    text = (tmp_path / "new" / "view.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<b>" not in text.partition("</title>")[0]


def test_losses_are_arrays_of_members_and_steps(result: Refinement) -> None:
    assert set(result.losses) == {"prior", "smoothness", "total"}
    assert all(values.shape == (3, 2) for values in result.losses.values())
    assert result.losses["total"].tolist() == result.outcome.history["total"]
    assert len(result.plot_losses().axes) == 3
    # The second member stopped early.
    short = {"total": [[3.0, 2.0, 1.0], [5.0]]}
    stopped = replace(result.outcome, history=short, steps_done=[3, 1])
    assert np.array_equal(stopped.losses["total"], [[3, 2, 1], [5, np.nan, np.nan]], equal_nan=True)


def test_a_preset_is_one_line_and_its_settings_unfold() -> None:
    preset = load_preset("smoke", {"description": "a < b"})
    line = "Preset('smoke': depth-anything, blinn-phong, pixel-diffusion; 2 members x 3 steps)"
    assert repr(preset) == str(preset) == line
    shown = DisplayFormatter().format(preset)[0]["text/html"]
    assert "a &lt; b" in shown
    assert "guidance_scale: 3.0" in shown


def test_a_pipeline_names_its_preset_and_device() -> None:
    pipeline = redepth.Pipeline("smoke", device="cpu")
    assert repr(pipeline) == f"Pipeline({pipeline.preset!r}, device='cpu')"
