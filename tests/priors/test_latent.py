from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.contracts import Illumination, Noise
from redepth.errors import InputError, WeightsError
from redepth.priors.stable_diffusion import StableDiffusion, fit_square, scale_gradient
from tests.helpers import CPU, GOLDEN, photo, seeded

CHECKPOINT = GOLDEN / "tiny-random-sd"


@pytest.fixture(scope="module")
def prior() -> StableDiffusion:
    return StableDiffusion(checkpoint=str(CHECKPOINT)).load(CPU)


def test_the_frozen_model_is_in_eval_mode_and_gets_no_gradient(prior: StableDiffusion) -> None:
    for model in (prior._unet, prior._vae, prior._text_encoder):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_rows_are_scored_independently(prior: StableDiffusion) -> None:
    pictures = torch.cat([photo(seed=s) for s in range(2)])
    condition = prior.condition(pictures[:1], "a tiger")
    noise = prior.draw(2, seeded())
    together = prior(pictures, condition, Illumination(), noise)
    for i in range(2):
        row = Noise({k: v[i : i + 1] for k, v in noise.tensors.items()})
        alone = prior(pictures[i : i + 1], condition, Illumination(), row)
        assert float(alone) == pytest.approx(float(together[i]), rel=1e-4)


def test_timesteps_cover_their_range_and_nothing_else(prior: StableDiffusion) -> None:
    drawn = prior.draw_timesteps(5000, seeded())
    assert int(drawn.min()) == 20
    assert int(drawn.max()) == 600


def test_a_prompt_that_is_too_long_is_refused(prior: StableDiffusion) -> None:
    with pytest.raises(InputError, match="tokens long and the text encoder reads 24"):
        prior.condition(photo(), "a very long prompt " * 20)


def test_float16_on_a_cpu_runs_in_float32() -> None:
    assert StableDiffusion(dtype="float16").precision(CPU) is torch.float32
    assert StableDiffusion(dtype="float16").precision(torch.device("cuda")) is torch.float16


def test_scaling_the_gradient_there_and_back_changes_nothing() -> None:
    x = torch.rand(3, generator=seeded()).requires_grad_()
    (scale_gradient(scale_gradient(x, 1 / 64) ** 2, 64.0)).sum().backward()
    assert torch.allclose(x.grad, 2 * x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_in_half_precision_the_gradient_is_finite_and_points_the_same_way(
    dtype: torch.dtype, reduction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient(precision: torch.dtype) -> torch.Tensor:
        monkeypatch.setattr(StableDiffusion, "precision", lambda *_: precision)
        options: dict[str, Any] = {"size": 64, "guidance_scale": 2.0, "reduction": reduction}
        prior = StableDiffusion(checkpoint=str(CHECKPOINT), **options).load(CPU)
        picture = photo().requires_grad_()
        condition, noise = prior.condition(photo(), "a tiger"), prior.draw(1, seeded())
        prior(picture, condition, Illumination(), noise).sum().backward()
        return picture.grad.flatten()

    half, full = gradient(dtype), gradient(torch.float32)
    assert torch.isfinite(half).all()
    assert torch.cosine_similarity(half, full, dim=0) > 0.95
    assert half.norm() == pytest.approx(float(full.norm()), rel=0.1)


def test_fit_square_keeps_the_aspect_ratio_and_centres() -> None:
    fitted = fit_square(torch.ones(1, 3, 56, 70), 512)
    assert fitted.shape == (1, 3, 512, 512)
    rows = fitted[0, 0, :, 256].nonzero()[:, 0]
    assert (int(rows[0]), len(rows)) == (51, 410)


def test_a_missing_and_a_corrupted_checkpoint_say_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        StableDiffusion(checkpoint=str(tmp_path / "nothing")).load(CPU)
    broken = tmp_path / "sd"
    shutil.copytree(CHECKPOINT, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match="UNet2DConditionModel"):
        StableDiffusion(checkpoint=str(broken)).load(CPU)


def test_a_hub_id_offline_says_what_to_do() -> None:
    with pytest.raises(WeightsError, match="--preset embedded"):
        StableDiffusion().ensure_available()
