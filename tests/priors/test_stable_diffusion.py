"""Each family against diffusers' own pipeline of the same checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Illumination
from redepth.priors.distillation import StepInputs
from redepth.priors.latent import LatentDiffusion
from redepth.priors.stable_diffusion import StableDiffusion, StableDiffusion21
from redepth.priors.stable_diffusion_3 import T5_TOKENS, StableDiffusion3, StableDiffusion35
from redepth.priors.stable_diffusion_xl import StableDiffusionXL
from tests.support.checkpoints import tiny
from tests.support.helpers import CPU, photo, relative_error, seeded

BOUND = 1e-5
SIZE = 64


def xl(**options: Any) -> StableDiffusionXL:
    return StableDiffusionXL(checkpoint=str(tiny("xl")), size=SIZE, **options).load(CPU)


def sd3(**options: Any) -> StableDiffusion3:
    return StableDiffusion3(checkpoint=str(tiny("sd3")), size=SIZE, **options).load(CPU)


def sd35(**options: Any) -> StableDiffusion35:
    return StableDiffusion35(checkpoint=str(tiny("sd35")), size=SIZE, **options).load(CPU)


def pipeline(name: str, checkpoint: str, **parts: Any) -> Any:
    import diffusers

    found = getattr(diffusers, name).from_pretrained(tiny(checkpoint), **parts)
    found.set_progress_bar_config(disable=True)
    return found


def predictions(prior: LatentDiffusion, prompt: str, noisy: Tensor, t: int) -> dict[str, Tensor]:
    inputs = StepInputs(prior.condition(photo(), prompt), Illumination(), prior.draw(1, seeded()))
    with torch.no_grad():
        return dict(prior.predict(noisy, torch.tensor([t]), inputs, ("text", "uncond")))


def first_call(pipe: Any, denoiser: torch.nn.Module, **arguments: Any) -> tuple[dict[str, Any], Tensor]:
    """What a pipeline hands to its denoiser first, and what that answers: the empty prompt, the prompt."""
    seen: list[tuple[dict[str, Any], Tensor]] = []

    def record(_module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        names = dict(zip(("sample", "timestep"), args, strict=False))
        seen.append(({**names, **kwargs}, output[0]))

    hook = denoiser.register_forward_hook(record, with_kwargs=True)
    pipe(height=SIZE, width=SIZE, output_type="latent", generator=seeded(), **arguments)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("cls", "name"), [(StableDiffusion, "sd15"), (StableDiffusion21, "sd21")])
def test_sd_is_told_and_predicts_what_the_pipeline_does(cls: Any, name: str) -> None:
    prior = cls(checkpoint=str(tiny(name)), size=SIZE).load(CPU)
    pipe = pipeline("StableDiffusionPipeline", name, safety_checker=None, feature_extractor=None)
    call, output = first_call(pipe, pipe.unet, prompt="a tiger", num_inference_steps=2)
    found = predictions(prior, "a tiger", call["sample"][:1], int(call["timestep"]))
    assert relative_error(found["uncond"], output[:1]) < BOUND
    assert relative_error(found["text"], output[1:]) < BOUND
    assert relative_error(found["text"], output[:1]) > 100 * BOUND
    assert prior.schedule.predicts == pipe.scheduler.config.prediction_type


def test_the_published_sizes() -> None:
    sizes = {cls: cls().size for cls in (StableDiffusion, StableDiffusion21, StableDiffusionXL)}
    assert list(sizes.values()) == [512, 768, 1024]
    assert StableDiffusion3().size == 1024


# --- SDXL -----------------------------------------------------------------------------------------


def test_xl_is_told_and_predicts_what_the_pipeline_does() -> None:
    pipe = pipeline("StableDiffusionXLPipeline", "xl", add_watermarker=False)
    call, output = first_call(pipe, pipe.unet, prompt="a tiger", num_inference_steps=2)
    found = predictions(xl(), "a tiger", call["sample"][:1], int(call["timestep"]))
    assert relative_error(found["uncond"], output[:1]) < BOUND
    assert relative_error(found["text"], output[1:]) < BOUND
    assert relative_error(found["text"], output[:1]) > 100 * BOUND
    told = call["added_cond_kwargs"]
    assert told["time_ids"][0].tolist() == [SIZE, SIZE, 0, 0, SIZE, SIZE]
    # Nothing is zeros, for the prompt as well.
    empty = xl().condition(photo(), "").tensors
    assert not empty["text"].any()
    assert torch.equal(empty["text"], call["encoder_hidden_states"][:1])
    assert torch.equal(empty["text.pooled"], told["text_embeds"][:1])


def test_xl_with_a_negative_prompt_is_told_it() -> None:
    pipe = pipeline("StableDiffusionXLPipeline", "xl", add_watermarker=False)
    told = pipe.encode_prompt("a tiger", negative_prompt="dull")
    found = xl(negative_prompt="dull").condition(photo(), "a tiger").tensors
    names = ("text", "uncond", "text.pooled", "uncond.pooled")
    for name, expected in zip(names, told, strict=True):
        assert relative_error(found[name], expected.detach()) < BOUND


def test_xls_vae_runs_in_float32_where_float16_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableDiffusionXL, "precision", lambda *_: torch.float16)
    prior = xl()
    assert prior._vae.dtype is torch.float32
    assert prior.vae_precision({}) is torch.float32
    assert prior.vae_precision({"force_upcast": False}) is torch.float16
    prior._dtype = torch.bfloat16
    assert prior.vae_precision({"force_upcast": True}) is torch.bfloat16


# --- SD 3 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd3", "sd35"])
@pytest.mark.parametrize("t5", [False, True])
def test_sd3_is_told_and_predicts_what_the_pipeline_does(name: str, t5: bool) -> None:
    without = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = pipeline("StableDiffusion3Pipeline", name, **without)
    call, output = first_call(pipe, pipe.transformer, prompt="a tiger", num_inference_steps=2)
    prior = sd3(t5=t5) if name == "sd3" else sd35(t5=t5)
    # The pipeline's first time is 1000, and t counts from 0.
    time = call["timestep"].tolist()
    assert time == [1000.0, 1000.0]
    found = predictions(prior, "a tiger", call["hidden_states"][:1], 999)
    assert relative_error(found["uncond"], output[:1]) < BOUND
    assert relative_error(found["text"], output[1:]) < BOUND
    assert relative_error(found["text"], output[:1]) > 100 * BOUND
    told = prior.condition(photo(), "a tiger").tensors["text"]
    assert told.shape == (1, 77 + T5_TOKENS, 64)
    assert bool(told[:, 77:].any()) == t5


def test_sd35_has_its_defaults_and_its_own_layers() -> None:
    prior = sd35()
    assert StableDiffusion35().t5
    assert prior.precision(torch.device("cuda")) is torch.bfloat16
    assert prior.precision(CPU) is torch.float32
    assert [block.attn2 is not None for block in prior._denoiser.transformer_blocks] == [True, False]
    assert [part.encoder for part in prior.text_parts][2] == "T5EncoderModel"


def test_sd3s_latents_are_shifted_and_scaled_and_its_time_is_sigma() -> None:
    prior = sd3()
    config = prior._vae.config
    square = torch.rand(1, 3, SIZE, SIZE, generator=seeded())
    posterior = prior._vae.encode(square * 2 - 1).latent_dist
    expected = (posterior.mode() - config.shift_factor) * config.scaling_factor
    assert torch.allclose(prior.encode(square, None), expected, atol=1e-6)
    assert config.latent_channels == 16
    seen: list[Tensor] = []
    prior._denoiser.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True
    )
    noisy = torch.randn(2, 16, 8, 8, generator=seeded())
    inputs = StepInputs(prior.condition(photo(), "a"), Illumination(), prior.draw(2, seeded()))
    t = torch.tensor([0, 499])
    prior.predict(noisy, t, inputs, ("text",))
    assert seen[0].tolist() == pytest.approx([1.0, 500.0])
    assert (1000 * prior.schedule.s[t]).tolist() == pytest.approx([1.0, 500.0])
