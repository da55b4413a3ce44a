from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import redepth
from redepth.components import resolve
from redepth.config import load_preset
from redepth.contracts import PredictsCamera
from redepth.depth_models.depth_anything_3 import DepthAnything3
from redepth.depth_models.depth_anything_3_network import PACKAGE, shipped
from redepth.errors import InputError, MissingDependencyError, WeightsError
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from tests.depth_models.test_backbones import needs_da3
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error


def test_the_preset_has_the_published_settings() -> None:
    preset = resolve(load_preset("da3-mono-large"))
    model, rates = preset.depth_model.options, preset.optim.learning_rates
    assert preset.depth_model.name == "depth-anything-3-mono"
    assert model["checkpoint"] == "depth-anything/DA3MONO-LARGE"
    assert (model["longer_side"], model["resize_rule"], model["scale"]) == (504, "upper_bound", 7.0)
    assert (rates.embeddings, rates.decoder, rates.offset) == (2e-4, 1e-6, 1e-3)
    paper = resolve(load_preset("re-depth-anything"))
    for part in ("renderer", "prior"):
        assert getattr(preset, part) == getattr(paper, part)
    same = {"learning_rates": paper.optim.learning_rates}
    assert preset.optim.model_copy(update=same) == paper.optim


def test_without_the_package_the_message_is_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == PACKAGE else find(name))
    with pytest.raises(MissingDependencyError) as error:
        DepthAnything3().ensure_available()
    command = 'pip install "redepth[da3]" && pip install --no-deps depth-anything-3'
    assert str(error.value) == f"depth_anything_3 is needed for Depth Anything 3: {command}"


@needs_da3
def test_the_packages_own_configuration_serves_where_the_checkpoint_has_none() -> None:
    graph = shipped("da3mono-large")
    assert set(graph) == {"__object__", "net", "head"}
    assert graph["net"]["name"] == "vitl"
    assert graph["head"]["dim_in"] == 1024
    assert shipped("nothing") == {}


@needs_da3
def test_loading_says_nothing_and_imports_nothing_heavy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    folder = tiny.save(tiny.da3(), tmp_path / "da3")
    heavy = {"cv2", "open3d", "torchvision", "xformers", "moviepy", "e3nn", "gradio"}
    # Tests of the app import gradio themselves.
    before = heavy & set(sys.modules)
    capsys.readouterr()
    tiny.load("depth-anything-3-mono", checkpoint=str(folder))
    assert capsys.readouterr().out == ""
    assert heavy & set(sys.modules) == before


@needs_da3
@pytest.mark.parametrize(
    ("component", "change", "words"),
    [
        (
            "mono",
            {"model_name": "da3-small", "config": None},
            "choose depth_model.name=depth-anything-3-small",
        ),
        ("small", {}, "is da3mono-large, not .*: choose depth_model.name=depth-anything-3-mono"),
        ("metric", {}, "is da3mono-large, not .*: choose depth_model.name=depth-anything-3-mono"),
        ("mono", {"model_name": "da3nested-giant-large", "config": None}, "it cannot be refined"),
        ("mono", {"model_name": "../../secret", "config": None}, "it cannot be refined"),
        (
            "mono",
            {"config": {"net": {"name": "vitx", "out_layers": [0]}, "head": {"dim_in": 24}}},
            "builds no network",
        ),
    ],
)
def test_other_networks_of_the_package_are_refused(
    component: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = tiny.save(tiny.da3(), tmp_path / "da3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(WeightsError, match=words):
        tiny.load(f"depth-anything-3-{component}", checkpoint=str(folder))


@needs_da3
def test_the_sky_is_left_as_the_depth_head_says(tmp_path: Path) -> None:
    """As in the paper's implementation; the package itself would put it at a quantile of the rest."""
    sunny = tiny.biased(tiny.da3(), "head.scratch.sky_output_conv2.2.bias", 1e3)
    folders = [tiny.save(m, tmp_path / n) for n, m in (("sky", sunny), ("none", tiny.da3()))]
    image = photo(42, 56)
    models = [tiny.load("depth-anything-3-mono", checkpoint=str(f), longer_side=56) for f in folders]
    with torch.no_grad():
        first, second = (m.decode(m.encode(image)) for m in models)
    assert torch.equal(first, second)


def metric(tmp_path: Path) -> Any:
    folder = tiny.save(tiny.da3("da3metric-large"), tmp_path / "metric")
    return tiny.load("depth-anything-3-metric", checkpoint=str(folder), longer_side=56)


@needs_da3
@pytest.mark.parametrize(
    "camera",
    [
        Camera(field_of_view=60.0),
        Camera(intrinsics=(0.8, 1.3, 0.45, 0.6)),
        Camera.from_pixels(700.0, 640.0, 400.0, 300.0, 600, 800),
    ],
)
def test_metres_are_those_of_the_packages_own_rule(camera: Camera, tmp_path: Path) -> None:
    from depth_anything_3.utils.alignment import apply_metric_scaling

    model, image = metric(tmp_path), photo(42, 56)
    normal = (image - torch.tensor(tiny.IMAGENET[0]).view(1, 3, 1, 1)) / torch.tensor(tiny.IMAGENET[1]).view(
        1, 3, 1, 1
    )
    model.next_camera(camera)
    fx, fy, cx, cy = camera.intrinsics_in_pixels(42, 56)
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])[None, None]
    with torch.no_grad():
        expected = apply_metric_scaling(tiny.da3_forward(tiny.da3("da3metric-large"), normal), intrinsics)
        found = model.decode(model.encode(image))
    assert relative_error(found, expected) < 1e-5
    assert (model.predicts, model.invariance) == ("depth", "metric")


