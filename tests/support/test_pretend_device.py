"""Errors of a GPU and synchronisation with it, found without a GPU: see `pretend_device`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.optim.loop import Loop
from redepth.optim.parameterizations import PARAMETERIZATIONS
from redepth.optim.refiner import Refiner
from redepth.priors.text import TextEncoders
from redepth.renderers import REGISTRY as RENDERERS
from redepth.renderers.mesh import Mesh
from tests.depth_models.test_backbones import RATES, marked
from tests.priors.test_rules_on_models import LATENT, PIXEL, make_prior
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import TargetPrior, make_refiner, photo, seeded
from tests.support.pretend_device import GPU, PretendedGPU, Refused, Waited
from tests.support.tiny_depth_models import FAMILIES


@pytest.fixture
def gpu() -> Iterator[PretendedGPU]:
    with PretendedGPU() as pretended:
        yield pretended


# --- the tool itself ------------------------------------------------------------------------------


def test_a_tensor_has_the_device_it_was_sent_to(gpu: PretendedGPU) -> None:
    here = torch.arange(6.0).view(2, 3)
    there = here.to(GPU)
    assert (here.device.type, here.is_cuda, here.is_cpu) == ("cpu", False, True)
    for tensor in (there, there[0], there * 2, there.half(), torch.zeros_like(there), there.new_zeros(2)):
        assert (tensor.device, tensor.is_cuda, tensor.is_cpu, tensor.get_device()) == (GPU, True, False, 0)
    assert torch.ones(3, device="cuda").is_cuda
    assert torch.full((2,), 1.0, device=there.device).is_cuda
    assert not torch.zeros_like(there, device="cpu").is_cuda
    assert not torch.zeros(2).is_cuda
    assert there.cpu().device.type == "cpu"
    assert torch.equal(there.cpu(), here)
    assert here.to(there).is_cuda
    assert torch.nn.functional.interpolate(there[None, None], (4, 4), mode="bicubic").is_cuda
    assert torch.nn.Linear(3, 2).to("cuda")(there).is_cuda


def test_a_network_is_loaded_whole(gpu: PretendedGPU, tmp_path: Any) -> None:
    """transformers makes a network on the meta device, then fills in what the file does not have."""
    family = FAMILIES["dpt-swinv2"]
    network = family.build()
    made = dict(network.named_buffers())
    loaded = type(network).from_pretrained(tiny.save(network, tmp_path / "made"))
    assert made
    assert all(torch.equal(made[name], buffer) for name, buffer in loaded.named_buffers())


def test_gradients_are_where_their_tensors_are(gpu: PretendedGPU) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).to(GPU)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    optimizer.found_inf = torch.zeros((), device=GPU)
    x = torch.rand(2, 3).to(GPU)
    network(x).square().sum().backward()
    optimizer.step()
    assert all(p.grad.is_cuda for p in network.parameters())
    assert all(v.is_cuda for state in optimizer.state.values() for v in state.values())
    with gpu.step():
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda here, there: there + here,
    "add to": lambda here, there: here.add_(there),
    "cat": lambda here, there: torch.cat([here, there]),
    "where": lambda here, there: torch.where(here > 0, there, there),
    "matmul": lambda here, there: there @ here.mT,
    "lookup": lambda here, there: torch.nn.functional.embedding(torch.zeros(1, dtype=torch.int64), there),
    "index": lambda here, there: here[torch.zeros(1, dtype=torch.int64, device=GPU)],
    "resample": lambda here, there: torch.nn.functional.grid_sample(
        there[None, None], torch.zeros(1, 1, 1, 2), align_corners=False
    ),
    "add to a value": lambda here, there: here.sum().add_(there.sum()),
    "numpy": lambda here, there: there.numpy(),
    "generator": lambda here, there: torch.rand(2, generator=torch.Generator(), device=GPU),
    "single value": lambda here, there: torch.cat([here[0, :1].sum()[None], there[0]]),
    "stack": lambda here, there: torch.stack([here.sum(), there.sum()]),
}


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED.keys())
def test_errors_of_a_gpu_are_raised(act: Callable[[Tensor, Tensor], Any], gpu: PretendedGPU) -> None:
    here = torch.rand(2, 3)
    with pytest.raises(Refused):
        act(here, here.to(GPU))


WAITS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "item": lambda here, there: there[0, 0].item(),
    "bool": lambda here, there: bool(there.any()),
    "float": lambda here, there: float(there.sum()),
    "nonzero": lambda here, there: there.nonzero(),
    "one argument of where": lambda here, there: torch.where(there > 0),
    "masked_select": lambda here, there: there.masked_select(there > 0),
    "mask": lambda here, there: there[there > 0],
    "set by a mask": lambda here, there: there.__setitem__(there > 0, there.sum()),
    "list": lambda here, there: there[[1, 0]],
    "indices of the host": lambda here, there: there[torch.tensor([0])],
    "tolist": lambda here, there: there.tolist(),
    "cpu": lambda here, there: there.cpu(),
    "to the host": lambda here, there: there.to("cpu", non_blocking=True),
    "copied to the host": lambda here, there: here.copy_(there),
    "unique": lambda here, there: there.unique(),
    "allclose": lambda here, there: torch.allclose(there, there),
    "numbers": lambda here, there: torch.tensor([1.0, 2.0], device=GPU),
    "a number": lambda here, there: torch.as_tensor(0.5, device=there.device),
    "new_tensor": lambda here, there: there.new_tensor([1.0]),
    "pageable": lambda here, there: here.to(GPU),
    "pageable, without blocking": lambda here, there: here.to(GPU, non_blocking=True),
    "pinned, blocking": lambda here, there: here.pin_memory().to(GPU),
    "like another": lambda here, there: here.to(there),
    "copied": lambda here, there: there.copy_(here),
    "cuda": lambda here, there: here.cuda(),
    "a network": lambda here, there: torch.nn.Linear(2, 2).to(GPU),
    "loop": lambda here, there: there.repeat_interleave(torch.ones(2, dtype=torch.int64, device=GPU), dim=0),
}


@pytest.mark.parametrize("act", WAITS.values(), ids=WAITS.keys())
def test_synchronisation_in_a_step_is_an_error(
    act: Callable[[Tensor, Tensor], Any], gpu: PretendedGPU
) -> None:
    here = torch.rand(2, 3)
    there = here.to(GPU)
    act(here, there)
    with gpu.step(), pytest.raises(Waited):
        act(here, there)


ALLOWED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "numbers": lambda here, there: (2 * there + 1).clamp(min=0.0).masked_fill(there > 1, 0.0),
    "a value of the host": lambda here, there: there * here.sum() + torch.tensor(2.0),
    "pinned": lambda here, there: here.pin_memory().to(GPU, non_blocking=True) + there,
    "pinned, copied": lambda here, there: there.copy_(here.pin_memory(), non_blocking=True),
    "where": lambda here, there: torch.where(there > 0, there, 0.0) + torch.where(there > 0, 1.0, there),
    "made there": lambda here, there: there + torch.eye(3, device=GPU)[:2] + torch.ones_like(there),
    "slices": lambda here, there: there[:, 1:].sum(dim=0)[None].expand(2, -1),
    "indices": lambda here, there: there[torch.zeros(3, dtype=torch.int64, device=GPU)],
    "quantities": lambda here, there: torch.linspace(0, 1, 3, device=GPU) @ there.mT,
    "the host's own": lambda here, there: (here.tolist(), here.nonzero(), bool(here.sum() > 0)),
}


@pytest.mark.parametrize("act", ALLOWED.values(), ids=ALLOWED.keys())
def test_operations_without_synchronisation_are_allowed(
    act: Callable[[Tensor, Tensor], Any], gpu: PretendedGPU
) -> None:
    here = torch.rand(2, 3)
    there = here.to(GPU)
    with gpu.step():
        act(here, there)


def test_a_number_is_written_without_waiting(gpu: PretendedGPU) -> None:
    there = torch.rand(2, 3).to(GPU)
    with gpu.step():
        there[0, 1] = 2.0
        there[:, 0] = 1.0
    assert there[0, 1].item() == 2.0


def test_the_patches_are_removed() -> None:
    with PretendedGPU():
        there = torch.rand(2).to(GPU)
    assert there.device.type == "cpu"
    assert "device" not in vars(Tensor)
    assert "to" not in vars(Tensor)


# --- a step of a refinement -----------------------------------------------------------------------


def take_steps(
    gpu: PretendedGPU, refiner: Refiner, picture: Tensor | None = None, *, may_wait: bool = False
) -> None:
    """Take steps as a run does. Only the first, which makes constants, may wait, unless ``may_wait``."""
    problem = refiner.make_problem(photo() if picture is None else picture, "a tiger")
    assert gpu.holds(problem.initial)
    loop = Loop(refiner, problem, refiner.preset_plan)
    group = loop.new_group(range(2))
    draws = loop.draws(group.members)
    stepper = refiner.stepper(group.advance)
    loop.step(group, 0, next(draws), stepper)
    group.loss_log.read()
    for step in range(1, refiner.optim.steps):
        drawn = next(draws)
        with nullcontext() if may_wait else gpu.step():
            loop.step(group, step, drawn, stepper)
    group.loss_log.read()
    assert group.loss_log.steps == refiner.optim.steps
    parameters = [p for params in group.state.groups().values() for p in params]
    assert all(gpu.holds(p) and (p.grad is None or gpu.holds(p.grad)) for p in parameters)
    loop.finish(group)
    outcome = loop.outcome(0.0)
    assert outcome.members.device.type == "cpu"
    assert torch.isfinite(outcome.members).all()
    assert (outcome.members != outcome.initial).any()


def refiner_on(prior: Any = None, renderer: Any = None, **optim: Any) -> Refiner:
    settings = {"parameterization": "embeddings", "steps": 3, "members": 2}
    refiner = make_refiner(prior, 2, GPU, **(settings | optim))
    refiner.renderer = renderer or RENDERERS.build("blinn-phong", {"lights": 2, "backend": "torch"})
    return refiner


PRIORS = ["latent", "sd 2.1", "xl", "sd 3", "sd 3.5", "sd 3, t5", "ic-light", "tiny vae", "random"]
PRIORS += ["klein", "z-image", "qwen-image", "qwen-image-edit", "pixart", "prx-pixel"]
PIXEL_PRIORS = ["pixel", "pixel, unconditional", "ddpm"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*PRIORS, *PIXEL_PRIORS])
def test_every_prior_takes_a_step_without_waiting(kind: str, gpu: PretendedGPU) -> None:
    """In half precision, to which ``dtype: auto`` resolves on a GPU."""
    prior = make_prior(kind, "sds", GPU)
    published_in_bfloat16 = {"sd 3.5", "klein", "z-image", "qwen-image", "qwen-image-edit", "prx-pixel"}
    assert prior.describe()["dtype"] == ("bfloat16" if kind in published_in_bfloat16 else "float16")
    take_steps(gpu, refiner_on(prior))


def on_the_gpu() -> int:
    """Bytes of all living tensors on the GPU."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) in (Tensor, torch.nn.Parameter) and x.is_cuda]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("kind", PRIORS)
