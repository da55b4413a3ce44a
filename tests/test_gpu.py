"""Run with `pytest -m gpu` on a machine with CUDA; the default suite leaves them out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import redepth
from redepth.config import EarlyStop
from redepth.contracts import Execution, Illumination
from redepth.depth_models.depth_anything import DepthAnything
from redepth.optim.refiner import _Run
from redepth.priors.prompts import Captioner
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.units import memory
from tests.checkpoints import WORDS, tiny
from tests.helpers import GOLDEN, make_refiner, photo, relative_error, seeded, tiny_unet
from tests.optim.test_refiner import Diverging
from tests.priors.test_rules_on_models import latent_prior
from tests.test_pipeline import TINY_PAPER, array

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def on_cuda(**settings: Any) -> Any:
    refiner = make_refiner(**settings)
    refiner.depth_model = DepthAnything(
        checkpoint=str(GOLDEN / "tiny-random-depth-anything"), longer_side=70, scale=7.0
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


def test_a_memory_limit_holds_and_leaves_the_result_as_it_is() -> None:
    settings = ["optim.members=64", "optim.steps=2", "depth_model.longer_side=96"]
    free = redepth.Pipeline("embedded", overrides=settings, device="cuda").refine(array(), seed=1)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    limit = f"{held // 10**6 + 300}MB"
    limited = redepth.Pipeline("embedded", overrides=[*settings, f"optim.vram={limit}"], device="cuda")
    torch.cuda.reset_peak_memory_stats()
    result = limited.refine(array(), seed=1)
    assert torch.cuda.max_memory_allocated() <= memory(limit)
    assert result.outcome.members_per_batch < 64
    assert result.outcome.fit is not None
    assert result.outcome.fit.trials[0].peak_bytes
    assert relative_error(result.outcome.members, free.outcome.members) < 1e-2


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


@pytest.mark.parametrize("kind", ["sd 2.1", "xl", "sd 3", "sd 3, t5", "ic-light", "tiny vae", "random"])
def test_every_family_scores_in_half_precision_as_in_full(kind: str) -> None:
    light = BlinnPhong().sample(1, seeded()).flatten().to(CUDA)

    def gradient(dtype: Any) -> torch.Tensor:
        prior = latent_prior("sds", kind, dtype=dtype, device=CUDA)
        picture = photo().to(CUDA).requires_grad_()
        noise = prior.draw(1, seeded()).to(CUDA)
        prior(picture, prior.condition(picture.detach(), "a tiger"), light, noise).sum().backward()
        return picture.grad.flatten()

    half, full = gradient("float16"), gradient("float32")
    assert torch.isfinite(half).all()
    assert torch.cosine_similarity(half, full, dim=0) > 0.99


@pytest.mark.parametrize("name", ["blip", "blip2"])
def test_a_captioner_writes_on_the_gpu_and_leaves_it(name: Any) -> None:
    before = torch.cuda.memory_allocated()
    dtype: Any = "float16" if name == "blip2" else "auto"
    captioner = Captioner(name, CUDA, checkpoint=str(tiny(name)), dtype=dtype)
    (prompt,) = captioner.captions([array()])
    assert set(prompt.text.split()) <= set(WORDS)
    assert torch.cuda.memory_allocated() <= before


def test_the_pixel_unet_gives_the_cpus_prediction() -> None:
    noisy, t = torch.randn(2, 3, 16, 16, generator=seeded()), torch.tensor([300, 700])
    with torch.no_grad():
        here = tiny_unet()(noisy, t)
        there = tiny_unet().to(CUDA)(noisy.to(CUDA), t.to(CUDA))
    assert relative_error(there.cpu(), here) < 1e-3


# --- the relighting kernels -----------------------------------------------------------------------


def unclipped(height: int, width: int, **settings: Any) -> dict[str, Any]:
    """A scene that nowhere reaches the clip, where float32 and float64 would part at single pixels."""
    from tests.ops.test_shading_triton import inputs

    given = inputs(height, width, **settings)
    given["image_linear"] = 0.1 + 0.9 * given["image_linear"]
    given["diffuse"], given["specular"] = 0.5 * given["diffuse"], 0.5 * given["specular"]
    return given


@pytest.mark.parametrize(("height", "width"), [(518, 518), (517, 519), (60, 2050)])
@pytest.mark.parametrize("lights", [1, 4])
def test_the_relighting_kernels_are_their_twin(height: int, width: int, lights: int) -> None:
    from tests.ops.test_shading_triton import compare

    compare(unclipped(height, width, batch=2, lights=lights, invalid=0.02))


def test_the_relighting_kernels_are_the_same_to_the_bit_in_every_run() -> None:
    from redepth.ops.shading_triton import relight_blinn_phong
    from tests.ops.test_shading_triton import run

    given = unclipped(1024, 1022, batch=4, lights=2, invalid=0.02)
    first = run(relight_blinn_phong, given)
    for _ in range(5):
        again = run(relight_blinn_phong, given)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_relighting_kernels_take_thousands_of_images() -> None:
    from tests.ops.test_shading_triton import compare

    compare(unclipped(9, 14, batch=3000, images=3000, invalid=0.02))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_the_relighting_kernels_in_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    from tests.ops.test_shading_triton import compare

    given = unclipped(518, 518)
    given["image_linear"] = given["image_linear"].to(dtype)
    compare(given, out_dtype=dtype, tolerance=tolerance)


# --- speed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", [False, True])
def test_a_step_does_not_wait_for_the_gpu(stopping: bool) -> None:
    """CUDA itself refuses to wait while the steps between two looks are taken."""
    refiner = on_cuda(prior=latent_prior("sds", dtype="float16", device=CUDA))
    refiner.optim = refiner.optim.model_copy(update={"early_stop": EarlyStop(enabled=stopping, window=2)})
    image, features, initial = refiner.predict(photo())
    condition = refiner.prior.condition(image, "a tiger")
    run = _Run(refiner, image, features, initial, condition, 0, None, None, None)
    group = run._new_group(range(2))
    draws = run._draws(group.members)
    # First calls make constants, workspaces and the optimizer's state.
    run._step(group, 0, next(draws))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 3):
            run._step(group, step, next(draws))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    group.ledger.read()
    assert group.ledger.steps == 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", ["eager", "cuda_graphs", "compile", "both"])
def test_ways_of_execution_score_the_same(dtype: Any, how: str, fused: bool) -> None:
    def gradients(execution: Execution) -> torch.Tensor:
        prior = latent_prior("sds", dtype=dtype, device=CUDA)
        prior.tune(execution)
        found = []
        for seed in range(3):
            picture = photo(seed=seed).to(CUDA).requires_grad_()
            noise = prior.draw(1, seeded(seed)).to(CUDA)
            prior(
                picture, prior.condition(picture.detach(), "a tiger"), Illumination(), noise
            ).sum().backward()
            found.append(picture.grad)
        return torch.cat(found)

    way = Execution(
        compile=how in ("compile", "both"),
        cuda_graphs=how in ("cuda_graphs", "both"),
        fused_norm=fused,
        explicit_attention=fused,
        shared_prefix=fused,
    )
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    assert relative_error(gradients(way), gradients(Execution())) < tolerance


def test_a_step_that_is_not_finite_is_skipped_on_the_gpu() -> None:
    settings: dict[str, Any] = {"steps": 8, "parameterization": "depth"}
    outcome = on_cuda(prior=Diverging(5), **settings).run(photo())
    assert outcome.steps_done == [5, 5, 5]
    expected = on_cuda(**(settings | {"steps": 5})).run(photo())
    assert torch.allclose(outcome.members, expected.members, rtol=1e-5)
