"""The prediction of a depth model alone: that of a refinement, on every device, with holes and camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.bench.answers import Answer, Predictor, depth_model_of
from redepth.cli.options import resolved_model
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.data.datasets import Sample
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import InputError, WeightsError
from redepth.ops.camera import Camera
from redepth.pipeline import Pipeline
from redepth.protocols import load_protocol

CPU = torch.device("cpu")
SMALL = ["optim.steps=1", "optim.members=1", "depth_model.longer_side=56"]


def preset(*overrides: str) -> Preset:
    return resolve(load_preset("smoke", [*SMALL, *overrides]))


def photo() -> np.ndarray:
    return np.random.default_rng(0).random((40, 60, 3), dtype=np.float32)


def test_the_prediction_is_the_one_that_a_refinement_starts_from(device: torch.device) -> None:
    answer = Predictor(preset(), device).predict(photo())
    refined = Answer.of(Pipeline(preset(), device="cpu").refine(photo(), prompt=""))
    assert set(answer.outputs) == {"initial"}
    assert set(refined.outputs) == {"initial", "refined"}
    assert answer.outputs["initial"].device.type == "cpu"
    torch.testing.assert_close(answer.outputs["initial"], refined.outputs["initial"], rtol=1e-4, atol=1e-4)
    assert (answer.predicts, answer.invariance) == (refined.predicts, refined.invariance)
    assert answer.components["depth_model"] == refined.components["depth_model"]


def test_holes_of_a_map_are_not_measured(tmp_path: Path) -> None:
    truth = (2 + np.linspace(0, 1, 40 * 60, dtype=np.float32)).reshape(40, 60)
    given = truth + 0.1 * np.sin(np.arange(60, dtype=np.float32))
    given[:10] = np.nan
    np.save(tmp_path / "map.npy", given)
    options = [f"depth_model.path={tmp_path / 'map.npy'}", "depth_model.predicts=depth"]
    answer = Predictor(resolved_model("precomputed", options), CPU).predict(photo())
    measured = answer.measure(load_protocol("photo"), Sample("a", photo(), truth))["initial"]
    assert measured.row.pixels == 30 * 60
    assert not measured.mask[:10].any()


def test_a_model_that_needs_a_camera_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Camera | None] = []

    def next_camera(self: DepthAnything, camera: Camera | None) -> None:
        given.append(camera)

    monkeypatch.setattr(DepthAnything, "next_camera", next_camera, raising=False)
    predictor = Predictor(preset(), CPU)
    predictor.predict(photo())
    predictor.predict(photo(), Camera(field_of_view=60.0))
    assert given[0] is None
    assert given[1] == Camera(field_of_view=60.0).of_picture(40, 60)


def test_a_model_that_fails_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(preset(), CPU)

    def decode(*_: Any, **__: Any) -> Tensor:
        return torch.full((1, 1, 40, 56), torch.nan)

    monkeypatch.setattr(predictor.model, "decode", decode)
    with pytest.raises(Exception, match="prediction of the depth model DepthAnything is not finite"):
        predictor.predict(photo())


def test_weights_are_looked_for_before_work() -> None:
    with pytest.raises(WeightsError, match="Depth-Anything-V2-Base-hf"):
        depth_model_of(resolved_model("depth-anything-v2-base", ()))
    with pytest.raises(InputError, match=r"needs depth_model\.path"):
        depth_model_of(resolved_model("precomputed", ()))
