"""Run with `pytest -m gpu` on a machine with CUDA; the default suite leaves them out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import redepth
from redepth.contracts import Illumination
from redepth.depth_models.depth_anything import DepthAnything
from redepth.priors.stable_diffusion import StableDiffusion
from tests.helpers import GOLDEN, make_refiner, photo, relative_error, seeded, tiny_unet
from tests.test_pipeline import TINY_PAPER, array

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def on_cuda(**settings: Any) -> Any:
    refiner = make_refiner(**settings)
    refiner.depth_model = DepthAnything(
        checkpoint=str(GOLDEN / "tiny-random-depth-anything"), longer_side=70
    ).load(CUDA)
    refiner.device = CUDA
    return refiner


def test_members_are_the_same_as_on_the_cpu() -> None:
    rates = {"embeddings": 1e-3, "offset": 1e-3}
    settings: dict[str, Any] = {"parameterization": "embeddings", "learning_rates": rates}
    here, there = make_refiner(**settings).run(photo()), on_cuda(**settings).run(photo())
    change = float((here.members - here.initial).norm())
    assert float((here.members - there.members).norm()) < 0.02 * change


def test_a_released_encoder_leaves_the_device_and_comes_back() -> None:
    refiner = on_cuda()
    first = refiner.run(photo())
    assert {p.device.type for p in refiner.depth_model.encoder_parameters().values()} == {"cpu"}
    assert torch.allclose(refiner.run(photo()).initial, first.initial, atol=1e-5)


def test_the_papers_preset_runs_in_half_precision() -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cuda")
    result = pipeline.refine(array(), prompt="a tiger")
    assert result.components["prior"]["dtype"] == "float16"
    assert not result.partial
    assert torch.isfinite(result.outcome.members).all()


def test_half_precision_scores_point_the_way_of_full_precision() -> None:
    def gradient(dtype: Any) -> torch.Tensor:
        prior = StableDiffusion(
            checkpoint=str(GOLDEN / "tiny-random-sd"), dtype=dtype, guidance_scale=2.0, size=64
        ).load(CUDA)
        picture = photo().to(CUDA).requires_grad_()
        noise = prior.draw(1, seeded()).to(CUDA)
        prior(picture, prior.condition(picture, ""), Illumination(), noise).sum().backward()
        return picture.grad.flatten()

    assert torch.cosine_similarity(gradient("float16"), gradient("float32"), dim=0) > 0.95


def test_the_pixel_unet_gives_the_cpus_prediction() -> None:
    noisy, t = torch.randn(2, 3, 16, 16, generator=seeded()), torch.tensor([300, 700])
    with torch.no_grad():
        here = tiny_unet()(noisy, t)
        there = tiny_unet().to(CUDA)(noisy.to(CUDA), t.to(CUDA))
    assert relative_error(there.cpu(), here) < 1e-3
