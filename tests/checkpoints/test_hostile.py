"""Checkpoints from anywhere: safetensors and JSON are read, nothing else, and every failure is one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redepth.checkpoints import locate, resolve_name
from redepth.checkpoints.files import shards
from redepth.checkpoints.guard import check_folder, read_object
from redepth.depth_models.backbone import Preprocessing
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import RedepthError, WeightsError
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.pixel_unet import Layout
from redepth.priors.schedule import Schedule
from redepth.priors.stable_diffusion import StableDiffusion
from tests.support.checkpoints import SD, tiny
from tests.support.command import call, one_line
from tests.support.helpers import CPU, GOLDEN, make_refiner, photo

TINY = GOLDEN / "tiny-random-depth-anything"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def copied(source: Path, to: Path) -> Path:
    shutil.copytree(source, to)
    return to


def changed(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def said(load: Callable[[], Any]) -> str:
    """What a load is refused with: always a short line."""
    with pytest.raises(RedepthError) as error:
        load()
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "x.pt", "model.safetensors.bin", "x.ckpt", "x.gguf", "x"]
)
@pytest.mark.parametrize("via", ["index", "entry"])
def test_a_pickle_that_a_checkpoint_names_is_never_read(via: str, name: str, tmp_path: Path) -> None:
    folder, mark = copied(TINY, tmp_path / "c"), tmp_path / "ran"
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    if via == "index":
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    else:
        changed(folder / "config.json", transformers_weights=name)
    message = said(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))
    assert (name in message) if via == "index" else "transformers_weights" in message
    assert "safetensors" in message
    assert not mark.exists()


def test_an_index_of_a_part_of_a_pipeline_is_checked_too(tmp_path: Path) -> None:
    folder, mark = copied(SD, tmp_path / "c"), tmp_path / "ran"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.with_name("x.bin").write_bytes(pickle.dumps(Bomb(mark)))
    weights.unlink()
    index = weights.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "x.bin"}}))
    assert "'x.bin'" in said(lambda: StableDiffusion(checkpoint=str(folder), size=64).load(CPU))
    assert not mark.exists()


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = copied(TINY, tmp_path / "c")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "adapter" in said(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))


def test_code_in_a_configuration_is_refused(tmp_path: Path) -> None:
    folder = copied(TINY, tmp_path / "c")
    (folder / "mine.py").write_text("raise SystemExit(7)")
    changed(folder / "config.json", auto_map={"AutoModel": "mine.Model"})
    assert "'auto_map'" in said(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))


@pytest.mark.parametrize("library", ["os", "mine", "redepth", 3, ["diffusers"]])
def test_a_pipeline_with_parts_of_other_libraries_is_refused(library: Any, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "P", "unet": [library, "X"]}))
    assert "parts of diffusers and transformers alone" in said(lambda: check_folder(tmp_path))


# --- indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[1, 2]",
        "null",
        "3",
        '"x"',
        "{}",
        '{"weight_map": []}',
        '{"weight_map": "x"}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": null}}',
        '{"weight_map": {"a": ["x.safetensors"]}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/etc/x.safetensors"}}',
        '{"weight_map": {"a": "b/../../x.safetensors"}}',
        '{"weight_map": {"a": "C:x.safetensors"}}',
        '{"weight_map": {"a": "b\\\\x.safetensors"}}',
        '{"weight_map": {"a": "x.safetensors\\u0000.bin"}}',
        '{"weight_map": {"a": "x.bin", "a": "x.safetensors"}}',
        '{"weight_map": {"a": "' + "x" * 10**5 + '"}}',
        '{"weight_map": ' * 2000,
        "[" * 100_000,
        '{"weight_map": {"a": ' + "9" * 10_000 + "}}",
        '{"weight_map": {"a": NaN}}',
        "\x00\x01",
    ],
)
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    index = tmp_path / INDEX
    index.write_text(text)
    assert INDEX in said(lambda: shards(INDEX, index))
    assert INDEX in said(lambda: check_folder(tmp_path))


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 10**5, '{"a": ' * 10**4, '{"a": 1, "a": 2}', "{\xff", "NaN", "9" * 9999]
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_no_json_object_are_refused(name: str, text: str, tmp_path: Path) -> None:
    folder = copied(TINY, tmp_path / "c")
    (folder / name).write_bytes(text.encode("latin-1"))
    assert name in said(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))


def test_settings_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(path) == {"a": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": 3},
        {"model_type": ["depth_anything"]},
        {"model_type": "x" * 10**5},
        {"patch_size": 0},
        {"patch_size": -14},
        {"patch_size": "fourteen"},
        {"patch_size": None},
        {"patch_size": 10**30},
        {"backbone_config": None},
        {"backbone_config": 3},
        {"backbone_config": {"model_type": "x"}},
        {"backbone_config": {"model_type": "dinov2", "patch_size": 0}},
        {"backbone_config": {"model_type": "dinov2", "hidden_size": 10**12}},
        {"backbone_config": {"model_type": "dinov2", "num_attention_heads": 0}},
        {"neck_hidden_sizes": []},
        {"neck_hidden_sizes": "x"},
        {"reassemble_factors": [0, 0, 0, 0]},
        {"fusion_hidden_size": -1},
        {"head_hidden_size": {}},
        {"depth_estimation_type": "x"},
        {"depth_estimation_type": []},
        {"max_depth": "x"},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_values_of_the_wrong_type_or_size_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = copied(TINY, tmp_path / "c")
    changed(folder / "config.json", **changes)

    def first_prediction() -> None:
        refiner = make_refiner()
        refiner.depth_model = DepthAnything(checkpoint=str(folder)).load(CPU)
        refiner.predict(photo())

    message = said(first_prediction)
    assert "patch_size" in message or str(folder) in message or "depth model" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": "x"},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": [0.5, 0.5, "x"]},
        {"image_mean": 0.5},
        {"image_mean": [True, True, True]},
        {"image_std": [0, 1, 1]},
        {"image_std": None},
        {"image_std": [-1, 1, 1]},
        {"size": 0},
        {"size": -3},
        {"size": True},
        {"size": 10**9},
        {"size": {"height": "x", "width": 5}},
        {"size": {"height": None, "width": 5}},
        {"size": {"height": 0, "width": 5}},
        {"size": {"height": 518.5, "width": 518}},
        {"ensure_multiple_of": 10**9},
    ],
    ids=json.dumps,
)
def test_a_preprocessor_of_the_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    assert "preprocessor_config.json" in said(lambda: Preprocessing().updated(changes))


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"size": 0},
        {"size": "32"},
        {"size": 32.0},
        {"size": True},
        {"size": -32},
        {"size": 10**9},
        {"size": 32, "patch": 0},
        {"size": 32, "patch": 5},
        {"size": 32, "patch": None},
        {"size": 32, "relighting": "yes"},
        {"size": 32, "relighting": 1},
        {"size": 32, "words": "room"},
        {"size": 32, "words": [1]},
        {"size": 32, "words": ["Room"]},
        {"size": 32, "words": ["a room"]},
        {"size": 32, "words": ["room", "room"]},
        {"size": 32, "words": ["room"], "relighting": True},
        {"size": 32, "more": 1},
    ],
    ids=json.dumps,
)
def test_a_layout_of_the_wrong_type_is_refused(stored: dict[str, Any], tmp_path: Path) -> None:
    folder = copied(tiny("ddpm"), tmp_path / "c")
    (folder / "redepth.json").write_text(json.dumps(stored))
    assert "redepth.json" in said(lambda: PixelDiffusion(checkpoint=str(folder)).load(CPU))
    with pytest.raises((TypeError, ValueError)):
        Layout(**stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_start": "x"},
        {"beta_start": None},
        {"beta_end": 5.0},
        {"beta_start": -1.0},
        {"beta_schedule": "x"},
        {"beta_schedule": 3},
        {"trained_betas": [1]},
        {"trained_betas": "x"},
        {"prediction_type": "x"},
        {"prediction_type": ["epsilon"]},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": "1000"},
        {"num_train_timesteps": 10**12},
    ],
    ids=json.dumps,
)
def test_a_schedule_of_the_wrong_type_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = copied(tiny("ddpm"), tmp_path / "c")
    changed(folder / "scheduler" / "scheduler_config.json", **changes)
    said(lambda: PixelDiffusion(checkpoint=str(folder)).load(CPU))


def test_betas_that_are_no_noise_levels_are_named() -> None:
    with pytest.raises(WeightsError, match="noise levels"):
        Schedule.from_config({"_class_name": "DDIMScheduler", "beta_end": 5.0})


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("vae", {"scaling_factor": 0}),
        ("vae", {"scaling_factor": "x"}),
        ("vae", {"scaling_factor": None}),
        ("vae", {"shift_factor": "x"}),
        ("vae", {"latent_channels": "x"}),
        ("vae", {"block_out_channels": []}),
        ("unet", {"in_channels": "x"}),
        ("unet", {"in_channels": 0}),
        ("unet", {"block_out_channels": "x"}),
        ("unet", {"cross_attention_dim": -1}),
        ("unet", {"sample_size": {}}),
        ("unet", {"_class_name": 3}),
        ("unet", {"_class_name": ["UNet2DConditionModel"]}),
    ],
    ids=str,
)
def test_a_pipelines_values_of_the_wrong_type_are_refused(
    part: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = copied(SD, tmp_path / "c")
    changed(folder / part / "config.json", **changes)
    prior = StableDiffusion(checkpoint=str(folder), size=64)
    if changes == {"sample_size": {}}:
        prior.load(CPU)  # it is not read
        return
    assert str(folder) in said(lambda: prior.load(CPU))


@pytest.mark.parametrize("size", [0, 7, 8, 100, 2**63 - 1, 10**8])
def test_a_header_of_any_size_is_a_damaged_file(size: int, tmp_path: Path) -> None:
    folder = copied(TINY, tmp_path / "c")
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + b'{"a"' * 3)
    assert "damaged" in said(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "preprocessor_config.json"])
def test_a_pipe_or_a_device_in_place_of_a_file_does_not_hang(name: str, tmp_path: Path) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        folder = copied(TINY, tmp_path / make.__name__.strip("<>"))
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        if name == "preprocessor_config.json":
            DepthAnything(checkpoint=str(folder)).load(CPU)  # as if it were absent
        else:
            assert name in said(lambda where=folder: DepthAnything(checkpoint=str(where)).load(CPU))


# --- names ----------------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    "x/..",
    "../x",
    "a b/c",
    "a/",
    "/a",
    "a//b",
    "a/b/c",
    "a/b@main",
    "a/" + "b" * 300,
    "a" * 300 + "/b",
    "a/b\n",
    "a/b\x1b[31m",
    "a\0/b",
    "a/b:c",
    "a\\b",
    "a/-b",
    "a/b.",
    "a/b..c",
    "a/b--c",
    "a/b.git",
    "é/b",
    "a/b?x=1",
    "http://x/y",
    "~nobody-here/x",
    "embedded:",
    "embedded:..",
    "embedded:../weights",
    "embedded:" + "x" * 300,
    "x" * 10**5,
]
BAD_REVISIONS = [
    "",
    " ",
    "a b",
    "..",
    "../x",
    "a/../b",
    "/a",
    "a//b",
    "a/",
    "a\n",
    "a\x1b[0m",
    "a\0",
    "-x",
    "a?b",
    "a:b",
    "a\\b",
    "a~1",
    "a" * 300,
    "@{1}",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:30])
def test_a_malformed_name_is_refused_before_the_hub_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = said(lambda: resolve_name(name))
    assert message.isprintable()
    said(lambda: locate(name, None, ["config.json"]))
    if name:
        said(lambda: PixelDiffusion(checkpoint=name).ensure_available())
        said(lambda: DepthAnything(checkpoint=name).ensure_available())


@pytest.mark.parametrize("revision", BAD_REVISIONS, ids=repr)
def test_a_malformed_revision_is_refused_before_the_hub_is_asked(revision: str) -> None:
    message = said(lambda: locate("a/b", revision, ["config.json"]))
    assert message.startswith("revision ")
    assert message.isprintable()


@pytest.mark.parametrize("name", ["a/b", "Intel/dpt-large", "a_1/b.c-d", "0/0"])
def test_a_hub_id_is_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_name(name) == name


def test_the_command_line_says_it_in_one_line(tmp_path: Path, real_photos: dict[str, Path]) -> None:
    folder, mark = copied(TINY, tmp_path / "c"), tmp_path / "ran"
    (folder / WEIGHTS).unlink()
    (folder / "x.bin").write_bytes(pickle.dumps(Bomb(mark)))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "x.bin"}}))
    settings = ("--preset", "smoke", "-s", f"depth_model.checkpoint={folder}", "--out", tmp_path / "o")
    one_line(call("refine", real_photos["coins"], *settings), "'x.bin'", "safetensors alone")
    assert not mark.exists()