def test_text_encoders_leave_the_gpu_after_use(
    kind: str, gpu: PretendedGPU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path))
    prior = make_prior(kind, "sds", GPU)
    # Constants on the way into the model are made once.
    prior.to_model_space(photo().to(GPU), prior.draw(1, seeded()).to(GPU))
    before, during = on_the_gpu(), []
    release = TextEncoders.release
    monkeypatch.setattr(TextEncoders, "release", lambda self: (during.append(on_the_gpu()), release(self))[1])
    condition = prior.condition(photo().to(GPU), "a tiger")
    encoders = [encoder for _, _, encoder in prior._encoders._parts]
    weights = [x for encoder in encoders for x in (*encoder.parameters(), *encoder.buffers())]
    size = sum(x.numel() * x.element_size() for x in {x.data_ptr(): x for x in weights}.values())
    assert len(during) == 1
    assert during[0] >= before + size
    assert not any(x.is_cuda for x in weights)
    own = sum(x.untyped_storage().nbytes() for x in condition.tensors.values())
    assert on_the_gpu() <= before + own


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["latent", "sd 3.5", "prx-pixel"])
def test_weights_in_fp8_take_a_step_without_waiting(kind: str, gpu: PretendedGPU) -> None:
    prior = make_prior(kind, "sds", GPU, quantize="fp8-storage")
    assert all(x.is_cuda for x in (*prior.network().parameters(), *prior.network().buffers()))
    take_steps(gpu, refiner_on(prior))


