"""The chosen files of a result: what each holds, read back by other libraries where they write the format."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import redepth
from redepth import io
from redepth.config import load_preset
from redepth.config.hashing import preset_sha256
from redepth.config.schema import EXPORTS, Output
from redepth.errors import ConfigError, MissingDependencyError, OutputError, PartlyWrittenError
from redepth.exports import check_packages
from redepth.exports.source import Source, Written
from redepth.exports.writing import WRITERS
from redepth.metrics.metric_fit import MetricFit
from redepth.ops.camera import Camera
from redepth.optim.outcome import Outcome
from redepth.refinement import Refinement
from tests.support.command import SMOKE, call
from tests.support.helpers import ALL_FILES, RESULT_FILES
from tests.support.small_photos import write_photo

SIZE = (24, 32)
PINHOLE = Camera(field_of_view=40.0)


def outcome(raw: np.ndarray, **settings: Any) -> Outcome:
    """One of a single member that changed nothing."""
    values = torch.from_numpy(raw.astype(np.float32))[None, None]
    depth = values if settings.get("predicts") == "depth" else 7 / (values + 0.1)
    given = {"predicts": "disparity", "history": {}, "steps_done": [1], "members_per_batch": 1} | settings
    return Outcome(
        initial=values,
        members=values,
        initial_depth=depth,
        member_depths=depth,
        offsets=torch.zeros(1),
        **given,
    )


def result(raw: np.ndarray, *overrides: str, fit: MetricFit | None = None, **settings: Any) -> Refinement:
    preset = load_preset("smoke", ["output.write=all", *overrides])
    photo = np.random.default_rng(0).random((*raw.shape, 3)).astype(np.float32)
    return Refinement(photo, outcome(raw, **settings), preset, metric_fit=fit)


def ramp(low: float = 1.0, high: float = 2.0) -> np.ndarray:
    return np.tile(np.linspace(low, high, SIZE[1]), (SIZE[0], 1)).astype(np.float32)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_the_record_says_what_each_file_holds_and_why_others_are_missing(tmp_path: Path) -> None:
    run = record(result(ramp()).save(tmp_path / "a"))
    assert {*run["files"], "run.json"} == ALL_FILES
    assert set(run["contents"]) == set(run["files"])
    assert run["contents"]["disparity.npy"]["unit"] == "affine"
    assert run["contents"]["points.ply"]["unit"] == run["contents"]["mesh.glb"]["unit"] == "relative"
    assert set(run["not_written"]) == {"depth", "depth-exr", "intrinsics", "albedo"}
    assert "no metres are known" in run["not_written"]["depth"]


def test_metric_depth_is_one_file_in_metres(tmp_path: Path) -> None:
    metres = ramp()
    lit = {"camera": PINHOLE, "albedo": torch.full((1, 3, 8, 8), 0.4)}
    folder = result(metres, predicts="depth", invariance="metric", **lit).save(tmp_path / "a")
    run = record(folder)
    assert "raw_depth.npy" not in run["files"]
    assert run["not_written"] == {}
    assert np.array_equal(np.load(folder / "depth.npy"), metres)
    for name in ("depth.npy", "depth.exr", "points.ply", "mesh.glb"):
        assert run["contents"][name]["unit"] == "metres"


def test_known_points_give_metres_beside_the_raw_map(tmp_path: Path) -> None:
    fit = MetricFit(scale=0.5, shift=0.1, points=3, inliers=3, residual=0.0, confidence=1.0)
    raw = ramp()
    folder = result(raw, fit=fit, camera=PINHOLE).save(tmp_path / "a")
    assert np.array_equal(np.load(folder / "disparity.npy"), raw)
    np.testing.assert_allclose(np.load(folder / "depth.npy"), 1 / (0.5 * raw + 0.1), rtol=1e-6)
    # Of a model of affine depth, the raw map gives way to the metres.
    folder = result(raw, fit=fit, predicts="depth", camera=PINHOLE).save(tmp_path / "a")
    run = record(folder)
    assert np.array_equal(np.load(folder / "raw_depth.npy"), raw)
    np.testing.assert_allclose(np.load(folder / "depth.npy"), 0.5 * raw + 0.1, rtol=1e-6)
    assert (run["contents"]["raw_depth.npy"]["unit"], run["contents"]["depth.npy"]["unit"]) == (
        "affine",
        "metres",
    )
    assert not (folder / "disparity.npy").exists()
    # Without the metres it keeps its name.
    folder = result(raw, "output.write=map", fit=fit, predicts="depth").save(tmp_path / "a")
    assert {p.name for p in folder.iterdir()} == {"depth.npy", "run.json"}
    assert record(folder)["contents"]["depth.npy"]["unit"] == "affine"


def test_an_orthographic_camera_keeps_points_and_meshes_relative(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        folder = result(ramp(), predicts="depth", invariance="metric").save(tmp_path / "a")
    assert "give --fov" in caplog.text
    contents = record(folder)["contents"]
    assert contents["depth.npy"]["unit"] == "metres"
    assert contents["points.ply"]["unit"] == contents["mesh.glb"]["unit"] == "relative"


def test_a_wall_at_60_degrees_is_a_plane_in_points_and_mesh(tmp_path: Path) -> None:
    camera = Camera.from_pixels(70.0, 55.0, 14.0, 13.5, *SIZE)
    u = camera.axes(*SIZE)[0].double().numpy()
    slope = np.tan(np.radians(60.0))
    inverse = (1 - u * slope) / 2
    normal = np.array([np.sin(np.radians(60)), 0, np.cos(np.radians(60))])
    cases = {
        "metric disparity": result(np.tile(inverse, (24, 1)), invariance="metric", camera=camera),
        "metric depth": result(
            np.tile(1 / inverse, (24, 1)), predicts="depth", invariance="metric", camera=camera
        ),
    }
    for name, made in cases.items():
        folder = made.save(tmp_path / name)
        for vertices in (
            trimesh.load(folder / "points.ply").vertices,
            trimesh.load(folder / "mesh.glb", force="mesh").vertices,
            made.points().vertices,
            made.mesh(faces=100).vertices,
        ):
            assert len(vertices) > 50
            assert np.abs((vertices - [0, 0, -2]) @ normal).max() < 2e-5 * np.abs(vertices).max(), name


def test_openexr_files_are_read_by_openexr(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    made = result(ramp(), predicts="depth", invariance="metric", camera=PINHOLE)
    folder = made.save(tmp_path / "a")
    with exr.File(str(folder / "depth.exr"), separate_channels=True) as file:
        assert file.channels()["Z"].pixels.dtype == np.float32
        assert np.array_equal(file.channels()["Z"].pixels, ramp())
        assert "metres" in file.header()["comments"]
    assert np.array_equal(io.load_map(folder / "depth.exr", "depth"), ramp())
    with exr.File(str(folder / "normals.exr"), separate_channels=True) as file:
        normals = np.stack([file.channels()[axis].pixels for axis in "XYZ"], axis=-1)
        assert "x right, y up, z towards the viewer" in file.header()["comments"]
    np.testing.assert_allclose(normals, made.normals_after, atol=5e-5)


def test_the_intrinsics_are_read_again(tmp_path: Path) -> None:
    camera = Camera.from_pixels(70.0, 55.0, 14.0, 13.5, *SIZE)
    made = replace(result(ramp(), "output.write=intrinsics", camera=camera), camera_origin="--fov")
    path = made.save(tmp_path / "a") / "intrinsics.json"
    found = io.load_intrinsics(path)
    assert (found.width, found.height) == SIZE[::-1]
    assert [found.fx, found.fy, found.cx, found.cy] == pytest.approx([70.0, 55.0, 14.0, 13.5])
    assert json.loads(path.read_text())["from"] == "--fov"


def test_each_choice_writes_its_files_and_takes_the_place_of_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs, one after the other in one folder."""
    monkeypatch.setattr(Refinement, "comparison", lambda self: Image.new("L", (4, 4)))
    lit = {"camera": PINHOLE, "albedo": torch.full((1, 3, 8, 8), 0.4)}
    made = result(ramp(), predicts="depth", invariance="metric", **lit)
    alone = {}
    for name in EXPORTS:
        folder = result_with(made, [name]).save(tmp_path / name)
        alone[name] = {path.name for path in folder.iterdir()}
        assert len(alone[name]) == 2
    for pair in itertools.combinations(EXPORTS, 2):
        folder = result_with(made, list(pair)).save(tmp_path / "one")
        assert {path.name for path in folder.iterdir()} == alone[pair[0]] | alone[pair[1]]
        assert io.damage(folder, record(folder)["files"]) == ""


