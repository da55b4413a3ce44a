"""The refine command on real photos: files, metrics, seeds, bad input, Ctrl-C, limits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from redepth import __version__, components, config, io, metrics
from redepth.checkpoints import loading, lookup
from redepth.components import resolve
from redepth.config import load_preset
from redepth.errors import InputError
from redepth.optim.planning import run_within_limits
from redepth.pipeline import DecodedPhoto, Pipeline
from redepth.protocols import load_protocol
from redepth.refinement import Refinement
from redepth.registry import Entry, Registry
from redepth.renderers import REGISTRY as RENDERERS
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.checkpoints import tiny
from tests.support.command import ENVIRONMENT, SMOKE, Finished, call, one_line, record, spawn
from tests.support.helpers import ALL_FILES, RESULT_FILES

# --- one batch in a process of its own: good photos and every kind of bad one ---------------------


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    names = ("missing.jpg", "empty.jpg", "truncated.png", "text.jpg", "dot.png", "strip.png", "nothing")
    bad = {name: folder / name for name in names}
    bad["empty.jpg"].touch()
    bad["truncated.png"].write_bytes(real_photos["coins"].read_bytes()[:20_000])
    bad["text.jpg"].write_text("this is not a photo\n")
    Image.new("RGB", (1, 1)).save(bad["dot.png"])
    Image.new("RGB", (10_000, 2)).save(bad["strip.png"])
    bad["nothing"].mkdir()
    return bad


@pytest.fixture(scope="module")
def batch(
    tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, Path], bad_files: dict[str, Path]
) -> tuple[Finished, Path]:
    """Two photos named coins, a folder, a pattern and all bad files, in one call; and its --out."""
    base = tmp_path_factory.mktemp("batch")
    for place, source, name in (
        ("first", "coins", "coins.png"),
        ("second", "moon", "coins.png"),
        ("folder", "brick", "brick.png"),
        ("pattern", "gravel", "gravel [1].png"),
    ):
        (base / place).mkdir()
        shutil.copy(real_photos[source], base / place / name)
    (base / "folder" / "notes.txt").write_text("no photo")
    bad = list(bad_files.values())
    inputs = [bad[0], base / "first" / "coins.png", *bad[1:], base / "second" / "coins.png"]
    inputs += [base / "folder", base / "pattern" / "*.png", base / "folder" / "brick.png"]
    done = spawn(
        "refine", *inputs, *SMOKE, "--write", "all", "--seed", "3", "--prompt", "coins", "--out", base / "out"
    )
    return done, base / "out"


def test_each_bad_input_is_one_line_and_the_others_run(
    batch: tuple[Finished, Path], bad_files: dict[str, Path]
) -> None:
    done, out = batch
    assert done.code == 2
    assert "Traceback" not in done.err
    for path in bad_files.values():
        lines = [line for line in done.complaints if str(path) in line]
        assert len(lines) == 1, done.err
        assert lines[0].startswith(f"error: {path}: ")
    # A line for each of them and a last one, nothing else; brick is named twice and runs once.
    assert len(done.complaints) == len(bad_files) + 1
    assert done.complaints[-1] == f"error: {len(bad_files)} of {len(bad_files) + 4} inputs failed"
    assert sorted(p.name for p in out.iterdir()) == ["brick", "coins", "coins-2", "gravel [1]"]
    for name in ("coins", "coins-2", "brick", "gravel [1]"):
        assert str(out / name) in done.out


def test_photos_of_one_stem_keep_their_own_results(batch: tuple[Finished, Path]) -> None:
    _, out = batch
    first, second = record(out / "coins"), record(out / "coins-2")
    assert first["photo"]["source"].endswith("first/coins.png")
    assert second["photo"]["source"].endswith("second/coins.png")
    assert np.load(out / "coins" / "disparity.npy").shape == (303, 384)
    assert np.load(out / "coins-2" / "disparity.npy").shape == (512, 512)


def test_every_file_is_written_at_the_photos_size(batch: tuple[Finished, Path]) -> None:
    folder = batch[1] / "coins"
    assert {p.name for p in folder.iterdir()} == ALL_FILES
    for name in ("disparity", "initial", "uncertainty"):
        array = np.load(folder / f"{name}.npy")
        assert array.shape == (303, 384)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    initial, refined = (np.load(folder / f"{name}.npy") for name in ("initial", "disparity"))
    assert not np.array_equal(initial, refined)
    assert (np.load(folder / "uncertainty.npy") > 0).any()
    with Image.open(folder / "normals.png") as normals:
        assert normals.size == (384, 303)
        assert normals.mode == "RGB"
        # The mean normal of relief seen from above points to the viewer: blue is z.
        assert np.asarray(normals)[..., 2].mean() > 200
    with Image.open(folder / "comparison.png") as comparison:
        comparison.load()
        assert comparison.width > 384


def test_the_16_bit_picture_decodes_to_the_array(batch: tuple[Finished, Path]) -> None:
    folder = batch[1] / "coins"
    disparity = np.load(folder / "disparity.npy").astype(np.float64)
    with Image.open(folder / "disparity.png") as picture:
        assert picture.mode.startswith("I;16")
        pixels = np.asarray(picture).astype(np.float64)
        scale, offset = (float(picture.info[f"redepth:{key}"]) for key in ("scale", "offset"))
    assert (pixels.min(), pixels.max()) == (0, 65535)
    assert np.abs(pixels * scale + offset - disparity).max() <= scale / 2 * (1 + 1e-6)
    assert record(folder)["png"] == {"scale": scale, "offset": offset, "kind": "disparity"}


def test_the_points_open_elsewhere(batch: tuple[Finished, Path]) -> None:
    cloud = trimesh.load(batch[1] / "coins" / "points.ply")
    points = np.asarray(cloud.vertices)
    assert 1000 < len(points) <= 303 * 384
    assert np.isfinite(points).all()
    assert len(cloud.colors) == len(points)
    assert np.abs(points[:, :2]).max(axis=0) == pytest.approx([384 / 303, 1.0], abs=0.2)


def test_the_record_identifies_the_run(batch: tuple[Finished, Path]) -> None:
    run = record(batch[1] / "coins")
    assert run["seed"] == 3
    assert run["prompt"] == "coins"
    assert run["device"] == "cpu"
    assert run["partial"] is False
    assert run["reason"] == ""
    assert run["photo"] | {"source": ""} == {"source": "", "height": 303, "width": 384}
    assert run["network_size"][0] < run["network_size"][1] <= 96
    assert run["preset"] == resolve(load_preset("smoke", ["output.write=all"])).model_dump()
    assert run["versions"]["torch"] == torch.__version__
    assert run["versions"]["redepth"] == __version__
    assert {"python", "numpy", "transformers", "diffusers", "pillow"} <= set(run["versions"])
    assert run["timings"]["optimise_seconds"] > 0
    assert run["timings"]["load_seconds"] > 0
    assert set(run["losses"]) == {"prior", "smoothness", "total"}
    assert {len(losses) for losses in run["losses"]["total"]} == {3}
    assert run["members_done"] == len(run["losses"]["total"]) == 2
    assert run["output"]["predicts"] == "disparity"
    assert "larger is nearer" in run["output"]["meaning"]
    assert run["depth_model"]["checkpoint"] == "embedded:relief-depth"
    assert run["prior"]["checkpoint"] == "embedded:relief-relighting-prior"
    assert "metrics" not in run


def test_a_seed_decides_every_byte(
    batch: tuple[Finished, Path], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    first = (batch[1] / "coins" / "disparity.npy").read_bytes()
    for seed in ("3", "4"):
        done = call(
            "refine",
            real_photos["coins"],
            *SMOKE,
            "--seed",
            seed,
            "--write",
            "map, initial",
            "--out",
            tmp_path / seed,
        )
        assert done.code == 0, done
    # The first run was in another process, after another photo had failed.
    assert (tmp_path / "3" / "coins" / "disparity.npy").read_bytes() == first
    assert (tmp_path / "4" / "coins" / "disparity.npy").read_bytes() != first
    initial = [(tmp_path / seed / "coins" / "initial.npy").read_bytes() for seed in ("3", "4")]
    assert initial[0] == initial[1]


# --- one bad thing at a time ----------------------------------------------------------------------


@pytest.mark.usefixtures("never_loads")
def test_a_lone_bad_input_is_one_line(bad_files: dict[str, Path], tmp_path: Path) -> None:
    for path in bad_files.values():
        one_line(call("refine", path, *SMOKE, "--out", tmp_path / "out"), str(path))
    one_line(call("refine", tmp_path / "*.jpg", *SMOKE), str(tmp_path / "*.jpg"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "smok"), ("unknown preset 'smok'", "'smoke'", "embedded", "re-depth-anything")),
        (("--preset", "nowhere.yaml"), ("nowhere.yaml", "does not exist")),
        (("-s", "optim.membrs=3"), ("'optim.membrs'", "did you mean 'members'", "valid: ", "steps")),
        (("-s", "optin.members=3"), ("'optin'", "did you mean 'optim'")),
        (("-s", "optim.members=many"), ("optim.members", "integer", "'many'")),
        (("-s", "optim.members=0"), ("optim.members", "greater than or equal to 1", "got 0")),
        (("-s", "optim.learning_rates.embeddings=2"), ("optim.learning_rates.embeddings", "equal to 1")),
        (("-s", "optim.parameterization=all"), ("optim.parameterization", "'embeddings+decoder'", "'all'")),
        (("-s", "prior.guidance_scal=3"), ("'prior.guidance_scal'", "did you mean 'guidance_scale'")),
        (("-s", "prior.weighting=sd"), ("prior.weighting", "'uniform'", "'x0'", "got 'sd'")),
        (("-s", "prior.t_min=0.9", "-s", "prior.t_max=0.2"), ("t_min 0.9", "t_max 0.2")),
        (("-s", "renderer.lights=0"), ("renderer.lights", "greater than or equal to 1", "got 0")),
        (("-s", "renderer.name=blin-fong"), ("unknown renderer", "did you mean 'blinn-phong'")),
        (("-s", "depth_model.name=midas"), ("unknown depth_model 'midas'", "depth-anything")),
        (("-s", "optim.objectives.smoothnes.weight=1"), ("'smoothnes'", "did you mean 'smoothness'")),
        (("-s", "optim.members"), ("'optim.members'", "key.path=value")),
        (("-s", "prior.checkpoint=embedded:relief-priors"), ("relief-priors", "relief-relighting-prior")),
        (("-s", "prior.checkpoint=./nowhere"), ("./nowhere", "no such folder")),
        (("--out", __file__), ("--out", "not a folder")),
        (("--mask", __file__), ("--mask", "--gt")),
        (("--gt", "nowhere.npy"), ("nowhere.npy", "no such file")),
        (("--gt", "nowhere.npy" * 100), ("nowhere.npy", "cannot be opened", "too long")),
    ],
)
def test_a_wrong_setting_is_one_line(
    arguments: tuple[str, ...], words: tuple[str, ...], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    usual = {"--preset": "smoke", "--device": "cpu", "--out": str(tmp_path / "out")}
    others = [part for option in usual.items() if option[0] not in arguments for part in option]
    one_line(call("refine", real_photos["coins"], *others, *arguments), *words)
    assert not (tmp_path / "out").exists()


def test_the_default_preset_offline_says_what_to_do_before_weights_are_read(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever runs this may have the weights; a run with them would take hours.
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)

    def too_late(*_: Any) -> None:
        raise AssertionError("weights are read before the missing ones are reported")

    monkeypatch.setattr(loading, "from_pretrained", too_late)
    done = call("refine", real_photos["coins"], "--out", tmp_path / "out")
    one_line(done, "depth-anything/Depth-Anything-V2-Small-hf", "--preset embedded", "hf download")


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_costs_no_other_photo(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "coins").write_text("a file where the folder of the results should be")
    done = call("refine", real_photos["coins"], real_photos["moon"], *SMOKE, "--out", tmp_path)
    assert done.code == 2
    lines = [line for line in done.complaints if str(real_photos["coins"]) in line]
    assert len(lines) == 1, done.err
    assert str(tmp_path / "coins") in lines[0]
    assert {p.name for p in (tmp_path / "moon").iterdir()} == RESULT_FILES


# --- ground truth ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_ground_truth_gives_metrics_and_one_member_no_spread(
    real_photos: dict[str, Path], motorcycle_disparity: Path, tmp_path: Path
) -> None:
    mask = np.zeros((500, 741), np.uint8)
    mask[100:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    truth = ("--gt", motorcycle_disparity, "--gt-kind", "disparity", "--mask", tmp_path / "mask.png")
    settings = (*SMOKE, "--set", "optim.members=1", "-s", "optim.steps=2", "--write", "all")
    done = call("refine", real_photos["motorcycle_left"], *settings, *truth, "--out", tmp_path / "out")
    assert done.code == 0, done
    folder = tmp_path / "out" / "motorcycle_left"
    run = record(folder)
    assert run["members_done"] == 1
    assert run["steps_done"] == [2]
    assert run["preset"]["optim"]["members"] == 1
    assert not np.load(folder / "uncertainty.npy").any()

    disparity = np.load(motorcycle_disparity)["arr_0"]
    known = np.isfinite(disparity) & (mask > 0)
    depth = torch.from_numpy(np.where(known, 1 / disparity, 0)).double()
    assert set(run["metrics"]) == {"protocol", "initial", "refined"}
    assert run["metrics"]["protocol"] == load_protocol("photo").summary()
    for name, file in (("initial", "initial.npy"), ("refined", "disparity.npy")):
        expected = metrics.evaluate(torch.from_numpy(np.load(folder / file)), depth).metrics
        found = run["metrics"][name]
        assert set(found) == {*expected, "clipped_share"}
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, rel=1e-6), (name, key)
    before, after = (run["metrics"][name]["silog"] for name in ("initial", "refined"))
    assert before != after
    assert f"{before:.2f} -> {after:.2f}" in done.out
    assert "SI-log, protocol photo" in done.out
    assert "protocol photo: aligned by affine-disparity-then-depth, at the truth's size; " in done.out


def test_a_photo_and_a_benchmark_give_one_number_under_one_protocol(
    real_photos: dict[str, Path], motorcycle_disparity: Path, tmp_path: Path
) -> None:
    settings = (*SMOKE[:2], "--set", "optim.members=1", "--set", "optim.steps=1", "--device", "cpu")
    truth = ("--gt", motorcycle_disparity, "--gt-kind", "disparity", "--gt-offset", "31.086")
    one = ("refine", real_photos["motorcycle_left"], *settings, *truth, "--protocol", "motorcycle")
    done = call(*one, "--out", tmp_path / "one")
    assert done.code == 0, done
    assert "SI-log, protocol motorcycle" in done.out
    bench = call("bench", "motorcycle", *settings, "--out", tmp_path / "bench")
    assert bench.code == 0, bench
    found = record(tmp_path / "one" / "motorcycle_left")["metrics"]
    (row,) = map(json.loads, (tmp_path / "bench" / "rows.jsonl").read_text().splitlines())
    assert found["protocol"]["name"] == row["initial"]["protocol"] == "motorcycle"
    assert load_protocol("motorcycle").line in done.out
    assert load_protocol("motorcycle").line in bench.out
    for side in ("initial", "refined"):
        # These two are in metres, which a disparity does not have.
        for name in set(row[side]["metrics"]) - {"rmse", "sq_rel"}:
            value = row[side]["metrics"][name]
            assert found[side][name] == pytest.approx(value, rel=1e-4), (side, name)


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--protocol", "motorcycl"), ("unknown protocol 'motorcycl'", "did you mean 'motorcycle'")),
        (("--protocol", "kitti-eigen"), ("crops a photo before it is refined", "redepth bench")),
        (("--gt-offset", "31"), ("--gt-offset is added to disparity", "--gt-kind disparity")),
    ],
)
def test_a_protocol_that_cannot_measure_a_photo_is_refused(
    options: tuple[str, ...],
    words: tuple[str, ...],
    real_photos: dict[str, Path],
    motorcycle_disparity: Path,
    tmp_path: Path,
) -> None:
    command = ("refine", real_photos["motorcycle_left"], *SMOKE, "--gt", motorcycle_disparity)
    one_line(call(*command, *options, "--out", tmp_path), *words)


@pytest.mark.usefixtures("never_loads")
def test_a_protocol_needs_ground_truth(real_photos: dict[str, Path], tmp_path: Path) -> None:
    command = ("refine", real_photos["coins"], *SMOKE, "--protocol", "folder", "--out", tmp_path)
    one_line(call(*command), "--protocol", "give --gt too")


@pytest.mark.usefixtures("never_loads")
def test_ground_truth_that_does_not_fit_is_refused_before_the_weights_load(
    real_photos: dict[str, Path], motorcycle_disparity: Path, tmp_path: Path
) -> None:
    coins, moto = real_photos["coins"], real_photos["motorcycle_left"]
    done = call("refine", coins, *SMOKE, "--gt", motorcycle_disparity)
    one_line(done, str(coins), "741 x 500", "384 x 303", "one size")
    done = call("refine", moto, *SMOKE, "--gt", motorcycle_disparity, "--mask", coins)
    one_line(done, str(moto), "the mask is 384 x 303", "741 x 500")
    np.save(tmp_path / "unknown.npy", np.zeros((303, 384)))
    one_line(call("refine", coins, *SMOKE, "--gt", tmp_path / "unknown.npy"), str(coins), "no known depth")
    np.save(tmp_path / "flat.npy", np.ones((303, 384)))
    one_line(call("refine", coins, *SMOKE, "--gt", tmp_path / "flat.npy"), str(coins), "constant")
    done = call("refine", coins, moto, *SMOKE, "--gt", motorcycle_disparity)
    one_line(done, "--gt belongs to one photo, 2 were given")
    np.save(tmp_path / "large.npy", np.ones((400, 400)))
    for role in (
        ("--gt", "large.npy"),
        ("--gt", "flat.npy", "--mask", "large.npy"),
        ("--sky-mask", "large.npy"),
    ):
        files = [tmp_path / word if word.endswith(".npy") else word for word in role]
        done = call("refine", coins, *SMOKE, *files, "--max-pixels", "120000")
        one_line(done, "large.npy: 400 x 400 is 0.2 megapixels", "--max-pixels 160000")


# --- the sky, and failure signatures --------------------------------------------------------------


def test_a_sky_mask_is_used_and_what_is_flagged_is_a_line(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    """One mask is given and one says that there is none; a threshold of 0 flags whatever can be measured."""
    masks = tmp_path / "masks"
    masks.mkdir()
    sky = np.zeros((303, 384), np.uint8)
    sky[:150] = 255
    Image.fromarray(sky).save(masks / "coins.png")
    np.save(masks / "moon.npy", np.zeros((512, 512), bool))
    photos = [real_photos[name] for name in ("coins", "moon")]
    settings = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "optim.objectives.sky.weight=1")
    settings += ("-s", "diagnostics.thresholds.sky_geometry=0")
    done = call("refine", *photos, *SMOKE, *settings, "--sky-mask", masks, "--out", tmp_path / "out")
    assert done.code == 0, done
    with_sky, without = (record(tmp_path / "out" / name) for name in ("coins", "moon"))
    assert with_sky["sky_mask"] == without["sky_mask"] == "given"
    assert with_sky["diagnostics"]["sky_geometry"]["parts"]["share"] == pytest.approx(0.5, abs=0.02)
    assert with_sky["diagnostics"]["sky_geometry"]["flagged"]
    assert with_sky["losses"]["sky"][0][0] > 0
    assert without["diagnostics"]["sky_geometry"]["value"] is None
    assert without["losses"]["sky"] == [[0.0]]
    assert len(done.complaints) == 1
    line = done.complaints[0]
    assert re.fullmatch(
        r"warning: coins\.png: sky geometry [0-9.]+, above 0: set optim\.objectives\.sky\.weight=1 "
        r"\(not calibrated for this preset\)",
        line,
    )


@pytest.mark.usefixtures("never_loads")
def test_a_sky_mask_that_does_not_fit_is_refused_before_the_weights_load(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    coins, moon = real_photos["coins"], real_photos["moon"]
    one_line(call("refine", coins, *SMOKE, "--sky-mask", moon), str(coins), "512 x 512", "384 x 303")
    done = call("refine", coins, moon, *SMOKE, "--sky-mask", moon)
    one_line(done, str(moon), "--sky-mask belongs to one photo", "2 were given", "folder")
    one_line(call("refine", coins, *SMOKE, "--sky-mask", tmp_path / "no.png"), "no.png", "no such file")
    done = call("refine", coins, moon, *SMOKE, "--sky-mask", tmp_path)
    assert done.code == 2
    assert [str(path) in line for path, line in zip((coins, moon), done.complaints, strict=False)] == [
        True
    ] * 2
    assert all("--sky-mask" in line and "this photo's name" in line for line in done.complaints[:2])


# --- runs that end early --------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_done(real_photos: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "redepth", "refine", real_photos["coins"], real_photos["moon"]]
    command += [*SMOKE, "--out", tmp_path / "out", "-s", "optim.steps=100000"]
    # Progress is drawn on a terminal only.
    pty = pytest.importorskip("pty")
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        list(map(str, command)),
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        # A suite that was started in the background has Ctrl-C ignored, and its children would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(stderr)
    shown = b""
    deadline = time.monotonic() + 120
    try:
        while not re.search(rb"step \d+/100000", shown):
            shown += _read(terminal)
            assert process.poll() is None, shown.decode()
            assert time.monotonic() < deadline, shown.decode()
        process.send_signal(signal.SIGINT)
        while chunk := _read(terminal):
            shown += chunk
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 130
    text = shown.decode()
    assert "Traceback" not in text
    assert "marked partial" in text
    assert "(partial)" in out.decode()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["coins"]
    folder = tmp_path / "out" / "coins"
    assert {p.name for p in folder.iterdir()} == RESULT_FILES
    run = record(folder)
    assert run["partial"] is True
    assert run["reason"] == "interrupted"
    assert 1 <= run["steps_done"][0] < 100_000
    assert len(run["losses"]["total"][0]) == run["steps_done"][0]
    assert np.isfinite(np.load(folder / "disparity.npy")).all()


def _read(terminal: int) -> bytes:
    """Read what the terminal shows; nothing once the process has closed it."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_ctrl_c_before_the_first_step_keeps_the_photos_before(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = Pipeline.refine

    def interrupted(self: Pipeline, photo: DecodedPhoto, **options: Any) -> Refinement:
        if photo.source is not None and photo.source.stem == "moon":
            raise KeyboardInterrupt
        return refine(self, photo, **options)

    monkeypatch.setattr(Pipeline, "refine", interrupted)
    photos = [real_photos[name] for name in ("coins", "moon", "brick")]
    done = call("refine", *photos, *SMOKE, "-s", "optim.steps=1", "--out", tmp_path)
    assert done.code == 130
    assert [line for line in done.complaints if "interrupted" in line and "moon.png" in line]
    assert str(tmp_path / "coins") in done.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["coins"]


