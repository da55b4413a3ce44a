"""Every example runs, and shows what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from redepth import io
from tests.support.command import ENVIRONMENT

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
SMOKE = ("--preset", "smoke")


def spawn(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, as a user does."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run a script to its end and return what it printed."""
    done = spawn(folder, script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


# --- the folder -----------------------------------------------------------------------------------


def test_examples_are_numbered_listed_and_tested() -> None:
    numbered = [name for name in SCRIPTS if name != "demo.py"]
    assert [int(name[:2]) for name in numbered] == list(range(len(numbered)))
    listed = re.findall(r"^\| \[([^\]]+)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert listed == [*SCRIPTS, "notebook.ipynb"]
    tests = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in SCRIPTS if f'"{name}"' not in tests]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_first_lines_of_an_example_say_how_to_call_it(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert f"    python examples/{name}" in text.partition("from __future__")[0]


HELP = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    print("script:", script)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, script
    else:
        raise AssertionError(script)
"""


@pytest.mark.slow
def test_every_example_has_help(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HELP, *(str(EXAMPLES / name) for name in SCRIPTS)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    _, *pages = done.stdout.split("script: ")
    assert len(pages) == len(SCRIPTS)
    for page in pages:
        assert "--out" in page, page
        # The sentence of the function, not only the options.
        assert re.search(r"^ *[A-Z][^│╭]+\.", page, re.MULTILINE), page
    assert list(tmp_path.iterdir()) == []


# --- using redepth --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_photo_is_refined(tmp_path: Path) -> None:
    printed = run(tmp_path, "00_refine_a_photo.py", *SMOKE)
    assert "Refinement(photo='coins.png', size=(303, 384), preset='smoke', members=2, steps=3" in printed
    assert record(tmp_path / "out" / "refine_a_photo")["members_done"] == 2


@pytest.mark.slow
def test_every_renderer_is_swapped_in_and_measured(tmp_path: Path, skimage_data: Path) -> None:
    photo, truth = (str(skimage_data / f"motorcycle_{name}") for name in ("left.png", "disp.npz"))
    lines = run(tmp_path, "01_swap_renderers.py", photo, "--gt", truth, *SMOKE).splitlines()
    names = {"blinn-phong", "ggx", "lambert", "mesh", "oren-nayar", "phong", "spherical-harmonics"}
    told = {line.split()[0].rstrip(":"): line for line in lines[:-1]}
    assert names <= set(told)
    ran = {name: line for name, line in told.items() if "cannot run" not in line}
    assert all("pip install" in told[name] for name in set(told) - set(ran))
    silog = [re.findall(r"SI-log (?:initial|refined) ([\d.]+)", line) for line in ran.values()]
    # All start from the same depth, and no two renderers end at the same.
    assert len({before for before, _ in silog}) == 1
    assert len({after for _, after in silog}) > 1
    assert Image.open(tmp_path / "out" / "swap_renderers" / "normals.png").width > 600


@pytest.mark.slow
def test_a_run_is_watched(tmp_path: Path) -> None:
    done = spawn(tmp_path, "02_watch_a_run.py", *SMOKE, "--every", "2")
    assert done.returncode == 0, done.stderr
    assert "6/6" in done.stderr
    assert "prior: 2 members, 3 steps" in done.stdout
    assert {path.name for path in (tmp_path / "out" / "watch_a_run").iterdir()} == {
        "steps.png",
        "losses.png",
    }


@pytest.mark.slow
def test_the_papers_script_runs_with_another_preset(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    printed = run(tmp_path, "07_re_depth.py", str(real_photos["coins"]), "--prompt", "coins", *SMOKE)
    assert "smoke: 2 members of 3 steps" in printed
    assert record(tmp_path / "out" / "re_depth")["prompt"] == "coins"


@pytest.mark.slow
def test_the_papers_script_says_in_one_line_what_it_lacks(
    tmp_path: Path, real_photos: Mapping[str, Path]
) -> None:
    """No test has a network: the paper's weights cannot be had."""
    done = spawn(tmp_path, "07_re_depth.py", str(real_photos["coins"]), "--device", "cpu")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")


@pytest.mark.slow
def test_a_clip_is_tied_and_flickers_less(tmp_path: Path) -> None:
    printed = run(tmp_path, "11_clip.py", *SMOKE, "--frames", "4")
    before, after = map(float, re.findall(r"flicker ([\d.]+) before, ([\d.]+) after", printed)[0])
    assert after < before
    assert printed.count("first frame") == 1
    assert len(io.check_video(tmp_path / "out" / "clip" / "clip.mp4").indices) == 4


# --- components of one's own ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_own_objective_is_minimised(tmp_path: Path) -> None:
    printed = run(tmp_path, "03_own_objective.py", *SMOKE)
    tilts = [float(value) for value in re.findall(r"n_z ([\d.]+)", printed)]
    assert tilts[1] < tilts[0]
    losses = [record(tmp_path / "out" / "own_objective" / name)["losses"] for name in ("without", "with")]
    assert set(losses[1]) - set(losses[0]) == {"facing"}


@pytest.mark.slow
def test_the_own_renderer_is_used(tmp_path: Path) -> None:
    run(tmp_path, "04_own_renderer.py", *SMOKE)
    used = [record(tmp_path / "out" / "own_renderer" / name) for name in ("blinn-phong", "lambert-ring")]
    assert used[1]["preset"]["renderer"] == {"name": "lambert-ring", "lights": 2, "slant": 45.0}
    assert used[0]["losses"] != used[1]["losses"]


@pytest.mark.slow
def test_the_own_prior_is_used(tmp_path: Path) -> None:
    run(tmp_path, "05_own_prior.py", *SMOKE)
    out = tmp_path / "out" / "own_prior"
    used = [record(out / name) for name in ("pixel-diffusion", "smooth-shading")]
    assert used[1]["preset"]["prior"] == {"name": "smooth-shading", "edges": 20.0}
    assert used[0]["losses"] != used[1]["losses"]


@pytest.mark.slow
def test_the_own_depth_model_is_used(tmp_path: Path) -> None:
    run(tmp_path, "06_own_depth_model.py", *SMOKE)
    used = [record(tmp_path / "out" / "own_depth_model" / name) for name in ("embeddings", "low-rank")]
    for what in used:
        assert what["preset"]["depth_model"] == {"name": "lower-is-nearer", "longer_side": 192, "tilt": 4.0}
        assert what["output"]["unit"] > 0
    assert used[0]["losses"] != used[1]["losses"]


# --- pictures of the docs, and the demo -----------------------------------------------------------


@pytest.mark.slow
def test_the_gallery_shows_every_renderer_that_runs_here(tmp_path: Path) -> None:
    run(tmp_path, "08_renderer_gallery.py", "--size", "64")
    assert {p.name for p in (tmp_path / "out" / "gallery").iterdir()} == {
        "renderers.png",
        "renderer-options.png",
    }


@pytest.mark.slow
def test_the_pictures_of_the_conventions_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, "09_conventions.py", "--out", "pictures")
    stored = ROOT / "docs" / "pictures" / "conventions"
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {p.name for p in stored.iterdir()}


@pytest.mark.slow
def test_a_depth_model_is_adapted_and_predicts_alone(tmp_path: Path) -> None:
    printed = run(tmp_path, "10_adapt.py", *SMOKE, "--steps", "2")
    assert "learned from 14 photos, 2 held out" in printed
    assert re.search(r"the adapted model alone: 0\.\d+ s; \(128, 128\)", printed)
    checkpoint = tmp_path / "out" / "adapt" / "checkpoint"
    assert (checkpoint / "model.safetensors").is_file()
    # The same command returns the finished result.
    before = (checkpoint / "model.safetensors").stat().st_mtime_ns
    assert run(tmp_path, "10_adapt.py", *SMOKE, "--steps", "2").startswith("learned from 14 photos")
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_demo_writes_its_record_and_pictures(tmp_path: Path) -> None:
    photos = ["--photo", "living_room-00", "--photo", "motorcycle_left"]
    printed = run(tmp_path, "demo.py", *photos)
    assert "What to expect" in printed
    found = json.loads((tmp_path / "out" / "demo" / "demo.json").read_text())
    assert [row["photo"] for row in found["photos"]] == ["living_room-00", "motorcycle_left"]
    assert all(row["silog_refined"] > 0 for row in found["photos"])
    for name in ("overview.png", "living_room-00/comparison.png", "motorcycle_left/run.json"):
        assert (tmp_path / "out" / "demo" / name).is_file()
