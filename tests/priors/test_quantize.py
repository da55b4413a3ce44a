"""Denoisers with weights in 8 or 4 bits."""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import re
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import redepth
from redepth.config import Optim, Performance
from redepth.contracts import Execution, Illumination
from redepth.errors import ConfigError, MissingDependencyError
from redepth.optim.execution import check_execution
from redepth.priors import quantize
from redepth.priors.distillation import StepInputs
from redepth.priors.quantize import FP8, StoredConv2d, StoredLinear, store_in_fp8, stored, widened
from redepth.registry import options_schema
from tests.priors.test_rules_on_models import FAMILIES, latent_prior, run
from tests.support.helpers import CPU, photo, relative_error, seeded

CUDA = torch.device("cuda")
KINDS = ["latent", *(kind for kind in FAMILIES if kind not in ("ddpm",) and "random" not in kind)]


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-4, 0.02, 30.0])
def test_weights_come_back_with_the_error_of_float8(size: float, dtype: torch.dtype) -> None:
    weight = torch.randn(64, 32, 3, 3, generator=seeded()) * size
    small, scale = stored(weight)
    assert small.dtype is FP8
    assert scale.shape == (64, 1, 1, 1)
    assert torch.equal(torch.log2(scale), torch.log2(scale).round())
    found = widened(small, scale, dtype)
    assert found.dtype is dtype
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    least = 2**-25 if dtype is torch.float16 else 0.0
    bound = weight.abs() / 16 + largest * 2**-18 + least
    assert bool(((found.float() - weight).abs() <= bound).all())
    # Powers of 2 multiply without rounding: all dtypes give the same.
    assert torch.allclose(found.float(), small.float() * scale, rtol=0, atol=least)


def test_rows_are_scaled_and_small_weights_keep_their_digits() -> None:
    """The library's casting has no scale: weights of a large model are below float8's normal numbers."""
    weight = torch.randn(64, 256, generator=seeded()) * 0.004
    found, plain = widened(*stored(weight), torch.float32), weight.to(FP8).float()
    assert relative_error(found, weight) < 0.03
    assert relative_error(plain, weight) > 0.1


def test_zeros_and_the_largest_number_are_exact() -> None:
    weight = torch.tensor([[0.0, 0.0], [448.0, -448.0], [1e-30, 0.0], [3e30, 1.0]])
    found = widened(*stored(weight), torch.float32)
    assert torch.equal(found[:2], weight[:2])
    assert float(found[2, 0]) == pytest.approx(1e-30, rel=1 / 16)
    assert float(found[3, 0]) == pytest.approx(3e30, rel=1 / 16)
    assert bool(torch.isfinite(found).all())


def test_layers_compute_with_the_stored_weights_and_pass_gradients_to_their_input() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(2), nn.Linear(16, 4, bias=False)
    ).double()
    expected = copy.deepcopy(network)
    for layer in (expected[0], expected[2]):
        layer.weight.data = widened(*stored(layer.weight), torch.float64)
    store_in_fp8(network)
    assert [type(layer) for layer in network] == [StoredConv2d, nn.Flatten, StoredLinear]
    found, plain = (torch.randn(2, 3, 4, 4, generator=seeded()).double().requires_grad_() for _ in range(2))
    outputs = network(found), expected(plain)
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(found.grad, plain.grad)
    assert bool(found.grad.any())


def test_the_layers_are_those_of_the_librarys_casting() -> None:
    prior, theirs = latent_prior("sds", "sd 3.5"), latent_prior("sds", "sd 3.5")._denoiser
    store_in_fp8(prior._denoiser)
    theirs.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
    changed = {n for n, m in theirs.named_modules() if getattr(m, "_diffusers_hook", None)}
    assert {n for n, m in prior._denoiser.named_modules() if isinstance(m, StoredLinear)} == changed
    assert "transformer_blocks.0.attn.to_q" in changed
    assert not any("norm" in name or "pos_embed" in name for name in changed)


