from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from redepth import io
from redepth.errors import InputError


def poses(count: int = 3) -> np.ndarray:
    """Poses that turn around the vertical axis and move."""
    matrices = np.broadcast_to(np.eye(4), (count, 4, 4)).copy()
    for index, angle in enumerate(np.linspace(0, 0.3, count)):
        c, s = np.cos(angle), np.sin(angle)
        matrices[index, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        matrices[index, :3, 3] = [index, 0.5, -1]
    return matrices


def test_numpy_and_json_give_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", poses())
    np.save(tmp_path / "b.npy", poses()[:, :3].astype(np.float32))
    (tmp_path / "c.json").write_text(json.dumps(poses().tolist()))
    (tmp_path / "d.json").write_text(json.dumps({"poses": poses()[:, :3].tolist(), "scale": 2}))
    for name in ("a.npy", "b.npy", "c.json", "d.json"):
        read = io.load_poses(tmp_path / name)
        np.testing.assert_allclose(read.matrices, poses(), atol=1e-6)
        assert read.scale == (2.0 if name == "d.json" else None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be"),
        ("[1, 2]", "must be"),
        ("{}", "no poses can be read"),
        ("not json", "no poses can be read"),
        ('[[[1, "a"]]]', "no poses can be read"),
        (json.dumps((2 * np.eye(4)[None]).tolist()), "pose 0 is no rotation and translation"),
        (json.dumps([np.eye(4).tolist(), np.diag([1, 1, -1, 1]).tolist()]), "pose 1 is no rotation"),
        (json.dumps({"poses": [np.eye(4).tolist()], "scale": -1}), "scale must be a number above 0"),
        (json.dumps({"poses": [np.eye(4).tolist()], "scale": "x"}), "scale must be a number above 0"),
        ("[[[1e999,0,0,0],[0,1,0,0],[0,0,1,0]]]", "not finite|no poses can be read"),
    ],
)
def test_what_are_no_poses(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "poses.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        io.load_poses(path)


def test_a_missing_or_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        io.load_poses(tmp_path / "none.npy")
    (tmp_path / "a.npy").write_bytes(b"no numbers")
    with pytest.raises(InputError, match="not numbers saved by numpy"):
        io.load_poses(tmp_path / "a.npy")
    nan = poses()
    nan[1, 0, 3] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    with pytest.raises(InputError, match="pose 1 has a value that is not finite"):
        io.load_poses(tmp_path / "nan.npy")