def result_with(made: Refinement, names: list[str]) -> Refinement:
    output = made.preset.output.model_copy(update={"write": names})
    return replace(made, preset=made.preset.model_copy(update={"output": output}))


def test_the_choice_is_a_list_or_a_text_and_unknown_names_are_refused() -> None:
    for text in ("points, map", "[points, map, map]", "'map,points,'"):
        assert load_preset("smoke", [f"output.write={text}"]).output.write == ["map", "points"]
    assert load_preset("smoke", ["output.write=all"]).output.write == list(EXPORTS)
    assert load_preset("smoke", ["output.write=[]"]).output.write == []
    for wrong in ("mash", "[map, 3]", "7"):
        with pytest.raises(ConfigError, match=r"output\.write"):
            load_preset("smoke", [f"output.write={wrong}"])
    with pytest.raises(ConfigError, match=r"valid: map, preview, .*mesh, intrinsics, albedo, all"):
        load_preset("smoke", ["output.write=mash"])


def test_write_of_the_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo = write_photo(tmp_path / "a.png")
    small = ("--preset", "smoke", "-s", "optim.steps=1", "-s", "optim.members=1", "--out", tmp_path / "out")
    done = call("refine", photo, *small, "--write", "mesh,depth")
    assert done.code == 0, done
    assert {p.name for p in (tmp_path / "out" / "a").iterdir()} == {"mesh.glb", "run.json"}
    assert "depth is not written: no metres are known" in caplog.text
    done = call("refine", photo, *small, "--write", "mesh,dept")
    assert done.code == 2
    assert "unknown file 'dept'" in done.err
    assert {p.name for p in (tmp_path / "out" / "a").iterdir()} == {"mesh.glb", "run.json"}