@needs_da3
def test_without_a_focal_length_there_are_no_metres_and_it_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, image = metric(tmp_path), photo(42, 56)
    assert model.invariance == "affine", "before any camera is given"
    with torch.no_grad():
        plain = model.decode(model.encode(image))
        model.next_camera(Camera(field_of_view=90.0))
        scaled = model.decode(model.encode(image))
        assert relative_error(scaled, plain * 28 / 300) < 1e-6, "W / 2 pixels"
        for camera in (None, ORTHOGRAPHIC, SPHERICAL):
            model.next_camera(camera)
            assert model.invariance == "affine"
            assert torch.equal(model.decode(model.encode(image)), plain)
    assert [r.getMessage() for r in caplog.records if "--fov" in r.getMessage()] == [caplog.messages[0]]


@needs_da3
def test_one_view_gives_the_packages_own_intrinsics(tmp_path: Path) -> None:
    library, image = tiny.da3("da3-small"), photo(42, 56)
    folder = tiny.save(library, tmp_path / "small")
    model = tiny.load("depth-anything-3-small", checkpoint=str(folder), longer_side=56)
    assert isinstance(model, PredictsCamera)
    assert model.predicted_camera is None, "of no photo yet"
    with torch.no_grad():
        features = model.encode(image)
        expected = tiny.da3_outputs(library, model.pixels(image)).intrinsics[0, 0]
    assert features.constants == ()
    camera = model.predicted_camera
    assert camera is not None
    found = camera.intrinsics_in_pixels(42, 56)
    wanted = [float(expected[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))]
    assert found == pytest.approx(wanted, rel=1e-5)
    assert abs(found[0] - found[1]) > 1, "the two axes differ, so an exchange of them would be seen"


@needs_da3
def test_its_file_of_weights_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    folder = tiny.save(tiny.da3("da3-small"), tmp_path / "small")
    read: list[Any] = []
    load_file = safetensors.torch.load_file

    def counted(*args: Any, **more: Any) -> Any:
        read.append(args)
        return load_file(*args, **more)

    monkeypatch.setattr(safetensors.torch, "load_file", counted)
    tiny.load("depth-anything-3-small", checkpoint=str(folder), longer_side=56)
    assert len(read) == 1


