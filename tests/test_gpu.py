"""Tests that need a GPU: memory limits, CUDA graphs, synchronisation, and sizes too large for a CPU.

Run with `pytest -m gpu`, which also runs the tests of other files whose fixture ``device`` is a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import redepth
from redepth.config import EarlyStop
from redepth.config.units import memory
from redepth.contracts import Execution, Illumination
from redepth.optim.loop import Loop
from redepth.priors.prompts import Captioner
from redepth.runtime.device import numerics
from tests.priors.test_rules_on_models import latent_prior, make_prior
from tests.support.checkpoints import WORDS, tiny
from tests.support.helpers import TAME, change_error, make_refiner, photo, relative_error, seeded
from tests.test_pipeline import TINY_PAPER, array

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _plain_numerics() -> Iterator[None]:
    """Without TF32, float32 is comparable with a CPU's."""
    with numerics(CUDA, tf32=False, cudnn_benchmark=False):
        yield


def test_the_papers_preset_runs_in_half_precision() -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cuda")
    result = pipeline.refine(array(), prompt="a tiger")
    assert result.components["prior"]["dtype"] == "float16"
    assert not result.partial
    assert torch.isfinite(result.outcome.members).all()


def test_a_memory_limit_holds_and_leaves_the_result_as_it_is() -> None:
    settings = ["optim.members=64", "optim.steps=2", "depth_model.longer_side=96"]
    settings += ["optim.performance.tf32=false", "optim.performance.cudnn_benchmark=false"]
    free = redepth.Pipeline("embedded-relief", overrides=settings, device="cuda").refine(array(), seed=1)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    limit = f"{held // 10**6 + 300}MB"
    limited = redepth.Pipeline("embedded-relief", overrides=[*settings, f"optim.vram={limit}"], device="cuda")
    torch.cuda.reset_peak_memory_stats()
    result = limited.refine(array(), seed=1)
    assert torch.cuda.max_memory_allocated() <= memory(limit)
    assert result.outcome.members_per_batch < 64
    assert result.outcome.fit is not None
    assert result.outcome.fit.trials[0].peak_bytes
    assert relative_error(result.outcome.members, free.outcome.members) < 1e-2


@pytest.mark.parametrize("name", ["blip", "blip2"])
def test_a_captioner_writes_on_the_gpu_and_leaves_it(name: Any) -> None:
    before = torch.cuda.memory_allocated()
    dtype: Any = "float16" if name == "blip2" else "auto"
    captioner = Captioner(name, CUDA, checkpoint=str(tiny(name)), dtype=dtype)
    (prompt,) = captioner.captions([array()])
    assert set(prompt.text.split()) <= set(WORDS)
    assert torch.cuda.memory_allocated() <= before


# --- the relighting kernels -----------------------------------------------------------------------


def unclipped(height: int, width: int, **settings: Any) -> dict[str, Any]:
    """A scene without clipped pixels, at which float32 and float64 would differ."""
    from tests.ops.test_blinn_phong_triton import inputs

    scene = inputs(height, width, **settings)
    scene["image_linear"] = 0.1 + 0.9 * scene["image_linear"]
    scene["diffuse"], scene["specular"] = 0.5 * scene["diffuse"], 0.5 * scene["specular"]
    return scene


@pytest.mark.parametrize(("height", "width"), [(518, 518), (517, 519), (60, 2050)])
@pytest.mark.parametrize("lights", [1, 4])
def test_the_relighting_kernels_agree_with_the_torch_backend(height: int, width: int, lights: int) -> None:
    from tests.ops.test_blinn_phong_triton import compare

    compare(unclipped(height, width, batch=2, lights=lights, invalid=0.02))


def test_the_relighting_kernels_are_the_same_to_the_bit_in_every_run() -> None:
    from redepth.ops.triton.blinn_phong import relight_blinn_phong
    from tests.ops.test_blinn_phong_triton import run

    scene = unclipped(1024, 1022, batch=4, lights=2, invalid=0.02)
    first = run(relight_blinn_phong, scene)
    for _ in range(5):
        again = run(relight_blinn_phong, scene)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_relighting_kernels_take_64_lights_of_a_large_picture() -> None:
    """More than 2^31 elements for one image; its gradient is the sum of those of fewer lights at a time."""
    from redepth.ops.triton.blinn_phong import relight_blinn_phong
    from tests.ops.test_blinn_phong_triton import inputs

    side, lights = 3400, 64
    if torch.cuda.mem_get_info(CUDA)[0] < 24 * 10**9:
        pytest.skip("needs 24 GB")
    scene = inputs(8, 8, lights=lights)
    coarse = scene.pop("depth"), scene.pop("image_linear")
    depth, image = (torch.nn.functional.interpolate(x.to(CUDA), (side, side), mode="bicubic") for x in coarse)
    light = {k: v.to(CUDA) for k, v in scene.items() if k != "ambient"}
    # One cotangent for all lights, laid out as a contiguous picture of all of them.
    total = torch.zeros_like(depth)
    pulled = torch.rand(3, side, side, generator=seeded(1)).to(CUDA, torch.float16)

    def gradient(which: slice) -> torch.Tensor:
        leaf = depth.detach().requires_grad_()
        part = {k: v[:, which] for k, v in light.items()}
        relit = relight_blinn_phong(leaf, image.clamp(0, 1), **part, out_dtype=torch.float16)
        relit.backward(pulled.expand_as(relit).contiguous())
        assert leaf.grad is not None
        return leaf.grad

    for start in range(0, lights, 16):
        total += gradient(slice(start, start + 16))
    assert relative_error(gradient(slice(None)), total) < 1e-4


