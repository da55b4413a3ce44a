"""Speed by counts and ratios, not by absolute times: operators, synchronisation and loads of a step."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import redepth
from redepth.config import Optim, Performance
from redepth.contracts import Condition, Execution
from redepth.errors import ConfigError, RedepthError
from redepth.guidance import Anchors, Given, Guidance, NormalMap
from redepth.ops.sampling import Taps
from redepth.optim import execution
from redepth.optim import group as group_module
from redepth.optim.loop import Loop
from redepth.optim.loss_log import LossLog
from redepth.optim.objectives import KnownNormals, KnownPoints
from redepth.optim.refiner import Refiner
from redepth.priors.distillation import DiffusionPrior
from redepth.priors.pictures import fit_square
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.checkpoints import SD
from tests.support.helpers import (
    CPU,
    TargetPrior,
    make_refiner,
    photo,
    relative_error,
    seeded,
    tiny_depth_model,
    tiny_prior,
)
from tests.test_pipeline import TINY_PAPER, array

META = torch.device("meta")


class Operators(TorchDispatchMode):
    """Counts the operators that reach the device, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.moved: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.namespace == "aten":
            self.seen[func.__name__.split(".")[0]] += 1
        kwargs = kwargs or {}
        to = kwargs.get("device")
        if func.__name__.startswith("_to_copy") and to is not None and to != args[0].device:
            self.moved.append((args[0].device.type, tuple(args[0].shape)))
        return func(*args, **kwargs)


def operators(refiner: Refiner, steps: int) -> Counter[str]:
    """The operators of a run of this many steps."""
    refiner.optim = refiner.optim.model_copy(update={"steps": steps})
    with Operators() as mode:
        refiner.run(photo())
    return mode.seen


def per_step(refiner: Refiner) -> Counter[str]:
    """The operators of one step in the middle of a run."""
    longer, shorter = operators(refiner, 4), operators(refiner, 3)
    return Counter({name: count for name, count in (longer - shorter).items() if count})


# --- no synchronisation with the device -----------------------------------------------------------


class Descent(torch.optim.Optimizer):
    """Gradient descent for tensors on the meta device, for which fused AdamW is not implemented."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.add_(p.grad, alpha=-group["lr"])


def three_points() -> Anchors:
    return Anchors(
        torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.3, 0.6, 0.4]), torch.tensor([1.0, 1.1, 1.2])
    )


def flat_normals() -> NormalMap:
    return NormalMap(torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 56, 70))


def on_meta(record: Any) -> Any:
    """A record of guidance with its tensors, also those of records inside it, on the meta device.

    The points themselves stay: only their targets take part in a step.
    """
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    if isinstance(record, Anchors):
        values = {"targets": record.targets}
    moved = {n: v.to(META) for n, v in values.items() if isinstance(v, Tensor)}
    moved |= {n: type(v)(*(t.to(META) for t in v)) for n, v in values.items() if isinstance(v, Taps)}
    inside = {n: on_meta(v) for n, v in values.items() if is_dataclass(v)}
    return replace(record, **moved, **inside)


def without_numbers(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop whose tensors are on the meta device, where reading a value is an error."""
    problem = refiner.make_problem(photo(), "a tiger", Given(data=(three_points(), flat_normals())))
    prior: Any = refiner.prior
    if isinstance(prior, StableDiffusion):
        prior._vae.to(META)
    prior.network().to(META)
    prior.schedule = prior.schedule.to(META)
    model: Any = refiner.depth_model
    for half in (model._encoder, model._decoder):
        half.to(META)
    refiner.device = META
    monkeypatch.setattr(group_module, "FUSED_DEVICES", ("meta",))
    monkeypatch.setattr(refiner, "make_optimizer", lambda state: Descent(_bases(state)))
    features = replace(
        problem.features,
        maps=tuple(w.to(META) for w in problem.features.maps),
        constants=tuple(c.to(META) for c in problem.features.constants),
    )
    condition = Condition({k: v.to(META) for k, v in problem.condition.tensors.items()})
    pictures = {name: getattr(problem, name).to(META) for name in ("image", "linear", "initial")}
    records = {kind: on_meta(record) for kind, record in problem.guidance.records.items()}
    problem = replace(problem, features=features, condition=condition, guidance=Guidance(records), **pictures)
    return Loop(refiner, problem, refiner.preset_plan)


