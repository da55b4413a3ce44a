"""Marigold's normals in place of a file: the pipeline's own, its frame, its record, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import redepth
from redepth.components import normals_of, resolve
from redepth.config import load_preset, merged_overrides
from redepth.depth_models.marigold_normals import MarigoldNormals
from redepth.errors import ConfigError, InputError, WeightsError
from redepth.guidance import Frame, NormalMap
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL
from redepth.ops.geometry import normals_from_depth
from redepth.pipeline import Pipeline
from tests.support import tiny_depth_models as tiny
from tests.support.command import call, one_line
from tests.support.helpers import CPU, photo, relative_error

SMALL = ["optim.steps=2", "optim.members=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.marigold_normals(tmp_path_factory.mktemp("normals"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = (255 * photo(48, 64)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def options(folder: Path) -> list[str]:
    return [*SMALL, f"optim.objectives.normals.checkpoint={folder}"]


def prepared(normals: NormalMap, height: int, width: int) -> torch.Tensor:
    raw = torch.ones(1, 1, height, width)
    return normals.prepared(Frame(photo(height, width), raw, 1.0, "depth", False, ORTHOGRAPHIC)).normals


def test_it_is_the_pipelines_own_prediction_and_the_seed_alone_decides(folder: Path) -> None:
    from diffusers import MarigoldNormalsPipeline

    model, image = MarigoldNormals(str(folder), steps=3, ensemble=2), photo(90, 120)
    model.load()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found, same, other = (model.estimate(image, seed, CPU).normals for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, same)
    assert not torch.equal(found, other)
    pipeline = MarigoldNormalsPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        image,
        num_inference_steps=3,
        ensemble_size=2,
        match_input_resolution=False,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).prediction
    assert found.shape == (1, 3, 48, 64)
    assert relative_error(found, expected) < 1e-5
    assert model.describe() == {
        "source": "marigold",
        "checkpoint": str(folder),
        "revision": None,
        "commit": None,
        "steps": 3,
        "ensemble": 2,
    }


def test_the_frame_is_x_right_y_up_z_to_the_viewer(folder: Path) -> None:
    """That of the pipeline by diffusers' guide: nothing is turned, and the surface's own normals agree."""
    model = MarigoldNormals(str(folder))
    model.load()
    estimate = model.estimate(photo(48, 64), 0, CPU)
    assert estimate.frame == "redepth"
    assert float(estimate.normals[:, 2].min()) >= 0, "to the viewer, as by its configuration"
    assert relative_error(prepared(estimate, 48, 64), F.normalize(estimate.normals, dim=1)) < 1e-5
    # In that frame a slope that falls off to the right faces right, and one that falls off upwards faces up.
    columns = torch.linspace(1, 2, 64).expand(1, 1, 48, 64)
    rows = torch.linspace(2, 1, 48)[:, None].expand(1, 1, 48, 64)
    assert float(normals_from_depth(columns, ORTHOGRAPHIC)[0, 0, 24, 32]) > 0.1
    assert float(normals_from_depth(rows, ORTHOGRAPHIC)[0, 1, 24, 32]) > 0.1


def test_the_pipeline_is_on_the_device_for_the_estimate_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MarigoldNormals(str(folder))
    model.load()
    moved: list[str] = []
    move = type(model._pipeline).to
    monkeypatch.setattr(
        model._pipeline, "to", lambda where: moved.append(str(where)) or move(model._pipeline, where)
    )
    model.estimate(photo(48, 64), 0, CPU)
    assert moved == ["cpu", "cpu"]
    monkeypatch.setattr(model._pipeline.unet, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.estimate(photo(48, 64), 0, CPU)
    assert moved == ["cpu"] * 4, "also after an error"


def test_the_command_line_and_python_refine_towards_the_same_estimate(
    folder: Path, picture: Path, tmp_path: Path
) -> None:
    given = [f"--set={option}" for option in options(folder)]
    done = call(
        "refine", str(picture), "--preset=smoke", "--normals", "marigold", *given, "--out", tmp_path / "out"
    )
    assert done.code == 0
    record = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert record["normals"]["checkpoint"] == str(folder)
    assert record["normals"]["steps"] == 2
    assert record["preset"]["optim"]["objectives"]["normals"]["source"] == "marigold"
    result = redepth.refine(picture, "smoke", overrides=options(folder), prompt="", normals="marigold")
    assert result.outcome.history["normals"] == record["losses"]["normals"]
    # The term is what its equation says of the estimate and the first surface.
    model = MarigoldNormals(str(folder))
    model.load()
    pixels = torch.from_numpy(result.photo).permute(2, 0, 1)[None]
    estimate = prepared(model.estimate(pixels, 0, CPU), *result.outcome.initial.shape[-2:])
    surface = normals_from_depth(result.outcome.initial_depth, ORTHOGRAPHIC)
    expected = float((1 - (surface * estimate).sum(dim=1)).mean())
    assert np.ravel(record["losses"]["normals"])[0] == pytest.approx(expected, rel=1e-3)


def test_a_given_map_comes_before_the_estimate(folder: Path, picture: Path) -> None:
    flat = np.zeros((48, 64, 3), np.float32)
    flat[..., 2] = 1.0
    wanted = [*options(folder), "optim.objectives.normals.source=marigold"]
    result = redepth.refine(picture, "smoke", overrides=wanted, prompt="", normals=flat)
    assert result.record()["normals"] is None
    plain = redepth.refine(picture, "smoke", overrides=SMALL, prompt="", normals=flat)
    assert result.outcome.history == plain.outcome.history


def test_what_cannot_be_is_refused_before_any_work(
    folder: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tiny.marigold(tmp_path / "depth")
    with pytest.raises(WeightsError, match="is a 'MarigoldDepthPipeline', not a MarigoldNormalsPipeline"):
        redepth.refine(picture, "smoke", overrides=options(wrong), prompt="", normals="marigold")
    with pytest.raises(WeightsError, match="hf download prs-eth/marigold-normals-v1-1"):
        redepth.refine(picture, "smoke", overrides=SMALL, prompt="", normals="marigold")
    with pytest.raises(ConfigError, match="leave out the frame opencv"):
        redepth.refine(picture, "smoke", prompt="", normals="marigold", normals_frame="opencv")
    wanted = merged_overrides([*options(folder), "optim.objectives.normals.source=marigold"])
    around = Pipeline("smoke", overrides=wanted)
    with pytest.raises(InputError, match="panorama: the normals of marigold"):
        around.refine(np.zeros((32, 64, 3), np.float32), camera=SPHERICAL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marigold").mkdir()
    arguments = ["refine", str(picture), "--preset=smoke", "--normals", "marigold"]
    one_line(call(*arguments, "--out", str(tmp_path / "o")), "a file or folder of that name")
    (tmp_path / "marigold").rmdir()
    one_line(call(*arguments, "--normals-frame=opencv", "--out", str(tmp_path / "o")), "leave out the frame")


def test_no_model_is_built_where_a_file_gives_the_normals() -> None:
    chosen: Any = resolve(load_preset("smoke", ["optim.objectives.normals.weight=2"]))
    assert normals_of(chosen) is None
    assert chosen.optim.objectives["normals"].options["source"] == "file"