def test_the_relighting_kernels_take_thousands_of_images() -> None:
    from tests.ops.test_blinn_phong_triton import compare

    compare(unclipped(9, 14, batch=3000, images=3000, invalid=0.02))


@pytest.mark.parametrize(("half", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_the_relighting_kernels_in_half_precision(half: torch.dtype, tolerance: float) -> None:
    from tests.ops.test_blinn_phong_triton import compare

    scene = unclipped(518, 518)
    scene["image_linear"] = scene["image_linear"].to(half)
    compare(scene, out_dtype=half, tolerance=tolerance)


# --- speed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["latent", "xl", "sd 3", "klein", "z-image", "qwen-image", "pixart", "prx-pixel", "ic-light", "pixel"],
)
def test_a_step_does_not_wait_for_the_gpu(kind: str, stopping: bool) -> None:
    """CUDA's sync debug mode raises if the host waits between two reads of the losses."""
    refiner = make_refiner(make_prior(kind, "sds", CUDA), device=CUDA)
    refiner.optim = refiner.optim.model_copy(update={"early_stop": EarlyStop(enabled=stopping, window=2)})
    loop = Loop(refiner, refiner.make_problem(photo(), "a tiger"), refiner.preset_plan)
    group = loop.new_group(range(2))
    draws = loop.draws(group.members)
    # First calls make constants, workspaces and the optimizer's state.
    stepper = refiner.stepper(group.advance)
    loop.step(group, 0, next(draws), stepper)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 3):
            loop.step(group, step, next(draws), stepper)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    group.loss_log.read()
    assert group.loss_log.steps == 3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "how",
    ["eager", "cuda_graphs", *(pytest.param(h, marks=pytest.mark.compiles) for h in ("compile", "both"))],
)
def test_ways_of_execution_give_the_same_gradients(dtype: Any, how: str, fused: bool) -> None:
    def gradient(execution: Execution) -> torch.Tensor:
        prior = latent_prior("sds", dtype=dtype, device=CUDA)
        prior.tune(execution)
        gradients = []
        for seed in range(3):
            picture = photo(seed=seed).to(CUDA).requires_grad_()
            noise = prior.draw(1, seeded(seed)).to(CUDA)
            prior(
                picture, prior.condition(picture.detach(), "a tiger"), Illumination(), noise
            ).sum().backward()
            gradients.append(picture.grad)
        return torch.cat(gradients)

    way = Execution(
        compile=how in ("compile", "both"),
        cuda_graphs=how in ("cuda_graphs", "both"),
        fused_kernels=fused,
        explicit_attention=fused,
        shared_prefix=fused,
    )
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    assert relative_error(gradient(way), gradient(Execution())) < tolerance


@pytest.mark.parametrize("parameterization", ["embeddings+decoder", "depth"])
def test_steps_as_graphs_and_eager_steps_give_the_same_members(
    dtype: Any, parameterization: str, caplog: pytest.LogCaptureFixture
) -> None:
    def outcome(graphs: str) -> Any:
        plain = {"tf32": False, "cudnn_benchmark": False, "compile": "off", "cuda_graphs": graphs}
        prior = latent_prior("sds", dtype=dtype, device=CUDA)
        settings: dict[str, Any] = {"parameterization": parameterization, "steps": 24, "schedule": "cosine"}
        refiner = make_refiner(prior, device=CUDA, performance=plain, learning_rates=TAME, **settings)
        assert refiner.execution["cuda_graphs"] == graphs
        return refiner.run(photo(), prompt="a tiger")

    eager, graph = outcome("off"), outcome("step")
    assert "stays eager" not in caplog.text
    assert graph.steps_done == eager.steps_done
    assert change_error(graph, eager) < (0.02 if dtype == "float32" else 0.1)
