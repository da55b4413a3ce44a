"""What a row was measured from: a change means that it is measured again. And names of any script."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import bench
from redepth.components import resolve
from redepth.config import load_preset
from redepth.data.datasets import Sample
from redepth.protocols import load_protocol, open_dataset, protocol_for, select
from redepth.runtime.executors import Resources
from tests.support.small_photos import write_depth, write_photo

SMALL = ["optim.steps=1", "optim.members=1"]
NAMES = ["a", "b", "\u6f22" * 30, "\u0444" * 47]


def make_run(root: Path, preset: str = "smoke") -> bench.Run:
    options: dict[str, Any] = {"root": str(root)}
    protocol = load_protocol(protocol_for("folder"))
    reader = open_dataset(protocol, "folder", options)
    pinned, names = select(protocol, reader, partial=True)
    presets = {preset: resolve(load_preset("smoke", SMALL))}
    return bench.Run(dataset="folder", options=options, images=names, protocol=pinned, presets=presets)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_photo(tmp_path / "data" / "photos" / f"{name}.png", seed)
        write_depth(tmp_path / "data" / "depth" / f"{name}.npy", seed)
    return tmp_path / "data"


def test_rows_are_measured_again_where_a_file_changed(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"

    def measured() -> tuple[dict[str, float], list[str]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "redepth.runtime.resume"):
            results, failures = bench.run_benchmark(make_run(data, ".."), out, Resources(threads=1))
        assert failures == {}
        return {result.image: result.refined["metrics"]["silog"] for result in results}, caplog.messages

    first, messages = measured()
    assert set(first) == set(NAMES)
    assert messages == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"], "the preset is named '..'"
    assert measured() == (first, [])
    write_depth(data / "depth" / "b.npy", seed=9)
    write_photo(data / "photos" / f"{NAMES[2]}.png", seed=8)
    next(out.glob("images/*/a.error-refined.jpg")).write_bytes(b"")
    second, messages = measured()
    assert messages == [
        "a (..): measured again: a.error-refined.jpg was changed",
        "b (..): measured again: the ground truth changed",
        f"{NAMES[2]} (..): measured again: the photo changed",
    ]
    changed = {name for name in NAMES if first[name] != second[name]}
    assert changed == {"b", NAMES[2]}
    assert measured() == (second, [])


def test_a_kill_while_a_row_is_written_leaves_no_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[2:]:
        (data / "photos" / f"{name}.png").unlink()
    run, out = make_run(data), tmp_path / "out"
    expected, _ = bench.run_benchmark(run, out, Resources(threads=1))
    write_depth(data / "depth" / "a.npy", seed=9)

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("redepth.bench.worker.draw", lambda *_: {"photo": None})
        patched.setattr("redepth.io.save_jpeg", die)
        with pytest.raises(Killed):
            bench.run_benchmark(run, out, Resources(threads=1))
    assert not (out / "images" / "smoke" / "a.json").exists()
    again, _ = bench.run_benchmark(run, out, Resources(threads=1))
    assert [row.image for row in again] == [row.image for row in expected]
    assert again[0] != expected[0]
    assert again[1:] == expected[1:]


def test_all_parts_of_a_sample_count() -> None:
    preset = resolve(load_preset("smoke", SMALL))
    ones = np.ones((4, 5), np.float32)
    sample = Sample("a", np.zeros((4, 5, 3), np.float32), ones)
    mask = np.ones((4, 5), np.bool_)
    changes: dict[str, Any] = {
        "photo": np.ones((4, 5, 3), np.float32),
        "truth": ones.reshape(5, 4),
        "kind": "disparity",
        "unit": "relative",
        "mask": mask,
        "normals": np.ones((4, 5, 3), np.float32),
        "sky": mask,
    }
    first = bench.identify(sample, preset)
    assert first == bench.identify(sample, preset)
    for name, value in changes.items():
        other = Sample(**(vars(sample) | {name: value}))
        assert len(list(first.changes(bench.identify(other, preset)))) == 1, name
