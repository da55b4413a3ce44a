from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import redepth
from redepth.depth_models import REGISTRY
from redepth.depth_models.moge import MoGe
from redepth.errors import ConfigError, MissingDependencyError, WeightsError
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.optim.parameterizations import Parameterization
from tests.depth_models.test_backbones import needs_moge
from tests.support import tiny_depth_models as tiny
from tests.support.command import call
from tests.support.helpers import photo, relative_error

EXACT = {"apply_mask": False, "use_fp16": False}
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def stored(folder: Path, version: int = 2, **changes: Any) -> Path:
    return tiny.save(tiny.moge(version, **changes), folder)


def load(folder: Path, version: int = 2, **options: Any) -> Any:
    return tiny.load(f"moge-{version}", checkpoint=str(folder), **options)


def depth(model: Any, image: Tensor) -> Tensor:
    with torch.no_grad():
        raw: Tensor = model.decode(model.encode(image))
    return raw


# --- the package's own answers ----------------------------------------------------------------------------


@needs_moge
@VERSIONS
@pytest.mark.parametrize("degrees", [None, 40.0, 100.0])
def test_depth_and_camera_are_those_of_the_packages_infer(
    version: int, degrees: float | None, tmp_path: Path
) -> None:
    model = load(stored(tmp_path, version), version, longer_side=56)
    image = model.prepare(photo(85, 111))
    assert image.shape == (1, 3, 42, 56)
    expected = tiny.moge(version).infer(image, num_tokens=12, fov_x=degrees, **EXACT)
    if degrees is not None:
        model.next_camera(Camera(field_of_view=degrees))
    found = depth(model, image)
    assert float(expected["depth"].min()) > 0
    assert relative_error(found[:, 0], expected["depth"]) < 1e-5
    estimate = tiny.moge(version).infer(image, num_tokens=12, **EXACT)["intrinsics"][0]
    camera = model.predicted_camera
    assert camera is not None
    fx, fy, cx, cy = camera.normalized_intrinsics(42, 56)
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    assert relative_error(matrix, estimate) < 1e-5
    # Given as intrinsics, the camera is the same one.
    if degrees is not None:
        model.next_camera(Camera(field_of_view=degrees).of_picture(*image.shape[-2:]))
        assert relative_error(depth(model, image), found) < 1e-6
        model.next_camera(ORTHOGRAPHIC)
        assert relative_error(depth(model, image), found) > 1e-2


@needs_moge
@pytest.mark.parametrize(("level", "tokens"), [(9, 20), (4, 15), (0, 12)])
def test_the_network_gets_the_pixels_that_the_package_gives_it(
    level: int, tokens: int, tmp_path: Path
) -> None:
    model, library = load(stored(tmp_path), resolution_level=level), tiny.moge()
    seen: list[Tensor] = []

    def look(_module: Any, inputs: Any) -> None:
        seen.append(inputs[0])

    for size in ((90, 131), (150, 101)):
        picture = photo(*size)
        seen.clear()
        for network in (library, model._model):
            handle = network.encoder.backbone.patch_embed.register_forward_pre_hook(look)
            if network is library:
                network.infer(picture, resolution_level=level, **EXACT)
            else:
                depth(model, model.prepare(picture))
            handle.remove()
        expected, *found = seen
        assert abs(expected.shape[-2] * expected.shape[-1] / 196 - tokens) < 0.25 * tokens
        for pixels in found:
            assert pixels.shape == expected.shape
            assert relative_error(pixels, expected) < 1e-5


@needs_moge
def test_moge_1_gets_whole_tokens_of_the_photo(tmp_path: Path) -> None:
    model = load(stored(tmp_path, 1), 1)
    library, seen = tiny.moge(1), []
    library.get_submodule("backbone.patch_embed").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for size in ((90, 131), (150, 101)):
        library.infer(photo(*size), **EXACT)
        assert model.prepare(photo(*size)).shape == seen[-1].shape


@needs_moge
@pytest.mark.parametrize("remap", ["linear", "sinh", "exp", "sinh_exp"])
def test_every_form_of_the_point_map_is_known(remap: str, tmp_path: Path) -> None:
    library = tiny.moge(remap_output=remap)
    with torch.no_grad():
        library.get_parameter("points_head.output_blocks.4.bias")[2] += 2.0
    model, image = load(tiny.save(library, tmp_path), longer_side=56), photo(42, 56)
    expected = library.infer(image, num_tokens=12, **EXACT)["depth"]
    assert float((expected > 1e-4).float().mean()) > 0.9
    assert relative_error(depth(model, image)[:, 0], expected.clamp(min=0)) < 1e-3


