"""Writers: a file is whole or absent, and reads back as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line, assert_quadrants, depth_map, quadrants


def test_atomic_path_replaces_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with io.atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == target.suffix
            temporary.write_text(text)
        assert target.read_text() == text
        assert list(target.parent.iterdir()) == [target]


def test_atomic_path_leaves_the_old_file_on_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_half_way() -> None:
        with io.atomic_path(target) as temporary:
            temporary.write_text("half")
            assert target.read_text() == "old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_failing_writers_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        io.save_npy(tmp_path / "a.npy", np.array([{}]))
    with pytest.raises(TypeError):
        io.save_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_save_npy_and_png(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "a.npy", depth_map())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), depth_map())
    image = np.array([[[0, 0.5, 1], [-1, 2, np.nan]]])
    io.save_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), [[[0, 128, 255], [0, 255, 0]]])
    io.save_png(tmp_path / "b.png", quadrants())
    assert_quadrants(io.load_photo(tmp_path / "b.png"))


def test_save_json_writes_only_json(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"),
        "list": [1, np.float32(0.5), np.inf, (True, None)],
        "array": np.array([[1.0, np.nan]]),
        "count": np.int64(3),
        "path": Path("a") / "b",
        1: "\u00e9",
    }
    io.save_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "nan": null')
    assert "\u00e9" in text

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "list": [1, 0.5, None, [True, None]],
        "array": [[1.0, None]],
        "count": 3,
        "path": str(Path("a/b")),
        "1": "\u00e9",
    }


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 250), (1e-6, 2e-6), (1000, 1001)])
def test_disparity_png_round_trip(tmp_path: Path, low: float, high: float) -> None:
    path = tmp_path / "a.png"
    disparity = np.random.default_rng(0).uniform(low, high, (30, 40)).astype(np.float32)
    encoding = io.save_disparity_png(path, disparity, kind="depth")
    loaded = io.load_disparity_png(path)
    assert loaded.dtype == np.float32
    rounding = np.spacing(np.float32(max(abs(low), high)))
    assert np.abs(loaded - disparity).max() <= encoding["scale"] / 2 + rounding
    with Image.open(path) as saved:
        assert saved.mode.startswith("I;16")
        assert np.asarray(saved).min() == 0
        assert np.asarray(saved).max() == 65535
        assert {k: saved.info[f"redepth:{k}"] for k in encoding} == {k: str(v) for k, v in encoding.items()}


def test_disparity_png_of_a_constant(tmp_path: Path) -> None:
    encoding = io.save_disparity_png(tmp_path / "a.png", np.full((4, 5), 2.5))
    assert encoding == {"scale": 1.0, "offset": 2.5, "kind": "disparity"}
    np.testing.assert_array_equal(io.load_disparity_png(tmp_path / "a.png"), np.full((4, 5), 2.5))


def test_unknown_pixels_of_a_disparity_png_stay_unknown(tmp_path: Path) -> None:
    values = np.linspace(-3, 250, 1200, dtype=np.float32).reshape(30, 40)
    values[:4], values[20, 30] = np.nan, np.nan
    encoding = io.save_disparity_png(tmp_path / "a.png", values)
    assert encoding["unknown"] == 0
    loaded = io.load_disparity_png(tmp_path / "a.png")
    np.testing.assert_allclose(loaded, values, atol=float(encoding["scale"]) / 2 + 1e-4)
    np.testing.assert_array_equal(np.isnan(loaded), np.isnan(values))
    with pytest.raises(InputError, match="1200 of 1200 pixels are not finite"):
        io.save_disparity_png(tmp_path / "b.png", np.full_like(values, np.nan))


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_disparity_png_refuses_what_is_not_finite(tmp_path: Path, bad: float) -> None:
    values = depth_map()
    values[1, 1] = bad
    with pytest.raises(InputError) as error:
        io.save_disparity_png(tmp_path / "a.png", values)
    assert_one_line(error, tmp_path / "a.png", "1 of 12 pixels", ".npy")
    assert list(tmp_path.iterdir()) == []


def test_importing_io_stays_light() -> None:
    code = "import sys, redepth.io; print({'torch', 'matplotlib', 'trimesh'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