RULE_CASES = [("pixel", score) for score in PIXEL]
RULE_CASES += [("latent", score) for score in LATENT if score not in PIXEL] + [("sd 3", "rfds")]
RULE_CASES += [("klein", "rfds"), ("z-image", "nfsd"), ("qwen-image", "nfsd"), ("qwen-image-edit", "dds")]
RULE_CASES += [("pixart", "csd"), ("prx-pixel", "rfds")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "score"), RULE_CASES)
def test_every_rule_takes_a_step_without_waiting(kind: str, score: str, gpu: PretendedGPU) -> None:
    if score == "vsd":
        pytest.importorskip("peft")
    take_steps(gpu, refiner_on(make_prior(kind, score, GPU, dtype="float32", clip=1.0)))


PIXEL_OPTIONS = [{"view": "whole"}, {"view": "multiscale"}, {"view": "pyramid"}, {"condition_on": "nothing"}]


@pytest.mark.parametrize("options", PIXEL_OPTIONS)
def test_options_of_pixel_priors_take_a_step_without_waiting(
    options: dict[str, Any], gpu: PretendedGPU
) -> None:
    take_steps(gpu, refiner_on(make_prior("pixel", "sds", GPU, dtype="float32", **options)))


def test_a_negative_prompt_takes_a_step_without_waiting(gpu: PretendedGPU) -> None:
    take_steps(gpu, refiner_on(make_prior("latent", "csd", GPU, dtype="float32", negative_scale=1.0)))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_every_parameterization_takes_a_step_without_waiting(
    parameterization: str, gpu: PretendedGPU
) -> None:
    take_steps(gpu, refiner_on(parameterization=parameterization))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_learnable_parameters_are_made_on_the_device(parameterization: str, gpu: PretendedGPU) -> None:
    refiner = refiner_on(parameterization=parameterization)
    loop = Loop(refiner, refiner.make_problem(photo()), refiner.preset_plan)
    with gpu.step():
        loop.new_group(range(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "optim",
    [
        {"early_stop": {"enabled": True, "window": 2}, "steps": 6},
        {"schedule": "cosine"},
        {"objectives": {}, "prior_weight": 2.0},
        {"performance": {"checkpointing": True, "channels_last": False}},
    ],
    ids=["early stop", "cosine", "prior alone", "execution"],
)
def test_ways_to_optimise_take_a_step_without_waiting(optim: dict[str, Any], gpu: PretendedGPU) -> None:
    take_steps(gpu, refiner_on(make_prior("latent", "sds", GPU), **optim))


COLOURED = {"light_saturation": 0.5, "ambient": 0.1, "exposure": 0.5, "light_distribution": "uniform"}
PINHOLE = {"camera": "pinhole", "field_of_view": 60.0}
LIGHT: dict[str, dict[str, Any]] = {
    "plain": {},
    "coloured": COLOURED,
    "pinhole": PINHOLE,
    "intrinsics": {"camera": "pinhole", "intrinsics": [1.0, 1.3, 0.5, 0.5]},
    "grey": {"albedo": "grey", "light_distribution": "cosine"},
    "shadows": {"shadows": "soft", "shadow_samples": 3},
    "shadows, pinhole": {"shadows": "soft", "shadow_samples": 3, **PINHOLE},
}
SHADED = [name for name in RENDERERS.entries() if name != "mesh"]
RENDERED = [(name, light) for name in SHADED for light in ("plain", "coloured", "pinhole")]
RENDERED += [("blinn-phong", light) for light in LIGHT if ("blinn-phong", light) not in RENDERED]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "light"), RENDERED)
def test_every_renderer_takes_a_step_without_waiting(name: str, light: str, gpu: PretendedGPU) -> None:
    options = {"lights": 2, **LIGHT[light]} | ({"backend": "torch"} if name == "blinn-phong" else {})
    take_steps(gpu, refiner_on(renderer=RENDERERS.build(name, options)))