def _bases(state: Any) -> list[dict[str, Any]]:
    return [{"params": p, "base": 1e-3} for p in state.groups().values()]


def no_numbers_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse tensors made of Python's numbers on the device: making one waits for it, as reading does."""

    def checked(make: Any) -> Any:
        def made(*args: Any, **options: Any) -> Tensor:
            result = make(*args, **options)
            from_tensor = isinstance(args[0], Tensor) and len(args) == 1
            assert result.device != META or from_tensor, "numbers are sent to the device"
            return result

        return made

    for owner, name in ((Tensor, "new_tensor"), (torch, "tensor"), (torch, "as_tensor")):
        monkeypatch.setattr(owner, name, checked(getattr(owner, name)))


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", ["embeddings+decoder", "full", "low-rank"])
@pytest.mark.parametrize("family", ["pixel", "latent"])
@pytest.mark.parametrize("stopping", [False, True])
def test_a_step_reads_no_value_from_the_device(
    parameterization: str, family: str, stopping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = tiny_prior() if family == "pixel" else StableDiffusion(checkpoint=str(SD), size=64).load(CPU)
    rule = {"enabled": stopping, "window": 2}
    refiner = make_refiner(prior, 2, parameterization=parameterization, early_stop=rule)
    refiner.objectives |= {"anchors": (1.0, KnownPoints()), "normals": (1.0, KnownNormals())}
    loop = without_numbers(refiner, monkeypatch)
    group = loop.new_group(range(3))
    group._checked = True  # only the first step of a group reads values, to check its components
    draws = loop.draws(group.members)
    stepper = refiner.stepper(group.advance)
    loop.step(group, 0, next(draws), stepper)
    no_numbers_from_the_host(monkeypatch)
    drawn = next(draws)
    with Operators() as mode:
        loop.step(group, 1, drawn, stepper)
    assert group.loss_log.failed.device == META
    assert not {"_local_scalar_dense", "nonzero"} & set(mode.seen)
    # Only the random numbers come from the host.
    sent = [*drawn.illumination.tensors.values()]
    sent += [v for k, v in drawn.noise.tensors.items() if k not in prior.on_cpu]
    assert mode.moved == [("cpu", tuple(v.shape)) for v in sent]
    with pytest.raises((NotImplementedError, RuntimeError)):
        group.loss_log.read()


def test_losses_are_read_at_the_first_step_and_every_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    original = LossLog.read

    def read(log: LossLog) -> None:
        before = log.steps
        original(log)
        reads.append(log.steps - before)

    monkeypatch.setattr(LossLog, "read", read)
    make_refiner(steps=12, performance={"read_losses_every": 5}).run(photo())
    assert reads == [1, 4, 5, 2]


# --- when memory runs out -------------------------------------------------------------------------


class Memory:
    """A memory that runs out for more than 2 members, after some calls."""

    def __init__(self, good: int) -> None:
        self.good = good

    def take(self, members: int) -> None:
        if members > 2:
            self.good -= 1
            if self.good < 0:
                raise torch.OutOfMemoryError

    def taking(self, call: Any, members: Any) -> Any:
        """Wrap a call so that it takes memory for its members before it returns."""

        def run(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            self.take(members(*args))
            return result

        return run


class TakesMemoryBackward(torch.autograd.Function):
    """The identity, whose backward pass takes memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory: Memory) -> Tensor:
        ctx.memory = memory
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.memory.take(len(gradient))
        return gradient, None


def exhaust(refiner: Refiner, stage: str, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one stage of each step take memory."""

    def patch(owner: Any, name: str, members: Any) -> None:
        monkeypatch.setattr(owner, name, memory.taking(getattr(owner, name), members))

    if stage == "decode":
        patch(refiner.depth_model, "decode", lambda features, *_: len(features.maps[0]))
    elif stage == "shade":
        patch(BlinnPhong, "__call__", lambda _self, depth, *_: len(depth))
    elif stage == "prior":
        patch(TargetPrior, "__call__", lambda _self, relit, *_: len(relit))
    elif stage == "prior of a preset":
        patch(DiffusionPrior, "__call__", lambda _self, relit, *_: len(relit))
    elif stage == "backward":
        whole = TargetPrior.__call__
        monkeypatch.setattr(
            TargetPrior,
            "__call__",
            lambda self, relit, *rest: whole(self, TakesMemoryBackward.apply(relit, memory), *rest),
        )
    else:
        patch(torch.optim.AdamW, "step", lambda optimizer: len(optimizer.param_groups[0]["params"][0]))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["decode", "shade", "prior", "backward", "optimizer"])
@pytest.mark.parametrize("good", [0, 2])
def test_memory_that_runs_out_at_any_stage_halves_the_members(
    stage: str, good: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once or after some steps, the result is that of a run with fewer members at a time."""
    settings: dict[str, Any] = {"members": 5, "parameterization": "embeddings", "steps": 4}
    expected = make_refiner(**settings, members_per_batch=2).run(photo(), seed=4)
    refiner = make_refiner(**settings)
    exhaust(refiner, stage, Memory(good), monkeypatch)
    with caplog.at_level(logging.WARNING):
        outcome = refiner.run(photo(), seed=4)
    assert [r.message for r in caplog.records] == ["out of memory: going on with 2 members at a time"]
    assert torch.equal(outcome.members, expected.members)
    assert outcome.history == expected.history
    assert outcome.members_per_batch == 2


# --- half precision -------------------------------------------------------------------------------


class Narrow(TargetPrior):
    """A prior in half precision whose score is not finite from some call on, until it is upcast."""

    def __init__(self, good: int, gradient: bool) -> None:
        super().__init__()
        self.good, self.gradient, self.half = good, gradient, True

    def upcast(self) -> str:
        before, self.half = self.half, False
        return "float16" if before else ""

    def __call__(self, relit: Tensor, *rest: Any) -> Tensor:
        self.good -= self.half
        if self.good >= 0 or not self.half:
            return super().__call__(relit, *rest)
        if not self.gradient:
            return super().__call__(relit, *rest) * float("inf")
        relit.register_hook(lambda gradient: gradient * float("nan"))
        return super().__call__(relit, *rest)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("good", [0, 3])
def test_a_run_that_overflows_in_half_precision_continues_in_float32(
    good: int, gradient: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It continues from the last finite state, with one line in the log."""
    settings: dict[str, Any] = {"steps": 12, "performance": {"read_losses_every": 5}}
    settings["early_stop"] = {"enabled": True, "window": 2, "min_improvement": 0.02}
    settings["parameterization"] = "depth"
    with caplog.at_level(logging.WARNING):
        outcome = make_refiner(Narrow(good, gradient), **settings).run(photo(), seed=2)
    what = "the gradient" if gradient else "the prior's loss (Narrow) of member 0"
    line = f"{what} is not finite at step {good + 1}: going on in float32 instead of float16"
    assert [r.message for r in caplog.records] == [line]
    expected = make_refiner(**settings).run(photo(), seed=2)
    assert not outcome.partial
    assert outcome.steps_done == expected.steps_done
    assert outcome.history == expected.history
    assert torch.equal(outcome.members, expected.members)


@pytest.mark.parametrize("family", ["pixel", "latent"])
def test_an_upcast_prior_equals_the_one_in_float32(family: str) -> None:
    def make(dtype: Any) -> Any:
        if family == "latent":
            return StableDiffusion(checkpoint=str(SD), size=64, guidance_scale=2.0, dtype=dtype).load(CPU)
        return tiny_prior(dtype=dtype)

    half, full = make("bfloat16"), make("float32")
    # Upcast weights keep their rounding to half precision.
    weights = half.network().state_dict()
    full.network().load_state_dict(weights)
    if family == "latent":
        full._vae.load_state_dict(half._vae.state_dict())
    assert half.describe()["dtype"] == "bfloat16"
    assert full.upcast() == ""
    condition = half.condition(photo(), "a tiger")
    assert half.upcast() == "bfloat16"
    assert half.describe()["dtype"] == "float32"
    assert half.upcast() == ""
    light, noise = BlinnPhong().draw(1, seeded()).flatten(), full.draw(1, seeded())
    actual, expected = (p(photo(), condition, light, noise) for p in (half, full))
    assert torch.equal(actual, expected)


class Spoiled(PixelDiffusion):
    """A prior whose UNet predicts one value that is not finite, in one picture."""

    value = float("nan")

    def _run(self, noisy: Tensor, *rest: Any) -> Tensor:
        out = super()._run(noisy, *rest).clone()
        out[0, 0, 0, 0] = self.value
        return out


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_prediction_that_is_not_finite_ends_the_run_in_every_precision(
    dtype: Any, value: float, clip: Any
) -> None:
    """The error names the prior and the step; upcasting does not help weights that are broken."""
    prior = tiny_prior(dtype=dtype, clip=clip)
    prior.__class__, prior.value = Spoiled, value
    with pytest.raises(RedepthError, match=r"the prior's loss \(Spoiled '.*'\) of member 0 .* at step 1: "):
        make_refiner(prior).run(photo())


# --- the ways of execution ------------------------------------------------------------------------


def executed(family: str, **how: Any) -> Tensor:
    """The gradient of a score with respect to the picture, under an execution."""
    if family == "latent":
        prior: Any = StableDiffusion(checkpoint=str(SD), size=64, guidance_scale=2.0).load(CPU)
    else:
        prior = tiny_prior()
    prior.tune(Execution(**how))
    picture = photo().requires_grad_()
    light, noise = BlinnPhong().draw(1, seeded()).flatten(), prior.draw(1, seeded())
    prior(picture, prior.condition(photo(), "a tiger"), light, noise).sum().backward()
    assert picture.grad is not None
    return picture.grad


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pixel", "latent"])
@pytest.mark.parametrize(
    "how",
    [
        {"channels_last": False},
        {"checkpointing": True},
        {"cuda_graphs": True},
        {"fused_kernels": True},
        {"fused_kernels": True, "checkpointing": True, "explicit_attention": True},
    ],
)
def test_ways_of_execution_change_nothing(family: str, how: dict[str, Any]) -> None:
    assert relative_error(executed(family, **how), executed(family)) < 1e-4


def test_the_attention_of_the_vae_follows_the_setting() -> None:
    prior = StableDiffusion(checkpoint=str(SD), size=64).load(CPU)
    attention = prior._vae.encoder.mid_block.attentions[0]
    for explicit in (True, False):
        prior.tune(Execution(explicit_attention=explicit))
        assert type(attention.processor).__name__ == ("AttnProcessor" if explicit else "AttnProcessor2_0")


def test_an_upcast_prior_keeps_its_fused_norms() -> None:
    prior = tiny_prior(dtype="bfloat16")
    prior.tune(Execution(fused_kernels=True))
    assert prior.upcast() == "bfloat16"
    norms = [m for m in prior.network().modules() if isinstance(m, torch.nn.GroupNorm)]
    assert all(norm.forward.func.__name__ == "_fused" for norm in norms)


@pytest.mark.parametrize(("device", "auto"), [("cpu", False), ("cuda", True)])
def test_auto_depends_on_the_device(device: str, auto: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tuned(TargetPrior):
        how = Execution()

        def tune(self, how: Execution) -> None:
            self.how = how

    def chosen(prior: bool = True, **options: Any) -> tuple[bool, bool]:
        one, other = Tuned(), Tuned()
        execution.tune(Optim(performance=Performance(**options)), torch.device(device), other, one)
        how = one.how if prior else other.how
        return how.fused_kernels, how.explicit_attention

    monkeypatch.setattr(execution, "TRITON_PROBLEM", "")
    assert chosen() == (auto, auto)
    assert chosen(channels_last=False) == (False, auto)
    assert chosen(prior=False, fused_kernels="on", vae_attention="explicit") == (False, False)
    assert chosen(fused_kernels="on", vae_attention="explicit") == (True, True)
    assert chosen(fused_kernels="off", vae_attention="sdpa") == (False, False)
    monkeypatch.setattr(execution, "TRITON_PROBLEM", "pip install it")
    assert chosen() == (False, auto)
    with pytest.raises(ConfigError, match="fused_kernels=on: pip install it, or take auto"):
        chosen(fused_kernels="on")


@pytest.mark.parametrize("parameterization", ["embeddings+decoder", "decoder", "full"])
@pytest.mark.parametrize("members", [1, 3])
def test_batched_decoders_agree_with_the_loop(parameterization: str, members: int) -> None:
    """After one step: in two, AdamW amplifies rounding of 1e-7 to 1e-3 on so small a network."""
    loop, batched = (
        make_refiner(
            parameterization=parameterization, members=members, steps=1, performance={"decoders": way}
        ).run(photo(), seed=3)
        for way in ("loop", "batched")
    )
    assert relative_error(batched.members, loop.members) < 1e-3
    for name, rows in loop.history.items():
        assert batched.history[name] == [pytest.approx(row, rel=1e-5) for row in rows]


def test_batched_decoders_repeat_to_the_bit_and_stop_early() -> None:
    # No step improves enough for this rule.
    rule = {"enabled": True, "window": 2, "min_improvement": 0.99}
    loop, batched, again = (
        make_refiner(steps=12, early_stop=rule, performance={"decoders": way}).run(photo(), seed=3)
        for way in ("loop", "batched", "batched")
    )
    assert batched.steps_done == loop.steps_done
    assert max(loop.steps_done) < 12
    assert torch.equal(batched.members, again.members)
    assert batched.history == again.history


def test_batched_decoders_halve_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"members": 5, "steps": 4, "performance": {"decoders": "batched"}}
    expected = make_refiner(**settings, members_per_batch=2).run(photo(), seed=4)
    refiner = make_refiner(**settings)
    exhaust(refiner, "decode", Memory(2), monkeypatch)
    outcome = refiner.run(photo(), seed=4)
    assert outcome.members_per_batch == 2
    assert torch.equal(outcome.members, expected.members)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pixel", "latent"])
def test_compiled_networks_score_the_same(family: str) -> None:
    assert relative_error(executed(family, compile=True), executed(family)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("decoders", ["loop", "batched"])
@pytest.mark.parametrize("parameterization", ["embeddings", "embeddings+decoder"])
def test_a_decoder_is_one_graph_for_all_members_and_steps(
    parameterization: str, decoders: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the prediction, one for the steps, one for the results; the test's backend does not compile."""
    graphs: list[Any] = []
    torch._dynamo.reset()  # its limit counts the graphs of other tests too

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    plain, compiled = (
        make_refiner(
            parameterization=parameterization, performance={"compile": way, "decoders": decoders}
        ).run(photo())
        for way in ("off", "all")
    )
    assert 1 <= len(graphs) <= 3
    assert torch.equal(compiled.members, plain.members)


def test_the_latents_keep_their_precision_on_a_cpu() -> None:
    prior = StableDiffusion(checkpoint=str(SD)).load(CPU)
    with torch.no_grad():
        latents = prior.encode(photo(), None)
        prior._vae.double()
        exact = prior._vae.encode(fit_square(photo(), 512).double() * 2 - 1).latent_dist.mean
    assert relative_error(latents, exact * prior._vae.config.scaling_factor) < 1e-5


def test_checkpointing_saves_fewer_activations_of_the_encoder() -> None:
    def saved(checkpointing: bool) -> int:
        prior = StableDiffusion(checkpoint=str(SD), size=64).load(CPU)
        prior.tune(Execution(checkpointing=checkpointing))
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            prior.encode(photo().requires_grad_(), None)
        return sum(kept)

    assert saved(True) < 0.5 * saved(False)


def test_copies_that_are_trained_are_not_compiled() -> None:
    prior = StableDiffusion(checkpoint=str(SD), size=64, score="vsd")
    for how in (Execution(compile=True), Execution(cuda_graphs=True), Execution(fused_kernels=True)):
        with pytest.raises(ConfigError, match=r"performance\.compile=off"):
            prior.tune(how)


def test_every_attention_is_fused() -> None:
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    attentions = 0
    for prior in (StableDiffusion(checkpoint=str(SD), size=64).load(CPU), PixelDiffusion().load(CPU)):
        networks = [prior.network(), *([prior._vae] if isinstance(prior, StableDiffusion) else [])]
        for module in (m for network in networks for m in network.modules() if isinstance(m, Attention)):
            attentions += 1
            assert isinstance(module.processor, AttnProcessor2_0)
    assert attentions > 3
    encoder: Any = tiny_depth_model()._encoder
    assert encoder.backbone.config._attn_implementation == "sdpa"


# --- number of operators --------------------------------------------------------------------------


def count(optim: dict[str, Any]) -> Counter[str]:
    """The operators of a step of the embedded preset's own networks, on a small photo."""
    optim = {"steps": 3, "members": 5, "parameterization": "embeddings"} | optim
    return per_step(make_refiner(embedded_prior(), 2, **optim))


def embedded_prior() -> PixelDiffusion:
    return PixelDiffusion(guidance_base="uncond").load(CPU)


def test_a_step_launches_a_bounded_number_of_operators() -> None:
    """More than 200 belong to the denoiser; each member adds its windows, which are cut one by one."""
    five = count({})
    assert five["_fused_adamw"] + five["_fused_adamw_"] == 2  # one for each group of parameters
    assert five["convolution"] == 67
    assert sum(five.values()) < 900
    one = count({"members": 1})
    assert sum(five.values()) < 1.3 * sum(one.values())


@pytest.mark.slow
def test_a_member_adds_only_the_operators_of_its_decoder() -> None:
    """Gradients are stacked, checked and applied once for all members; batched decoders add nothing."""

    def total(members: int, decoders: str = "loop") -> Counter[str]:
        way = {"decoders": decoders}
        return per_step(make_refiner(members=members, parameterization="embeddings+decoder", performance=way))

    one, two, three = (total(n) for n in (1, 2, 3))
    few, many = (total(n, "batched") for n in (1, 6))
    network = (
        "convolution",
        "convolution_backward",
        "baddbmm",
        "bmm",
        "upsample_bilinear2d",
        "relu",
        "copy_",
    )
    assert all(few[name] == many[name] for name in network)
    assert sum(many.values()) < sum(three.values())
    assert one["_fused_adamw_"] == three["_fused_adamw_"] == 3
    assert sum(three.values()) - sum(two.values()) == sum(two.values()) - sum(one.values())


def test_nothing_is_loaded_twice_however_many_photos_members_and_halvings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from redepth.checkpoints import loading

    loaded: Counter[str] = Counter()
    original = loading.from_pretrained

    def counted(cls: Any, *args: Any, **options: Any) -> Any:
        loaded[cls.__name__] += 1
        return original(cls, *args, **options)

    monkeypatch.setattr(loading, "from_pretrained", counted)
    overrides = [*TINY_PAPER, "optim.steps=1", "optim.members=3", "prior.size=64"]
    pipeline = redepth.Pipeline("re-depth-anything", overrides=overrides, device="cpu")
    exhaust(pipeline.refiner, "prior of a preset", Memory(0), monkeypatch)
    for prompt in ("a tiger", "a horse"):
        pipeline.refine(array(), prompt=prompt)
    assert set(loaded.values()) == {1}
    assert {"UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel"} <= set(loaded)