@needs_da3
def test_an_angle_that_no_lens_has_is_no_camera(tmp_path: Path) -> None:
    library = tiny.da3("da3-small")
    with torch.no_grad():
        library.get_parameter("cam_dec.fc_fov.0.bias").fill_(-1e3)  # after its ReLU: 0 degrees
    folder = tiny.save(library, tmp_path / "small")
    model = tiny.load("depth-anything-3-small", checkpoint=str(folder))
    with torch.no_grad():
        model.encode(photo(42, 56))
    assert model.predicted_camera is None
    # It is the photo, and not the model, that has none.
    overrides = ["depth_model.name=depth-anything-3-small", f"depth_model.checkpoint={folder}"]
    pixels = photo(45, 60)[0].permute(1, 2, 0).numpy()
    said = "DepthAnything3AnyView found no camera for this photo: give a field of view or intrinsics"
    with tiny.small_da3(), pytest.raises(InputError, match=said):
        redepth.refine(pixels, "smoke", overrides=overrides, device="cpu", camera="model")


@needs_da3
def test_parts_that_the_depth_does_not_need_are_not_loaded_but_kept_in_a_saved_checkpoint(
    tmp_path: Path,
) -> None:
    from safetensors.torch import load_file

    library = tiny.da3("da3-small")
    folder = tiny.save(library, tmp_path / "small")
    model = tiny.load("depth-anything-3-small", checkpoint=str(folder))
    names = [*model.encoder_parameters(), *model.decoder_parameters()]
    assert not [n for n in names if "_aux" in n or "cam_enc" in n]
    # The unused head leaves the gradients of the decoder complete.
    features = model.encode(photo(42, 56))
    for p in model.decoder_parameters().values():
        p.requires_grad_(True)
    model.decode(features).sum().backward()
    missing = [n for n, p in model.decoder_parameters().items() if p.grad is None]
    assert not [n for n in missing if "refinenet4.resConfUnit1" not in n]
    with torch.no_grad():
        next(iter(model.decoder_parameters().values())).add_(1.0)
    model.save_checkpoint(tmp_path / "saved")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "saved"))
    assert set(after) == set(before) == {f"model.{k}" for k in library.state_dict()}
    assert len([k for k in before if not torch.equal(before[k], after[k])]) == 1


@needs_da3
def test_a_runs_camera_decides_whether_its_result_is_in_metres(tmp_path: Path) -> None:
    """Half the tangent is twice the focal length, and twice the depth; without a camera no metres."""
    folder = tiny.save(tiny.da3("da3metric-large"), tmp_path / "metric")
    chosen = ["depth_model.name=depth-anything-3-metric", f"depth_model.checkpoint={folder}"]
    overrides = [*chosen, "depth_model.longer_side=56", "optim.steps=1", "optim.members=1"]
    pixels = photo(45, 60)[0].permute(1, 2, 0).numpy()

    def refined(camera: Camera | None) -> redepth.Refinement:
        with tiny.small_da3():
            return redepth.refine(pixels, "smoke", overrides=overrides, device="cpu", camera=camera)

    wide, narrow = (refined(Camera(field_of_view=2 * math.degrees(math.atan(t)))) for t in (0.8, 0.4))
    assert wide.invariance == narrow.invariance == "metric"
    assert narrow.initial == pytest.approx(2 * wide.initial, rel=1e-4)
    assert narrow.depth_m is not None
    unknown = refined(None)
    assert unknown.depth_m is None
    assert unknown.record()["output"]["meaning"].startswith("affine-invariant depth")


@needs_da3
def test_the_estimated_camera_is_used_and_recorded(tmp_path: Path) -> None:
    folder = tiny.save(tiny.da3("da3-small"), tmp_path / "small")
    chosen = ["depth_model.name=depth-anything-3-small", f"depth_model.checkpoint={folder}"]
    overrides = [*chosen, "depth_model.longer_side=56", "optim.steps=1", "optim.members=1"]
    pixels = photo(45, 60)[0].permute(1, 2, 0).numpy()
    with tiny.small_da3():
        result = redepth.refine(pixels, "smoke", overrides=overrides, device="cpu", camera="model")
    record = result.record()["camera"]
    assert (record["kind"], record["from"]) == ("pinhole", "depth model")
    # The angles before the last bias of the tiny network are near 0.8 and 1.1 radians.
    assert 30 < record["fov"]["vertical"] < 60 < record["fov"]["horizontal"] < 80
