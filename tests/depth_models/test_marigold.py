from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from redepth.errors import WeightsError
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.marigold(tmp_path_factory.mktemp("marigold"))


def test_it_is_the_pipelines_own_prediction_lifted_off_the_camera(folder: Path) -> None:
    from diffusers import MarigoldDepthPipeline

    model = tiny.load("marigold", checkpoint=str(folder), longer_side=64, seed=5, steps=3)
    pipeline = MarigoldDepthPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    image = model.prepare(photo(90, 120))
    assert image.shape == (1, 3, 48, 64)
    expected = pipeline(
        image,
        num_inference_steps=3,
        processing_resolution=0,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).prediction
    found = model.decode(model.encode(image))
    assert torch.allclose(found, expected + 0.1, atol=1e-6)
    assert float(found.min()) >= 0.1
    assert (model.predicts, model.invariance) == ("depth", "affine")
    assert model.describe()["steps"] == 3


def test_the_seed_alone_decides_and_the_global_state_is_left_alone(folder: Path) -> None:
    image = photo(48, 64)
    models = [tiny.load("marigold", checkpoint=str(folder), seed=seed) for seed in (0, 0, 1)]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, same, other = (m.encode(image).constants[0] for m in models)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert models[0].describe()["steps"] == 2


def test_what_is_wrong_with_a_checkpoint_is_one_line(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 64)
    for break_it in (lambda: None, lambda: shutil.rmtree(copy / "unet"), (copy / "model_index.json").unlink):
        break_it()
        with pytest.raises(WeightsError) as error:
            tiny.load("marigold", checkpoint=str(copy))
        assert "\n" not in str(error.value)
        assert str(copy) in str(error.value)