@pytest.mark.slow
def test_a_member_that_diverges_ends_its_own_photo_alone(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Breaking(BlinnPhong):
        def __call__(self, *args: Any) -> torch.Tensor:
            calls.append(1)
            return super().__call__(*args) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setitem(RENDERERS._entries, "breaking", Entry("breaking", Breaking))
    settings = ("-s", "renderer.name=breaking", "-s", "optim.steps=2")
    done = call("refine", real_photos["coins"], real_photos["moon"], *SMOKE, *settings, "--out", tmp_path)
    assert done.code == 2
    coins, moon = record(tmp_path / "coins"), record(tmp_path / "moon")
    assert coins["partial"] is True
    assert "not finite at step 2" in coins["reason"]
    assert coins["steps_done"] == [1, 1]
    assert moon["partial"] is False
    lines = [line for line in done.complaints if str(real_photos["coins"]) in line]
    assert len(lines) == 1
    assert "not finite" in lines[0]
    assert done.complaints[-1] == "error: 1 of 2 inputs failed"


def test_a_failed_photo_shows_its_traceback_to_who_debugs(
    real_photos: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "coins").write_text("a file where the folder of the results should be")
    done = call("--verbose", "refine", real_photos["coins"], *SMOKE, "-s", "optim.steps=1", "--out", tmp_path)
    assert done.code == 2
    assert len([line for line in done.complaints if line.startswith("error: ")]) == 1
    (failure,) = [r for r in caplog.records if r.name.startswith("redepth.batch")]
    assert failure.exc_info is not None
    assert failure.exc_info[0] is InputError
    caplog.clear()
    assert call("refine", real_photos["coins"], *SMOKE, "-s", "optim.steps=1", "--out", tmp_path).code == 2
    assert not [r for r in caplog.records if r.name.startswith("redepth.batch")]


# --- how often anything is done -------------------------------------------------------------------


def test_each_photo_is_decoded_once_and_the_preset_resolved_and_built_once(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            counts[f"{name} {args[0].name}" if isinstance(args[0], Path) else name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    count(io, "load_photo")
    count(io, "load_mask")
    count(config, "load_preset")
    count(components, "_check_together")
    count(components, "build")
    np.save(tmp_path / "coins.npy", np.zeros((303, 384), bool))
    np.save(tmp_path / "moon.npy", np.zeros((512, 512), bool))
    photos = (real_photos["coins"], real_photos["moon"])
    settings = ("-s", "optim.steps=1", "--caption", "blip", "-s", f"prompt.checkpoint={tiny('blip')}")
    done = call("refine", *photos, *SMOKE, *settings, "--sky-mask", tmp_path, "--out", tmp_path / "out")
    assert done.code == 0, done
    masks = {"load_mask coins.npy": 1, "load_mask moon.npy": 1}
    presets = {"load_preset": 1, "_check_together": 1, "build": 1}
    assert counts == {"load_photo coins.png": 1, "load_photo moon.png": 1, **masks, **presets}


# --- limits of time and memory --------------------------------------------------------------------


def test_a_time_limit_is_no_failure_and_what_it_came_to_is_on_record(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 100_000, 10))
    defaults = {**run_within_limits.__kwdefaults__, "clock": now.__next__}
    monkeypatch.setattr(run_within_limits, "__kwdefaults__", defaults)
    done = call("refine", real_photos["coins"], *SMOKE, "--budget", "1m", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "(partial)" not in done.out
    run = record(tmp_path / "coins")
    assert run["preset"]["optim"]["budget"] == "1m"
    assert run["fit"]["budget"] == "1m"
    assert run["members_done"] == run["fit"]["members"] == 1
    assert run["steps_done"] == [run["fit"]["steps"]]
    assert run["partial"] is False


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--budget", "soon"), ("optim.budget", "such as 60s or 2m", "'soon'")),
        (("--vram", "8"), ("optim.vram", "such as 8GB", "'8'")),
        (("--vram", "8GB"), ("optim.vram=8GB", "CUDA GPU", "cpu", "optim.members_per_batch")),
    ],
)
def test_a_limit_that_cannot_be_kept_is_one_line_before_anything_is_loaded(
    real_photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    build = components._built

    def renderer_alone(registry: Registry, component: config.Component) -> Any:
        """Build the renderer, which reads the albedo of the photo, and no network."""
        assert registry is RENDERERS
        return build(registry, component)

    monkeypatch.setattr(components, "_built", renderer_alone)
    one_line(call("refine", real_photos["coins"], *SMOKE, *given, "--out", tmp_path), *words)