def test_what_is_written_does_not_change_the_hash_of_a_preset_and_upsampling_does() -> None:
    hashes = [
        preset_sha256(load_preset("smoke", overrides))
        for overrides in ([], ["output.write=all"], ["output.mesh_faces=900"], ["output.upsample=guided"])
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


@pytest.mark.parametrize(
    ("package", "output", "extra"),
    [
        ("OpenEXR", Output(write=["normals-exr"]), "redepth[exr]"),
        ("kornia", Output(upsample="guided"), "redepth[guided]"),
    ],
)
def test_a_missing_package_is_named_before_any_work(
    package: str, output: Output, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    check_packages(Output())
    with pytest.raises(MissingDependencyError) as error:
        check_packages(output)
    assert extra in str(error.value)


def test_the_python_names_return_trimesh_objects() -> None:
    made = redepth.Refinement(*(getattr(result(ramp()), name) for name in ("photo", "outcome", "preset")))
    assert isinstance(made.points(max_points=50), trimesh.PointCloud)
    assert isinstance(made.mesh(faces=50), trimesh.Trimesh)
    assert len(made.points(max_points=50).vertices) <= 50
    assert len(made.mesh(faces=50).faces) <= 50


# --- a file that cannot be written ----------------------------------------------------------------


def breaks(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Make a writer leave half of a file and fail."""

    def fail(source: Source, folder: Path) -> Written:
        (folder / "half").write_text("half")
        raise error

    monkeypatch.setitem(WRITERS, name, fail)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (MemoryError(), "not enough memory for it; free some, or give a smaller photo"),
        (RuntimeError("no such mesh"), "RuntimeError: no such mesh"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["preview", "comparison", "mesh", "normals-exr"])
def test_a_file_that_cannot_be_written_loses_no_other(
    name: str, error: BaseException, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    whole = record(result(ramp()).save(folder))
    breaks(monkeypatch, name, error)
    with pytest.raises(PartlyWrittenError) as caught:
        result(ramp()).save(folder)
    assert caught.value.failures == {name: why}
    assert str(caught.value) == f"{name} is not written: {why} (the other files are in {folder})"
    run = record(folder)
    (lost,) = set(whole["files"]) - set(run["files"])
    assert {path.name for path in folder.iterdir()} == ALL_FILES - {lost}
    assert run["write_errors"] == [name]
    assert run["not_written"][name] == why
    assert {key: run["files"][key] for key in run["files"]} == {
        key: value for key, value in whole["files"].items() if key != lost
    }


def test_a_reason_does_not_name_the_hidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = io.save_png

    def failing(path: Path, image: Any) -> None:
        if Path(path).name == "comparison.png":
            raise OutputError(f"{path}: cannot be written: File too large")
        save(path, image)

    monkeypatch.setattr(io, "save_png", failing)
    with pytest.raises(PartlyWrittenError):
        result(ramp()).save(tmp_path / "a")
    why = record(tmp_path / "a")["not_written"]["comparison"]
    assert why == "comparison.png: cannot be written: File too large"


def test_without_its_map_or_its_record_a_result_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result(ramp()).save(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patched:
        breaks(patched, "map", OSError(errno.EIO, "Input/output error"))
        with pytest.raises(OSError, match="Input/output error"):
            result(2 * ramp()).save(folder)
    with monkeypatch.context() as patched:
        full = OutputError("run.json: cannot be written: the disk is full")
        patched.setattr(io, "save_json", Mock(side_effect=full))
        with pytest.raises(OutputError, match="the disk is full"):
            result(2 * ramp()).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_command_says_which_file_failed_and_refines_again(
    tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [real_photos[name] for name in ("coins", "moon")]
    command = ("refine", *photos, *SMOKE, "--set", "optim.steps=1", "--out", tmp_path)
    with monkeypatch.context() as patched:
        breaks(patched, "comparison", OSError(errno.EIO, "Input/output error"))
        done = call(*command)
    assert done.code == 2
    why = "comparison is not written: OSError: [Errno 5] Input/output error"
    assert done.complaints == [
        *(f"error: {photo}: {why}" for photo in photos),
        "error: 2 of 2 inputs failed",
    ]
    assert {path.name for path in (tmp_path / "coins").iterdir()} == RESULT_FILES - {"comparison.png"}
    again = call(*command)
    assert again.code == 0
    assert again.out.count("refined again: comparison could not be written") == 2
    assert {path.name for path in (tmp_path / "coins").iterdir()} == RESULT_FILES