# --- priors ---------------------------------------------------------------------------------------


def memory(network: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in (*network.parameters(), *network.buffers()))


@pytest.mark.parametrize("kind", KINDS)
def test_fp8_storage_is_smaller_and_predicts_nearly_the_same(kind: str) -> None:
    plain, small = latent_prior("sds", kind), latent_prior("sds", kind, quantize="fp8-storage")
    weights = [p for p in small._denoiser.parameters() if p.dtype is FP8]
    # A byte in place of 4 for each weight, and the scales of the rows.
    saved = sum(3 * p.numel() - 4 * len(p) for p in weights)
    assert memory(plain._denoiser) - memory(small._denoiser) == saved > 0
    assert not any(p.requires_grad for p in small._denoiser.parameters())
    assert small.describe()["quantize"] == "fp8-storage"
    found, expected = (predicted(prior) for prior in (small, plain))
    assert 1e-4 < relative_error(found, expected) < 0.2


def predicted(prior: Any) -> Tensor:
    lit = Illumination({"direction": torch.tensor([[0.0, 0.0, 1.0]])})
    inputs = StepInputs(prior.condition(photo(), "a tiger"), lit, prior.draw(1, seeded()))
    with torch.no_grad():
        return prior.predict(inputs.noise["noise"], torch.tensor([400]), inputs, ("text",))["text"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fp8_storage_refines(kind: str) -> None:
    outcome = run(latent_prior("sds", kind, quantize="fp8-storage"))
    assert not outcome.partial
    assert (outcome.members != outcome.initial).any()


def test_a_copy_learns_inside_stored_layers() -> None:
    """Of all rules `vsd` alone needs gradients inside the denoiser, by the input of its layers."""
    pytest.importorskip("peft")
    prior = latent_prior("vsd", quantize="fp8-storage")
    plain = latent_prior("sds", quantize="fp8-storage")
    outcome = run(prior)
    assert (outcome.members != outcome.initial).any()
    learned = [p for n, p in prior.network().named_parameters() if "lora_B" in n]
    assert learned
    assert all(p.dtype is torch.float32 and bool(p.any()) for p in learned)
    assert torch.equal(predicted(prior), predicted(plain))


@pytest.mark.parametrize("kind", ["latent", "sd 3.5"])
def test_every_way_of_execution_computes_the_same(kind: str) -> None:
    prior = latent_prior("sds", kind, quantize="fp8-storage")
    expected = predicted(prior)
    for how in (Execution(), Execution(shared_prefix=True), Execution(fused_kernels=True)):
        prior.tune(how)
        assert relative_error(predicted(prior), expected) < 1e-5


def test_upcasting_keeps_the_stored_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.priors.distillation import DiffusionPrior

    monkeypatch.setattr(DiffusionPrior, "precision", lambda *_: torch.bfloat16)
    prior = latent_prior("sds", quantize="fp8-storage")
    assert prior.upcast() == "bfloat16"
    dtypes = {p.dtype for p in prior._denoiser.parameters()}
    assert dtypes == {torch.float32, FP8}
    assert predicted(prior).dtype is torch.float32


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_bits_that_need_a_gpu_are_refused_on_a_cpu_before_weights_are_looked_for(form: str) -> None:
    preset = redepth.load_preset("re-depth-anything", overrides=[f"prior.quantize={form}"])
    said = f"prior.quantize: {form} runs on an NVIDIA GPU, and the device is 'cpu': take fp8-storage or none"
    with pytest.raises(ConfigError, match=said):
        redepth.Pipeline(preset, device="cpu")


def test_each_form_runs_where_it_can() -> None:
    for form in ("none", "fp8-storage"):
        quantize.check_device(form, CPU)  # type: ignore[arg-type]
    for form in ("none", "fp8-storage", "int8", "nf4"):
        quantize.check_device(form, CUDA)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=re.escape("the device is 'mps': take none")):
        quantize.check_device("fp8-storage", torch.device("mps"))


