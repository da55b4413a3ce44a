"""Maps of other tools: what is read, what it means, what is refused, and the command line's way to it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redepth import io
from redepth.batch import Refined
from redepth.depth_models import REGISTRY
from redepth.depth_models.precomputed import Precomputed
from redepth.errors import ConfigError, InputError
from redepth.ground_truth import GroundTruth
from redepth.ops import panorama
from redepth.pipeline import Pipeline
from tests.support.command import Finished, call
from tests.support.helpers import photo, relative_error
from tests.support.panoramas import box_distance
from tests.support.tiny_depth_models import load, relief


def stored(path: Path, values: np.ndarray[Any, Any]) -> Path:
    """Write a map by its suffix; a PNG holds thousandths."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, depth=values)
    elif path.suffix == ".png":
        Image.fromarray(np.rint(1000 * values).astype(np.uint16)).save(path)
    else:
        import OpenEXR

        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z": values}).write(str(path))
    return path


SUFFIXES = [
    ".npy",
    ".npz",
    ".png",
    pytest.param(
        ".exr", marks=pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="needs OpenEXR")
    ),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_any_kind_gives_its_numbers(suffix: str, tmp_path: Path) -> None:
    path = stored(tmp_path / f"map{suffix}", relief())
    factor = 0.001 if suffix == ".png" else 1.0
    model = load("precomputed", path=str(path), longer_side=64, factor=factor)
    image = model.prepare(photo(48, 64))
    found = model.decode(model.encode(image))
    assert found.shape == (1, 1, 48, 64)
    assert np.abs(found[0, 0].numpy() - relief()).max() <= (0.0006 if suffix == ".png" else 1e-6)


def test_a_png_that_redepth_wrote_carries_its_own_scale(tmp_path: Path) -> None:
    io.save_disparity_png(tmp_path / "map.png", relief())
    model = load("precomputed", path=str(tmp_path / "map.png"), longer_side=64)
    found = model.decode(model.encode(photo(48, 64)))[0, 0].numpy()
    assert np.abs(found - relief()).max() < 1e-4


@pytest.mark.parametrize(
    ("predicts", "expected"),
    [
        ("disparity", ("disparity", "affine")),
        ("depth", ("depth", "affine")),
        ("metric-depth", ("depth", "metric")),
    ],
)
def test_what_it_holds_is_said_by_the_user(predicts: str, expected: tuple[str, str], tmp_path: Path) -> None:
    path = stored(tmp_path / "map.npy", relief())
    model = load("precomputed", path=str(path), predicts=predicts)
    assert (model.predicts, model.invariance) == expected
    assert REGISTRY.check("precomputed", {"predicts": predicts})["predicts"] == predicts


