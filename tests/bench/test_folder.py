"""`redepth bench folder`: truth in any unit, no-hit values, turned truth, and rows that were damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.command import SMOKE, Finished, call

ROWS, COLUMNS = 32, 48
STEPS = ("--set", "optim.steps=1", "--set", "optim.members=1", "--set", "depth_model.longer_side=56")
DEPTH = (2 + 20 * np.linspace(0, 1, ROWS)[:, None] ** 2 + np.sin(np.arange(COLUMNS) / 5)).astype(np.float32)


def sky(depth: np.ndarray, value: float) -> np.ndarray:
    depth = depth.copy()
    depth[-4:] = value
    return depth


TRUTHS = {
    "metres": DEPTH,
    "millimetres": 1000 * DEPTH,
    "sky-zero": sky(DEPTH, 0),
    "sky-1e10": sky(DEPTH, 1e10),
    "sky-65504": sky(DEPTH, 65504),
    "sky-millimetres": sky(1000 * DEPTH, 65535),
    "turned": DEPTH.T,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, turned by its EXIF orientation, with each truth."""
    folder = tmp_path_factory.mktemp("folder")
    noise = np.random.default_rng(0).integers(0, 255, (COLUMNS, ROWS, 3), dtype=np.uint8)
    turn = Image.Exif()
    turn[0x0112] = 6
    for part in ("photos", "depth", "disparity", "far"):
        (folder / part).mkdir()
    for name, truth in TRUTHS.items():
        Image.fromarray(noise).save(folder / "photos" / f"{name}.jpg", exif=turn)
        np.save(folder / "depth" / f"{name}.npy", truth)
    np.save(folder / "disparity" / "metres.npy", 256 / DEPTH)
    np.save(folder / "far" / "metres.npy", 1000 * DEPTH)
    return folder


def bench(root: Path, out: Path, *arguments: str) -> Finished:
    photos = ("--root", root, "--option", "photos=photos/*.jpg")
    return call("bench", "folder", *photos, *SMOKE, *STEPS, "--out", out, *arguments)


def bench_disparity(root: Path, out: Path) -> Finished:
    return bench(root, out, "--option", "truths=disparity/*.npy", "--option", "kind=disparity")


@pytest.fixture(scope="module")
def measured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    out = tmp_path_factory.mktemp("measured")
    return bench(root, out), out


def row(out: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "images" / "smoke" / f"{name}.json").read_text())
    return content


def unitless(out: Path, name: str) -> dict[str, float]:
    metrics = row(out, name)["refined"]["metrics"]
    return {key: value for key, value in metrics.items() if key not in ("rmse", "sq_rel")}


def test_the_unit_of_the_truth_changes_no_unitless_metric(
    root: Path, measured: tuple[Finished, Path], tmp_path: Path
) -> None:
    _, out = measured
    assert unitless(out, "millimetres") == pytest.approx(unitless(out, "metres"), rel=1e-5)
    disparity = bench_disparity(root, tmp_path)
    assert disparity.code == 0, disparity.err
    assert unitless(tmp_path, "metres") == pytest.approx(unitless(out, "metres"), rel=1e-5)


def test_a_range_in_metres_refuses_millimetres(root: Path, tmp_path: Path) -> None:
    done = bench(root, tmp_path, "--protocol", "redepth-paper", "--option", "truths=far/*.npy")
    assert done.code == 2
    assert "range, 0.001 to 10000 m, and the unit of the ground truth is unknown" in done.err


def test_no_hit_values_are_left_out_and_said(measured: tuple[Finished, Path]) -> None:
    done, out = measured
    expected = unitless(out, "sky-zero")
    for name in ("sky-1e10", "sky-65504", "sky-millimetres"):
        assert unitless(out, name) == pytest.approx(expected, rel=1e-5), name
        assert row(out, name)["refined"]["left_out"]["no_hit"] == 4 * COLUMNS
    lost = 3 * 4 * COLUMNS
    total = 6 * ROWS * COLUMNS
    said = f"left out of {total} pixels of ground truth: {lost} no-hit, {4 * COLUMNS} zero"
    assert f"warning: {said}" in done.err
    assert "warning: 3 of 6 images, such as sky-1e10: left out of" in done.err
    assert said in (out / "report.html").read_text()


def test_truth_as_the_sensor_stores_it_is_refused_with_both_sizes(measured: tuple[Finished, Path]) -> None:
    done, out = measured
    assert done.code == 2
    (line,) = [line for line in done.complaints if line.startswith("error: turned")]
    assert (
        f"ground truth is {ROWS} x {COLUMNS} pixels and the photo, as it is shown, {COLUMNS} x {ROWS}" in line
    )
    assert not (out / "images" / "smoke" / "turned.json").exists()


@pytest.fixture(scope="module")
def one_row(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    assert bench_disparity(root, out).code == 0
    return out


def without(metric: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["refined"]["metrics"].pop(metric)


def unknown(metric: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["initial"]["metrics"].update({metric: None})


@pytest.mark.parametrize(
    ("damage", "redone"),
    [
        (without("abs_rel"), False),
        (unknown("a1"), False),
        (without("silog"), True),
        (unknown("silog"), True),
        (lambda content: content["refined"].pop("means"), True),
        (lambda content: content["refined"].update(metrics=5), True),
        (lambda content: content["refined"].update(left_out={"else": 1}), True),
    ],
)
def test_a_damaged_row_breaks_no_table(
    damage: Callable[[dict[str, Any]], None],
    redone: bool,
    root: Path,
    one_row: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(one_row, out)
    path = out / "images" / "smoke" / "metres.json"
    good, content = (json.loads(path.read_text()) for _ in range(2))
    damage(content)
    path.write_text(json.dumps(content))
    done = bench_disparity(root, out)
    assert done.code == 0, done.err
    again = json.loads(path.read_text())
    assert again["refined"]["metrics"] == (good if redone else content)["refined"]["metrics"]
    for line in (out / "rows.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