@pytest.mark.parametrize("form", ["int8", "nf4"])
@pytest.mark.parametrize("package", quantize.PACKAGES)
def test_a_missing_package_names_its_extra(form: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    def find(name: str) -> ModuleSpec | None:
        return None if name == package else ModuleSpec(name, None)

    monkeypatch.setattr(quantize.importlib.util, "find_spec", find)
    monkeypatch.setitem(sys.modules, package, None)
    from redepth.priors.stable_diffusion import StableDiffusion

    with pytest.raises(MissingDependencyError, match=rf'{package} .*pip install "redepth\[int8\]"'):
        StableDiffusion(quantize=form).ensure_available()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "vsd"}, "quantize: nf4 has no adapters, which score: vsd trains"),
        ({"weights": "random"}, "quantize: nf4 reads trained weights"),
        ({"name": "ic-light"}, "quantises weights while they are read, and the offsets are added later"),
    ],
)
def test_what_the_library_cannot_quantise_is_refused(options: dict[str, str], said: str) -> None:
    overrides = [f"prior.{key}={value}" for key, value in {"quantize": "nf4", **options}.items()]
    with pytest.raises(ConfigError, match=said):
        redepth.Pipeline("re-depth-anything", device="cpu", overrides=overrides)


def test_the_librarys_weights_become_no_graph_and_are_not_compiled() -> None:
    from redepth.priors.stable_diffusion import StableDiffusion

    prior = StableDiffusion(quantize="int8")
    check_execution(Optim(), prior)
    for changes in ({"cuda_graphs": "step"}, {"cuda_graphs": "denoiser"}, {"compile": "prior"}):
        optim = Optim(performance=Performance(**changes))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="neither compiled nor a CUDA graph"):
            check_execution(optim, prior)
        check_execution(optim, StableDiffusion(quantize="fp8-storage"))


def test_the_options_of_the_library_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "check_packages", lambda *_: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.46.0")
    from diffusers import BitsAndBytesConfig

    assert quantize.loading_options("none", torch.float16, CUDA) == {}
    assert quantize.loading_options("fp8-storage", torch.float16, CUDA) == {}
    eight = quantize.loading_options("int8", torch.bfloat16, CUDA)
    four = quantize.loading_options("nf4", torch.bfloat16, CUDA)
    assert isinstance(eight["quantization_config"], BitsAndBytesConfig)
    assert eight["quantization_config"].load_in_8bit
    assert four["quantization_config"].bnb_4bit_quant_type == "nf4"
    assert four["quantization_config"].bnb_4bit_compute_dtype is torch.bfloat16
    assert eight["device_map"] == {"": "cuda"}


def test_the_library_does_not_say_at_each_layer_that_it_casts_its_inputs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quantize, "check_packages", lambda *_: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.46.0")
    theirs = logging.getLogger("bitsandbytes.autograd._functions")
    for _ in range(2):
        quantize.loading_options("int8", torch.bfloat16, CUDA)
    theirs.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", torch.bfloat16)
    theirs.warning("another warning")
    assert [record.getMessage() for record in caplog.records] == ["another warning"]
    assert len(theirs.filters) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_the_library_quantises_on_a_gpu(form: str) -> None:
    pytest.importorskip("bitsandbytes")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    plain, small = latent_prior("sds", "sd 3.5", CUDA), latent_prior("sds", "sd 3.5", CUDA, quantize=form)
    assert memory(small._denoiser) < memory(plain._denoiser)
    outcome = run(small, CUDA)
    assert (outcome.members != outcome.initial).any()


def test_every_prior_with_a_prompt_has_the_option() -> None:
    from redepth import priors

    names = {n for n, e in priors.REGISTRY.entries().items() if "redepth." in str(e.target)}
    having = {n for n in names if "quantize" in options_schema(priors.REGISTRY.get(n)).model_fields}
    assert names - having == {"pixel-diffusion"}
