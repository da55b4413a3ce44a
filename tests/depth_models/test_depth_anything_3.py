from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.components import resolve
from redepth.config import load_preset
from redepth.depth_models.depth_anything_3 import PACKAGE, DepthAnything3, _shipped
from redepth.errors import MissingDependencyError, WeightsError
from tests.depth_models.test_backbones import needs_da3
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo


def test_the_preset_has_the_published_settings() -> None:
    preset = resolve(load_preset("da3-mono-large"))
    model, rates = preset.depth_model.options, preset.optim.learning_rates
    assert preset.depth_model.name == "depth-anything-3-mono"
    assert model["checkpoint"] == "depth-anything/DA3MONO-LARGE"
    assert (model["longer_side"], model["resize_rule"], model["scale"]) == (504, "upper_bound", 7.0)
    assert (rates.embeddings, rates.decoder, rates.offset) == (2e-4, 1e-6, 1e-3)
    paper = resolve(load_preset("re-depth-anything"))
    for part in ("renderer", "prior"):
        assert getattr(preset, part) == getattr(paper, part)
    same = {"learning_rates": paper.optim.learning_rates}
    assert preset.optim.model_copy(update=same) == paper.optim


def test_without_the_package_the_message_is_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == PACKAGE else find(name))
    with pytest.raises(MissingDependencyError) as error:
        DepthAnything3().ensure_available()
    command = 'pip install "redepth[da3]" && pip install --no-deps depth-anything-3'
    assert str(error.value) == f"depth_anything_3 is needed for depth-anything-3-mono: {command}"


@needs_da3
def test_the_packages_own_configuration_serves_where_the_checkpoint_has_none() -> None:
    graph = _shipped("da3mono-large")
    assert set(graph) == {"__object__", "net", "head"}
    assert graph["net"]["name"] == "vitl"
    assert graph["head"]["dim_in"] == 1024
    assert _shipped("nothing") == {}


@needs_da3
def test_loading_says_nothing_and_imports_nothing_heavy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    folder = tiny.save(tiny.da3(), tmp_path / "da3")
    heavy = {"cv2", "open3d", "torchvision", "xformers", "moviepy", "e3nn", "gradio"}
    # Tests of the app import gradio themselves.
    before = heavy & set(sys.modules)
    capsys.readouterr()
    tiny.load("depth-anything-3-mono", checkpoint=str(folder))
    assert capsys.readouterr().out == ""
    assert heavy & set(sys.modules) == before


@needs_da3
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_name": "da3-small", "config": None}, "is da3-small, and .* only the monocular"),
        (
            {"config": {"net": {"name": "vitx", "out_layers": [0]}, "head": {"dim_in": 24}}},
            "builds no network",
        ),
    ],
)
def test_other_networks_of_the_package_are_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = tiny.save(tiny.da3(), tmp_path / "da3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(WeightsError, match=words):
        tiny.load("depth-anything-3-mono", checkpoint=str(folder))


@needs_da3
def test_the_sky_is_left_as_the_depth_head_says(tmp_path: Path) -> None:
    """As in the paper's implementation; the package itself would put it at a quantile of the rest."""
    sunny = tiny.biased(tiny.da3(), "head.scratch.sky_output_conv2.2.bias", 1e3)
    folders = [tiny.save(m, tmp_path / n) for n, m in (("sky", sunny), ("none", tiny.da3()))]
    image = photo(42, 56)
    models = [tiny.load("depth-anything-3-mono", checkpoint=str(f), longer_side=56) for f in folders]
    with torch.no_grad():
        first, second = (m.decode(m.encode(image)) for m in models)
    assert torch.equal(first, second)