@pytest.mark.pytorch3d
@pytest.mark.parametrize("options", [{}, {"max_rotation": 5.0}, PINHOLE])
def test_the_mesh_renderer_takes_a_step(
    options: dict[str, Any], gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, because the number of triangles depends on the depth edges. Devices do not mix."""
    mesh = pytest.importorskip("pytorch3d.renderer.mesh")
    # On a tensor of the GPU, pytorch3d would take an algorithm that only a real GPU has.
    monkeypatch.setattr(mesh, "rasterize_meshes", partial(mesh.rasterize_meshes, bin_size=0))
    take_steps(gpu, refiner_on(renderer=Mesh(lights=2, **options)), may_wait=True)


def depth_model(name: str, folder: Any) -> Any:
    if name == "marigold":
        return tiny.load(name, GPU, checkpoint=str(tiny.marigold(folder)), longer_side=64)
    family = FAMILIES[name]
    checkpoint = str(tiny.save(family.build(), folder / name))
    return tiny.load(family.component, GPU, checkpoint=checkpoint, **family.options)


VOTE = "transformers reads from the GPU which of the two heads a picture is for"
INDICES = "transformers keeps BEiT's relative position indices on the host and sends them at each call"
WAITING = {
    ("zoedepth-two-heads", "embeddings+decoder"): VOTE,
    ("zoedepth-two-heads", "full"): INDICES,
    ("zoedepth", "full"): INDICES,
    ("dpt-beit", "full"): INDICES,
    ("depth-anything-3-any-view", "full"): "the package makes its rotary positions on the host",
}
"""Synchronisation inside another package, with its reason."""


@pytest.mark.slow
@pytest.mark.parametrize("name", marked([*FAMILIES, "marigold"]))
@pytest.mark.parametrize(
    "parameterization", ["embeddings+decoder", pytest.param("full", marks=pytest.mark.slow)]
)
def test_every_depth_model_takes_a_step_without_waiting(
    name: str, parameterization: str, gpu: PretendedGPU, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    if why := WAITING.get((name, parameterization)):
        request.applymarker(pytest.mark.xfail(raises=Waited, strict=True, reason=why))
    model = depth_model(name, tmp_path)
    if parameterization not in model.supports:
        parameterization = {"embeddings+decoder": "depth", "full": "low-rank"}[parameterization]
    optim = refiner_on(TargetPrior(), parameterization=parameterization, learning_rates=RATES).optim
    renderer = RENDERERS.build("blinn-phong", {"backend": "torch"})
    picture = photo(*FAMILIES[name].wide) if name in FAMILIES else photo(48, 64)
    take_steps(gpu, Refiner(model, renderer, TargetPrior(), optim, None, GPU), picture)
