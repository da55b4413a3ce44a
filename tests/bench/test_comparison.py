"""The comparison of two runs: what they must share, and what is left out of it with a warning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth.runtime.resume import row_path
from tests.support.command import SMOKE, Finished, call, one_line

NAMES = ("a", "b", "c")
STEPS = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=56")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for part in ("photos", "depth"):
        (root / part).mkdir()
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(root / f"photos/{name}.png")
        waves = np.sin(np.linspace(0, seed + 1, 40))[:, None] + np.sin(np.linspace(0, 5 - seed, 60))
        np.save(root / f"depth/{name}.npy", (4 + waves).astype(np.float32))
    return root


def measure(root: Path, out: Path, *arguments: str | Path) -> Finished:
    settings = (*SMOKE, *STEPS, "--threads", "1", "--initial-only", "--out", out)
    return call("bench", "folder", "--root", root, *settings, *arguments)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    done = measure(root, out, "--protocol", "folder,folder-clamp")
    assert done.code == 0, done.err
    return out


def test_images_with_another_truth_are_left_out(
    root: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "data"))
    np.save(other / "depth/b.npy", 1 + np.load(other / "depth/b.npy"))
    assert measure(other, tmp_path / "out").code == 0
    done = call("bench", "compare", run, tmp_path / "out", "--json")
    assert done.code == 0
    assert caplog.messages[-1] == (
        "left out of the comparison: 1 image of which the ground truth differs in the two runs: b (smoke)"
    )
    (comparison,) = json.loads(done.out)["comparisons"]
    assert {metric["images"] for metric in comparison["metrics"]} == {2}
    # Nothing is left: that is an error, which says why.
    for name in ("a", "c"):
        np.save(other / f"depth/{name}.npy", 1 + np.load(other / f"depth/{name}.npy"))
    assert measure(other, tmp_path / "out").code == 0
    one_line(call("bench", "compare", run, tmp_path / "out"), "3 images of which the ground truth differs")


def test_another_mask_is_another_truth(root: Path, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "data"))
    (other / "masks").mkdir()
    for name in NAMES:
        Image.fromarray(np.uint8([[255] * 60] * 30 + [[0] * 60] * 10)).save(other / f"masks/{name}.png")
    done = measure(other, tmp_path / "out", "--option", "masks=masks/*.png")
    assert done.code == 0, done.err
    one_line(call("bench", "compare", run, tmp_path / "out"), "of which the mask differs", "a, b, c")


def test_a_protocol_without_rows_is_left_out(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was killed while a protocol was added to it."""
    other = Path(shutil.copytree(run, tmp_path / "out"))
    for name in NAMES:
        path = row_path(other, ("smoke", name))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"further": []}))
    done = call("bench", "compare", run, other, "--json")
    assert done.code == 0
    assert [one["protocol"] for one in json.loads(done.out)["comparisons"]] == ["folder"]
    assert caplog.messages == [
        "left out of the comparison: no finished image in common under folder-clamp (smoke)"
    ]
    shutil.rmtree(other / "images")
    words = ("no finished image in common under folder (smoke)", "under folder-clamp (smoke)")
    one_line(call("bench", "compare", run, other), *words)


def test_a_truth_without_metres_is_refused_before_the_run(root: Path, tmp_path: Path) -> None:
    protocol = tmp_path / "mine.yaml"
    protocol.write_text(
        "name: mine\nrange: {near: 0.1, far: 80.0}\n"
        "alignment: {disparity: affine-disparity, depth: affine-depth}"
    )
    done = measure(root, tmp_path / "out", "--protocol", protocol)
    one_line(done, "clips depth to its range", "--option unit=m")
    assert not (tmp_path / "out").exists()


def test_depth_of_another_kind_is_refused_before_the_run(tmp_path: Path) -> None:
    """Kaggle's copy of NYU does not say whether its depth is raw or filled; the first map tells."""
    for number in range(2):
        photo = np.zeros((48, 64, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / f"{number:05}_colors.png")
        depth = np.full((48, 64), 2000, np.uint16)
        Image.fromarray(depth).save(tmp_path / f"{number:05}_depth.png")
    settings = (*SMOKE, "--protocol", "nyuv2-eigen", "--limit", "2", "--out", tmp_path / "out")
    done = call("bench", "nyuv2", "--root", tmp_path, *settings)
    one_line(done, "so it is filled, not raw", "nyuv2-filled")
    assert not (tmp_path / "out").exists()


# --- maps of another tool -------------------------------------------------------------------------


@pytest.fixture
def maps(root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", np.load(root / f"depth/{name}.npy"))
    return folder


def precomputed(root: Path, path: Path, out: Path, *more: str) -> Finished:
    options = ("-s", f"depth_model.path={path}", "-s", "depth_model.predicts=depth", "--device", "cpu")
    protocol = ("--protocol", "folder-clamp", "--threads", "1", "--out", out)
    return call(
        "bench", "folder", "--root", root, *options, *protocol, *(more or ("--depth-model", "precomputed"))
    )


def refining(root: Path, path: Path, out: Path) -> Finished:
    preset = out.parent / "given.yaml"
    preset.write_text(
        "extends: smoke\nname: given\ndepth_model: {name: precomputed}\noptim: {parameterization: depth}"
    )
    return precomputed(root, path, out, "--preset", str(preset), "-s", "optim.steps=1")


@pytest.mark.parametrize("bench", [precomputed, refining])
def test_each_image_has_its_own_map(
    bench: Callable[..., Finished],
    root: Path,
    maps: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = bench(root, maps, tmp_path / "out")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()]
    # The maps are the truth.
    assert [row["initial"]["metrics"]["abs_rel"] < 0.005 for row in rows] == [True] * 3
    # An image is measured again if its map changes.
    shutil.copyfile(maps / "a.npy", maps / "b.npy")
    again = bench(root, maps, tmp_path / "out")
    assert [text for text in caplog.messages if "measured again" in text] == [
        f"b ({rows[0]['preset']}): measured again: the depth map changed"
    ]
    assert again.code == 0
    rows = [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()]
    assert [row["initial"]["metrics"]["abs_rel"] < 0.005 for row in rows] == [True, False, True]


@pytest.mark.parametrize("bench", [precomputed, refining])
def test_what_is_no_map_of_each_image_is_refused_before_the_run(
    bench: Callable[..., Finished], root: Path, maps: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one_line(bench(root, maps / "a.npy", out), "is one file, and belongs to one photo; there are 3 images")
    (maps / "b.npy").unlink()
    one_line(bench(root, maps, out), "must hold one map of its name, there is no b.")
    one_line(bench(root, Path("<array>"), out), "Python passes the map")
    assert not out.exists()