# --- constants of a photo ---------------------------------------------------------------------------------


@needs_moge
def test_shift_and_scale_stay_those_of_the_frozen_network(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    model, image = load(folder, longer_side=56), photo(42, 56)
    with torch.no_grad():
        features = model.encode(image)
        changed = {name: 0.9 * values for name, values in model.encoder_parameters().items()}
        other = model.encode(image, changed)
        assert relative_error(other.maps[0], features.maps[0]) > 1e-2
        for now, before in zip(other.constants, features.constants, strict=True):
            assert torch.equal(now, before)
        # Also for a photo that the frozen network has not seen.
        fresh = load(folder, longer_side=56).encode(image, changed)
        for now, before in zip(fresh.constants, features.constants, strict=True):
            assert torch.equal(now, before)
        # Another photo has others.
        assert not torch.equal(model.encode(photo(42, 56, seed=4)).constants[0], features.constants[0])


@needs_moge
@VERSIONS
def test_gradients_of_embeddings_and_decoder_are_those_of_the_depth(version: int, tmp_path: Path) -> None:
    """Of a decoder with replaced weights too, which the package would recompute with its own."""
    model, image = load(stored(tmp_path, version), version, longer_side=56), photo(42, 56)
    model._model.double()
    with torch.no_grad():
        features = model.encode(image.double())
        initial = model.decode(features)
    state = Parameterization("embeddings+decoder", model, image.double(), features, initial, 2)
    groups = state.groups()
    learned = [p for name in ("embeddings", "decoder") for p in groups[name]]
    with torch.no_grad():
        for p in learned:
            p.mul_(1.01)
    direction = torch.randn(initial.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value() -> Tensor:
        return (direction * state.raw()).sum()

    loss = value()
    gradients = torch.autograd.grad(loss, learned, allow_unused=True)
    steps = [torch.zeros_like(p) if g is None else g for p, g in zip(learned, gradients, strict=True)]
    slope = sum(float((g**2).sum()) for g in steps)
    epsilon = 1e-7 / slope**0.5
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, g in zip(learned, steps, strict=True):
                p.add_(g, alpha=sign * epsilon)
            ends.append(float(value()))
    assert (ends[0] - ends[1]) / (2 * epsilon) == pytest.approx(slope, rel=1e-3)


@needs_moge
def test_a_photo_without_a_surface_has_no_camera_and_no_metres(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, image = load(stored(tmp_path), longer_side=56), photo(42, 56)
    bias = model._model.mask_head.output_blocks[4].bias
    bias.sub_(1e3)
    with caplog.at_level(logging.WARNING):
        depth(model, image)
    assert "finds too little surface" in caplog.text
    assert (model.predicted_camera, model.invariance) == (None, "affine")
    bias.add_(1e3)
    depth(model, image)
    assert model.predicted_camera is not None
    assert model.invariance == "metric"


@needs_moge
@pytest.mark.parametrize(("seen", "enough"), [("an unsampled row", False), ("40", False), ("41", True)])
def test_the_samples_that_the_package_takes_decide_whether_there_are_metres(
    seen: str, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It solves for focal length and shift on 64 x 64 nearest pixels, and answers 1 and 0 without any."""
    model, image = load(stored(tmp_path), longer_side=140), photo(98, 140)
    mask = torch.zeros(1, 98, 140)
    if seen == "an unsampled row":
        sampled = {row * 98 // 64 for row in range(64)}
        mask[:, next(row for row in range(98) if row not in sampled)] = 1.0
        assert int(mask.sum()) == 140
    else:
        mask[:, 0, [column * 140 // 64 for column in range(int(seen))]] = 1.0
    forward = model._model.forward
    monkeypatch.setattr(model._model, "forward", lambda *a, **more: forward(*a, **more) | {"mask": mask})
    with caplog.at_level(logging.WARNING):
        shift = model.encode(image).constants[0]
    assert (model.invariance == "metric") is enough
    assert (model.predicted_camera is not None or bool(shift.any())) is enough
    assert ("finds too little surface" in caplog.text) is not enough


@needs_moge
def test_a_refined_photo_has_metres_and_the_models_camera(tmp_path: Path) -> None:
    folder = stored(tmp_path / "moge")
    overrides = ["depth_model.name=moge-2", f"depth_model.checkpoint={folder}", "depth_model.longer_side=56"]
    pixels = (255 * photo(42, 56)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    with tiny.small_moge():
        result = redepth.refine(pixels, "smoke", overrides=overrides, device="cpu", camera="model")
    assert (result.predicts, result.invariance) == ("depth", "metric")
    assert result.camera.pinhole
    assert np.isfinite(result.refined).all()
    assert float(abs(result.refined - result.initial).max()) > 0


# --- checkpoints ------------------------------------------------------------------------------------------


@needs_moge
@VERSIONS
def test_a_saved_checkpoint_predicts_the_same(version: int, tmp_path: Path) -> None:
    model, image = load(stored(tmp_path / "a", version), version, longer_side=56), photo(42, 56)
    with torch.no_grad():
        for values in model.decoder_parameters().values():
            values.mul_(1.01)
    model.save_checkpoint(tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["config.json", "model.safetensors"]
    again = load(tmp_path / "b", version, longer_side=56)
    assert torch.equal(depth(again, image), depth(model, image))
    assert again.describe()["network"] == f"MoGe v{version}"


@needs_moge
def test_a_checkpoint_of_moge_3_without_its_correction_is_its_network_alone(tmp_path: Path) -> None:
    library = tiny.moge()
    settings = {key: value for key, value in library.settings.items() if key != "remap_output"}
    settings |= {"refiner": {"in_channels": 3}, "refiner_depth_resolution": 256}
    weights = library.state_dict() | {"refiner.input_proj.weight": torch.zeros(4, 3)}
    torch.save({"model_config": settings, "model": weights}, tmp_path / "model.pt")
    model, image = load(tmp_path, longer_side=56), photo(42, 56)
    assert relative_error(depth(model, image), tiny.moge_depth(library, image)) < 1e-5
    model.save_checkpoint(tmp_path / "saved")
    assert torch.equal(depth(load(tmp_path / "saved", longer_side=56), image), depth(model, image))


@pytest.fixture
def with_correction(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network with the interface of MoGe-3's: the same base, and steps that raise the depth in places.

    The real one is in no registry.
    """
    second = importlib.import_module("moge.model.v2").MoGeModel

    class Corrected(second):  # type: ignore[misc, valid-type]
        def __init__(self, refiner: Any, refiner_depth_resolution: float = 256, **settings: Any) -> None:
            super().__init__(remap_output="exp", **settings)
            self.refiner = nn.Linear(1, 1)

        def forward(self, image: Tensor, num_tokens: int, refine_steps: int = 3) -> Any:
            output = super().forward(image, num_tokens)
            bright = image.mean(dim=1)[..., None] > 0.5
            factor = torch.where(bright, 1.1**refine_steps, 1.0)
            output["points"] = output["points"] * factor
            return output

    module = ModuleType("moge.model.v3")
    module.MoGeModel = Corrected  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moge.model.v3", module)
    with tiny.small_moge():
        yield


@needs_moge
def test_the_correction_of_moge_3_is_a_constant_of_the_photo(with_correction: None, tmp_path: Path) -> None:
    library = tiny.moge()
    settings = {key: value for key, value in library.settings.items() if key != "remap_output"}
    settings["refiner"] = {}
    weights = library.state_dict() | {"refiner.weight": torch.ones(1, 1), "refiner.bias": torch.ones(1)}
    torch.save({"model_config": settings, "model": weights}, tmp_path / "model.pt")
    image = photo(42, 56)
    model = load(tmp_path, longer_side=56, refine_steps=2)
    expected = model._model(image, num_tokens=12, refine_steps=2)["points"][..., 2]
    features = model.encode(image)
    shift, scale, _ = features.constants
    found = model.decode(features)
    assert relative_error((found / scale - shift)[:, 0], expected) < 1e-5
    base = load(tmp_path, longer_side=56)
    assert relative_error(depth(base, image), found) > 1e-2
    model.save_checkpoint(tmp_path / "saved")
    assert torch.equal(depth(load(tmp_path / "saved", longer_side=56, refine_steps=2), image), found)


@needs_moge
def test_loading_says_nothing_and_imports_nothing_heavy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored(tmp_path)
    heavy = {"torchvision", "gradio", "moderngl", "xformers", "pipeline"}
    before = heavy & set(sys.modules)
    state = torch.random.get_rng_state()
    capsys.readouterr()
    load(folder)
    assert capsys.readouterr() == ("", "")
    assert heavy & set(sys.modules) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def complaint(folder: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as error:
        load(folder, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@needs_moge
def test_each_thing_that_is_wrong_with_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    folder, path = stored(tmp_path), tmp_path / "model.pt"
    good: dict[str, Any] = torch.load(path, weights_only=True)
    name = "points_head.output_blocks.4.weight"

    def saying(**content: Any) -> str:
        torch.save(good | content, path)
        return complaint(folder)

    def settings(**changes: Any) -> str:
        return saying(model_config=good["model_config"] | changes)

    assert name in saying(model={k: v for k, v in good["model"].items() if k != name})
    assert name in saying(model=good["model"] | {name: torch.zeros(3)})
    assert name in saying(model=good["model"] | {name: "text"})
    assert "no model_config and model" in saying(model=None)
    assert "no model_config and model" in saying(model_config=[1])
    assert "unknown backbone" in settings(encoder="torch")
    assert "unknown backbone" in settings(encoder={"backbone": "_make_dinov2_model"})
    assert "unknown backbone" in settings(encoder=None)
    assert "build no network" in settings(neck={})
    torch.save(good, path)
    assert "is MoGe-2, which corrects nothing" in complaint(folder, refine_steps=1)
    path.write_bytes(path.read_bytes()[:1000])
    assert "is no archive of weights" in complaint(folder)
    path.unlink()
    assert "has no model.pt" in complaint(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert "config.json" in complaint(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "dpt"}))
    assert "choose depth_model.name=dpt" in complaint(folder)


@needs_moge
def test_settings_that_ask_for_more_than_the_file_holds_are_refused_before_they_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = stored(tmp_path), tmp_path / "model.pt"
    good: dict[str, Any] = torch.load(path, weights_only=True)
    filled: list[int] = []
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda weight, **_: filled.append(weight.numel()))
    for settings in (
        {"encoder": good["model_config"]["encoder"] | {"dim_out": 60_000_000}},
        {"neck": good["model_config"]["neck"] | {"num_res_blocks": [400] * 5}},
    ):
        torch.save(good | {"model_config": good["model_config"] | settings}, path)
        assert "more weights than the file holds" in complaint(folder)
    assert sum(filled) <= 2 * sum(w.numel() for w in good["model"].values())


@needs_moge
def test_the_token_of_masked_training_may_be_missing(tmp_path: Path) -> None:
    folder, image = stored(tmp_path), photo(42, 56)
    expected = depth(load(folder, longer_side=56), image)
    content = torch.load(folder / "model.pt", weights_only=True)
    del content["model"]["encoder.backbone.mask_token"]
    torch.save(content, folder / "model.pt")
    assert torch.equal(depth(load(folder, longer_side=56), image), expected)


@needs_moge
def test_a_checkpoint_of_another_family_says_so(tmp_path: Path) -> None:
    model = load(stored(tmp_path / "a"))
    model.save_checkpoint(tmp_path / "b")
    with pytest.raises(WeightsError, match=r"depth_model\.name=moge-2"):
        tiny.load("dpt", checkpoint=str(tmp_path / "b"))


# --- without the package ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["moge", "utils3d", "cv2", "scipy"])
def test_without_a_package_the_message_is_the_whole_command(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = {missing, f"{missing}_moge"}

    def find(name: str) -> Any:
        return None if name in hidden else object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingDependencyError) as error:
        MoGe().ensure_available()
    command = (
        'pip install "redepth[moge]" && pip install --no-deps dlr-moge && pip install --no-deps dlr-utils3d'
    )
    assert str(error.value) == f"{missing} is needed for MoGe: {command}"


def test_without_the_package_each_is_listed_with_its_licence_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "moge" else find(name))
    done = call("list", "depth-models")
    assert done.code == 0, done
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.startswith("moge-")}
    assert len({name for name in rows if not name.endswith(":")}) == 7
    for name, words in rows.items():
        if not name.endswith(":"):
            assert words[1:3] == ["install", "Apache-2.0" if name == "moge-1" else "MIT"]
    for command in ('"redepth[moge]"', "--no-deps dlr-moge", "--no-deps dlr-utils3d"):
        assert f"  pip install {command}\n" in done.out


def test_moge_3_names_what_its_correction_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "flex" in name else object())
    with pytest.raises(MissingDependencyError) as error:
        MoGe(refine_steps=3).ensure_available()
    assert str(error.value).startswith("flex_gemm is needed for MoGe: pip install ")
    assert "git+https://github.com/JeffreyXiang/FlexGEMM.git" in str(error.value)


def test_a_photo_is_never_stretched() -> None:
    with pytest.raises(ConfigError, match="resize_rule"):
        REGISTRY.check("moge-2", {"resize_rule": "stretch"})
