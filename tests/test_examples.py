from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_papers_script_runs_with_another_preset(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    printed = run(tmp_path, str(EXAMPLES / "re_depth.py"), str(real_photos["coins"]), "coins", "smoke")
    assert "smoke: 2 members of 3 steps" in printed
    record = json.loads((tmp_path / "out" / "re_depth" / "run.json").read_text())
    assert record["prompt"] == "coins"


@pytest.mark.slow
def test_the_custom_renderer_is_used(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    run(tmp_path, str(EXAMPLES / "custom_renderer.py"), str(real_photos["coins"]))
    out = tmp_path / "out" / "custom_renderer"
    used = [json.loads((out / n / "run.json").read_text()) for n in ("blinn-phong", "lambert-ring")]
    assert used[1]["preset"]["renderer"] == {"name": "lambert-ring", "lights": 2, "slant": 45.0}
    assert used[0]["losses"] != used[1]["losses"]


@pytest.mark.slow
def test_the_gallery_shows_every_renderer_that_runs_here(tmp_path: Path) -> None:
    run(tmp_path, str(EXAMPLES / "renderer_gallery.py"), "--size", "64")
    assert {p.name for p in (tmp_path / "out" / "gallery").iterdir()} == {
        "renderers.png",
        "renderer-options.png",
    }


@pytest.mark.slow
def test_every_renderer_is_swapped_in_and_measured(tmp_path: Path, skimage_data: Path) -> None:
    photo, truth = (str(skimage_data / f"motorcycle_{name}") for name in ("left.png", "disp.npz"))
    small = ["--members", "1", "--set", "optim.steps=2", "--set", "depth_model.longer_side=96"]
    printed = run(tmp_path, str(EXAMPLES / "swap_renderer.py"), photo, "--gt", truth, *small)
    table = json.loads((tmp_path / "out" / "swap_renderer" / "table.json").read_text())
    assert {"blinn-phong", "ggx", "lambert", "mesh", "oren-nayar", "phong", "spherical-harmonics"} <= set(
        table
    )
    for name, row in table.items():
        assert name in printed
        if isinstance(row, str):
            assert "pip install" in row
            continue
        assert row["silog_refined"] > 0
        assert row["normals_turned"] > 0


@pytest.mark.slow
def test_the_custom_depth_model_is_used(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    run(tmp_path, str(EXAMPLES / "custom_depth_model.py"), str(real_photos["coins"]))
    out = tmp_path / "out" / "custom_depth_model"
    used = [json.loads((out / n / "run.json").read_text()) for n in ("embeddings", "low-rank")]
    for what in used:
        assert what["preset"]["depth_model"] == {"name": "lower-is-nearer", "longer_side": 192, "tilt": 4.0}
        assert what["output"]["unit"] > 0
    assert used[0]["losses"] != used[1]["losses"]


@pytest.mark.slow
def test_the_custom_prior_is_used(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    run(tmp_path, str(EXAMPLES / "custom_prior.py"), str(real_photos["coins"]), "smoke")
    out = tmp_path / "out" / "custom_prior"
    used = [json.loads((out / n / "run.json").read_text()) for n in ("pixel-diffusion", "smooth-shading")]
    assert used[1]["preset"]["prior"] == {"name": "smooth-shading", "edges": 20.0}
    assert used[0]["losses"] != used[1]["losses"]


@pytest.mark.slow
def test_the_ablation_compares_weights_and_nothing_else(
    tmp_path: Path, real_photos: Mapping[str, Path], motorcycle_disparity: Path
) -> None:
    photo, truth = real_photos["motorcycle_left"], ["--gt", str(motorcycle_disparity)]
    printed = run(tmp_path, str(EXAMPLES / "prior_ablation.py"), str(photo), "--preset", "smoke", *truth)
    assert "SI-log" in printed
    out = tmp_path / "out" / "prior_ablation"
    records = [json.loads((out / name / "run.json").read_text()) for name in ("trained", "random")]
    presets = [record["preset"] for record in records]
    assert [preset["prior"].pop("weights") for preset in presets] == ["trained", "random"]
    assert presets[0] == presets[1]
    table = json.loads((out / "table.json").read_text())
    assert table["trained"]["silog_initial"] == table["random"]["silog_initial"]
    assert table["trained"]["silog_refined"] != table["random"]["silog_refined"]
    assert (out / "normals.png").is_file()


@pytest.mark.slow
def test_the_demo_writes_its_record_and_pictures(tmp_path: Path) -> None:
    photos = ["--photo", "moon", "--photo", "motorcycle_left"]
    printed = run(tmp_path, str(EXAMPLES / "demo.py"), *photos)
    assert "What to expect" in printed
    record = json.loads((tmp_path / "out" / "demo" / "demo.json").read_text())
    assert [row["photo"] for row in record["photos"]] == ["moon", "motorcycle_left"]
    assert record["photos"][1]["silog_refined"] > 0
    for name in ("overview.png", "moon/comparison.png", "motorcycle_left/run.json"):
        assert (tmp_path / "out" / "demo" / name).is_file()


@pytest.mark.slow
def test_the_pictures_of_the_conventions_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, str(EXAMPLES / "conventions.py"), "--out", "pictures")
    stored = Path(__file__).parents[1] / "docs" / "pictures" / "conventions"
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {p.name for p in stored.iterdir()}