def test_a_map_of_another_resolution_is_resized_and_offset_and_factor_apply(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.npy", relief(192, 256))
    model = load("precomputed", path=str(path), longer_side=64, factor=2.0, offset=0.5)
    found = model.decode(model.encode(photo(48, 64)))
    assert relative_error(found[0, 0], torch.from_numpy(2 * relief() + 0.5)) < 0.02


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (relief(64, 48), {}, "the map is 48 x 64, the photo has the shape of 64 x 48"),
        (np.full((48, 64), np.nan), {}, "holds no finite value"),
        (relief() - 1.5, {}, r"disparity must be 0 or greater, the lowest value is -0\.\d+"),
        (
            relief() - relief().min(),
            {"predicts": "depth"},
            "depth must be greater than 0, the lowest value is 0",
        ),
        (np.full((48, 64), 2.0, dtype=np.float32), {}, r"the map is constant \(2\)"),
        (np.zeros((48, 64, 3), dtype=np.float32), {}, r"give numbers \(H, W\)"),
    ],
)
def test_maps_that_cannot_be_used_are_one_line(
    values: np.ndarray[Any, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "map.npy"
    np.save(path, values)
    model = load("precomputed", path=str(path), longer_side=64, **options)
    with pytest.raises(InputError, match=words) as error:
        model.encode(photo(48, 64))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    # What the message advises helps.
    if "offset" in str(error.value):
        lifted = load("precomputed", path=str(path), longer_side=64, offset=2.0, **options)
        assert float(lifted.encode(photo(48, 64)).constants[0].min()) > 0


def test_missing_and_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs depth_model\.path"):
        Precomputed().ensure_available()
    with pytest.raises(InputError, match="no such file or folder of map; check the path"):
        Precomputed(path=str(tmp_path / "nowhere.npy")).ensure_available()
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(InputError, match=r"words\.png: not a readable image"):
        load("precomputed", path=str(tmp_path / "words.png")).encode(photo(48, 64))


def test_a_folder_holds_one_map_for_each_photo(tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 3.0)):
        stored(tmp_path / f"{name}.npy", factor * relief())
    model = load("precomputed", path=str(tmp_path), longer_side=64)
    found = []
    for name in ("a", "b"):
        model.next_photo(Path("elsewhere") / f"{name}.jpeg")
        found.append(model.encode(photo(48, 64)).constants[0])
    assert torch.allclose(found[1], 3 * found[0])
    with pytest.raises(
        InputError, match=r"c\.jpeg: .* must hold one map of its name, there is no c\.\(npy\|"
    ):
        model.next_photo(Path("c.jpeg"))
    stored(tmp_path / "b.png", relief())
    with pytest.raises(InputError, match=r"there is b\.npy, b\.png"):
        model.next_photo(Path("b.jpeg"))
    with pytest.raises(InputError, match="the photo is not a file, so it has no name"):
        model.next_photo(None)


# --- the whole way ------------------------------------------------------------------------------------


SMOKE = ("--preset", "smoke", "--device", "cpu", "-s", "depth_model.longer_side=96", "-s", "optim.steps=2")


def refused(done: Finished, *words: str) -> None:
    assert done.code == 2, done
    assert len(done.err.splitlines()) == 1, done.err
    for word in words:
        assert word in done.err


def test_metric_depth_from_a_file_comes_out_in_metres(real_photos: dict[str, Path], tmp_path: Path) -> None:
    metres = 0.5 * relief(303, 384)
    path = stored(tmp_path / "coins [1].npy", metres)
    given = ("--depth", path, "--predicts", "metric-depth")
    done = call("refine", real_photos["coins"], *given, *SMOKE, "--write", "all", "--out", tmp_path / "out")
    assert done.code == 0, done
    folder = tmp_path / "out" / "coins"
    initial, refined = np.load(folder / "initial.npy"), np.load(folder / "depth.npy")
    assert np.abs(initial - metres).max() < 0.03
    assert 0 < np.abs(refined - initial).max() < 0.1
    run = json.loads((folder / "run.json").read_text())
    assert run["output"]["meaning"] == "metric depth in metres; larger is farther"
    assert run["output"]["unit"] == pytest.approx(7 / 1.920982 * np.quantile(metres, 0.25), rel=0.01)
    assert run["preset"]["depth_model"]["predicts"] == "metric-depth"
    assert run["preset"]["optim"]["parameterization"] == "low-rank"
    assert run["depth_model"]["path"] == str(path.resolve())
    assert run["points"] > 0
    assert {"depth.png", "normals.png", "comparison.png", "points.ply"} <= {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_a_folder_of_maps_serves_several_photos(real_photos: dict[str, Path], tmp_path: Path) -> None:
    stored(tmp_path / "coins.npy", relief(303, 384))
    stored(tmp_path / "moon.npy", relief(512, 512))
    photos = [real_photos[name] for name in ("coins", "moon", "brick")]
    given = ("--depth", tmp_path, "--predicts", "disparity", "-s", "optim.parameterization=depth")
    done = call("refine", *photos, *given, *SMOKE, "--out", tmp_path / "out")
    assert done.code == 2
    assert [line for line in done.complaints if "brick.png" in line and "must hold one map" in line]
    assert done.complaints[-1] == "error: 1 of 3 inputs failed"
    for name, size in (("coins", (303, 384)), ("moon", (512, 512))):
        assert np.load(tmp_path / "out" / name / "disparity.npy").shape == size
        run = json.loads((tmp_path / "out" / name / "run.json").read_text())
        assert run["preset"]["optim"]["parameterization"] == "depth"


def test_wrong_uses_of_the_command_are_one_line(real_photos: dict[str, Path], tmp_path: Path) -> None:
    coins, moon = real_photos["coins"], real_photos["moon"]
    path = stored(tmp_path / "coins.npy", relief())
    refused(call("refine", coins, "--depth", path), "--depth", "--predicts disparity|depth|metric-depth")
    refused(call("refine", coins, "--predicts", "depth"), "go together")
    both = ("--depth", path, "--predicts", "depth")
    refused(call("refine", coins, moon, *both), "belongs to one photo, 2 were given", "folder")
    gone = ("--depth", tmp_path / "gone.npy", "--predicts", "depth")
    refused(call("refine", coins, *SMOKE, *gone), "gone.npy", "no such file")
    learned = ("-s", "optim.parameterization=embeddings")
    refused(call("refine", coins, *SMOKE, *both, *learned), "Precomputed", "depth, low-rank")


def test_arrays_have_no_name_but_one_file_serves_them(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.npy", relief())
    change = ["depth_model.name=precomputed", "optim.parameterization=low-rank", "optim.steps=1"]
    change += ["depth_model.longer_side=64", f"depth_model.path={path}"]
    pixels = photo(48, 64)[0].permute(1, 2, 0).numpy()
    result = Pipeline("smoke", overrides=change, device="cpu").refine(pixels)
    assert np.abs(result.initial - relief()).max() < 1e-5
    with pytest.raises(ConfigError, match=r"depth_model\.predicts"):
        Pipeline("smoke", overrides=[*change, "depth_model.predicts=metres"])


@pytest.mark.parametrize("name", ["map.npy", "map.png"])
def test_holes_of_a_map_are_unknown_in_the_result_and_the_rest_is_as_without(
    name: str, tmp_path: Path
) -> None:
    whole = relief()
    holed = whole.copy()
    holed[:10], holed[30:33, 40:50] = np.inf, np.nan
    holes = ~np.isfinite(holed)
    path = tmp_path / name
    if name == "map.npy":
        np.save(path, holed)
    else:
        io.save_disparity_png(path, np.where(holes, np.nan, holed))
    change = ["depth_model.name=precomputed", "optim.parameterization=low-rank", "optim.steps=2"]
    change += ["output.write=all"]
    change += ["depth_model.longer_side=64", f"depth_model.path={path}", "depth_model.predicts=metric-depth"]
    pixels = photo(48, 64)[0].permute(1, 2, 0).numpy()
    truth = np.where(holes, 1e6, whole).astype(np.float32)
    pipeline = Pipeline("smoke", overrides=change, device="cpu")
    result = pipeline.refine(pixels, ground_truth=GroundTruth(truth))
    for array in (result.initial, result.refined, result.uncertainty, result.depth):
        np.testing.assert_array_equal(np.isnan(array), holes)
    for normals in (result.normals_before, result.normals_after):
        np.testing.assert_array_equal(np.isnan(normals).any(axis=-1), holes)
    assert np.abs(result.initial - whole)[~holes].max() < 1e-3
    assert bool(torch.isfinite(result.outcome.members).all())
    # A truth of a million in the holes would show.
    assert result.evaluations["initial"].metrics["abs_rel"] < 1e-3
    assert np.isfinite(result.turn)
    folder = result.save(tmp_path / "out")
    np.testing.assert_array_equal(np.isnan(np.load(folder / "depth.npy")), holes)
    np.testing.assert_array_equal(np.isnan(io.load_disparity_png(folder / "depth.png")), holes)
    normals = np.asarray(Image.open(folder / "normals.png"))
    assert (normals[:9] == 160).all()
    assert not (normals[~holes] == 160).all(axis=-1).any()
    run = json.loads((folder / "run.json").read_text())
    assert run["unknown"]["pixels"] == int(holes.sum())
    assert 0 < run["points"] <= int((~holes).sum())
    summary = Refined.of(result)
    assert 0 <= summary.change < 1
    assert summary.silog is not None


def test_the_limit_of_pixels_reaches_the_map(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.npy", relief())
    change = ["depth_model.name=precomputed", "optim.parameterization=low-rank", "optim.steps=1"]
    change += ["depth_model.longer_side=64", f"depth_model.path={path}"]
    pixels = photo(48, 64)[0].permute(1, 2, 0).numpy()
    pipeline = Pipeline("smoke", overrides=change, device="cpu")
    with pytest.raises(InputError, match=r"map\.npy: 64 x 48 .* --max-pixels 3072"):
        pipeline.refine(pixels, max_pixels=3071)


def test_a_file_or_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    for name in ("x" * 300, "~nobody-of-this-name/a.npy", "a\0b"):
        with pytest.raises(InputError) as error:
            Precomputed(path=name).ensure_available()
        assert "\n" not in str(error.value)
    model = Precomputed(path=str(tmp_path))
    with pytest.raises(InputError, match="must hold one map of its name"):
        model.next_photo(Path("x" * 255 + ".jpg"))


def test_the_map_of_a_panorama_goes_on_as_its_photo_does(tmp_path: Path) -> None:
    distance = box_distance(32, 64)
    path = stored(tmp_path / "map.npy", distance[0, 0].float().numpy())
    model = load("precomputed", path=str(path), predicts="metric-depth", longer_side=80)
    model.go_around(8 / 64)
    image = model.prepare(panorama.extend(photo(32, 64), 8))
    found = model.decode(model.encode(image))
    assert torch.allclose(found, panorama.extend(distance, 8).float())
    model.go_around(0.0)
    assert model.decode(model.encode(model.prepare(photo(32, 64)))).shape == (1, 1, 40, 80)
