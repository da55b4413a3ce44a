"""Every rule through real refinement steps on tiny checkpoints of the real model classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import redepth
from redepth.contracts import Illumination
from redepth.errors import ConfigError, MissingDependencyError, WeightsError
from redepth.optim.outcome import Outcome
from redepth.priors.distillation import DiffusionPrior, StepInputs
from redepth.priors.flux2_klein import Flux2Klein
from redepth.priors.ic_light import ICLight
from redepth.priors.pixart import PixArtSigma
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.prx import PRXPixel
from redepth.priors.qwen_image import QwenImage
from redepth.priors.qwen_image_edit import QwenImageEdit
from redepth.priors.stable_diffusion import StableDiffusion, StableDiffusion21
from redepth.priors.stable_diffusion_3 import StableDiffusion3, StableDiffusion35
from redepth.priors.stable_diffusion_xl import StableDiffusionXL
from redepth.priors.text_diffusion import ARTEFACTS, NEGATIVE
from redepth.priors.z_image import ZImage
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.checkpoints import SD, tiny
from tests.support.helpers import CPU, make_refiner, photo, relative_error, seeded, tiny_prior

PIXEL = ("sds", "sds-x0", "csd", "ism", "sdi", "dds", "vsd")
LATENT = (*PIXEL, "nfsd", "sds-bridge")
# Guided inversion of an untrained model multiplies float noise; without guidance it does not.
FAST: dict[str, Any] = {"inversion_steps": 2, "inversion_guidance": 1.0, "guidance_scale": 2.0}
# The recorded text encoder reads 24 tokens.
SHORT: dict[str, Any] = {"negative_prompt": "dull", "artefacts": "noisy", "size": 64}


def latent_prior(score: Any, kind: str = "latent", device: torch.device = CPU, **more: Any) -> Any:
    """A prior of a family, or of Stable Diffusion with something else in it."""
    cls, where = {
        "latent": (StableDiffusion, {"checkpoint": SD}),
        "sd 2.1": (StableDiffusion21, {"checkpoint": tiny("sd21")}),
        "xl": (StableDiffusionXL, {"checkpoint": tiny("xl")}),
        "sd 3": (StableDiffusion3, {"checkpoint": tiny("sd3")}),
        "sd 3.5": (StableDiffusion35, {"checkpoint": tiny("sd35")}),
        "pixart": (PixArtSigma, {"checkpoint": tiny("pixart")}),
        "prx-pixel": (PRXPixel, {"checkpoint": tiny("prx-pixel")}),
        "sd 3, t5": (StableDiffusion3, {"checkpoint": tiny("sd3"), "t5": True}),
        "ic-light": (ICLight, {"checkpoint": tiny("ic-light"), "light_checkpoint": tiny("ic-light")}),
        "tiny vae": (StableDiffusion, {"checkpoint": SD, "vae": "tiny", "vae_checkpoint": tiny("tiny-vae")}),
        "tiny vae, sd 3": (
            StableDiffusion3,
            {"checkpoint": tiny("sd3"), "vae": "tiny", "vae_checkpoint": tiny("tiny-vae-16")},
        ),
        "klein": (Flux2Klein, {"checkpoint": tiny("klein")}),
        "z-image": (ZImage, {"checkpoint": tiny("z-image")}),
        "qwen-image": (QwenImage, {"checkpoint": tiny("qwen-image")}),
        "qwen-image-edit": (QwenImageEdit, {"checkpoint": tiny("qwen-image-edit")}),
        "random": (StableDiffusion, {"checkpoint": SD, "weights": "random"}),
        "random xl": (StableDiffusionXL, {"checkpoint": tiny("xl"), "weights": "random"}),
        "random sd 3": (StableDiffusion3, {"checkpoint": tiny("sd3"), "weights": "random"}),
        "random ic-light": (ICLight, {"checkpoint": tiny("ic-light"), "weights": "random"}),
    }[kind]
    options = {k: str(v) if isinstance(v, Path) else v for k, v in where.items()}
    return cls(**{"score": score, **options, **FAST, **SHORT, **more}).load(device)


def make_prior(kind: str, score: str, device: torch.device = CPU, **more: Any) -> Any:
    if kind.startswith("pixel"):
        return tiny_prior(kind == "pixel", device, score=score, **FAST, **more)
    if kind == "ddpm":
        return PixelDiffusion(checkpoint=str(tiny("ddpm")), score=score, **FAST, **more).load(device)
    return latent_prior(score, kind, device, **more)


def run(prior: Any, device: torch.device = CPU, **optim: Any) -> Outcome:
    settings: dict[str, Any] = {"parameterization": "embeddings", "steps": 3, "members": 2}
    return make_refiner(prior, 2, device, **(settings | optim)).run(photo(), prompt="a tiger", seed=1)


CASES = [("pixel", score) for score in PIXEL] + [("latent", score) for score in LATENT]
# Each model once with a rule of one prediction, and with those that ask or learn more.
FAMILIES = {
    "sd 2.1": ("sds", "dds", "nfsd"),
    "xl": ("sds", "csd", "vsd"),
    "sd 3": ("sds", "rfds", "ism", "sds-bridge", "vsd"),
    "sd 3, t5": ("rfds",),
    "sd 3.5": ("rfds", "flow-sds"),
    "pixart": ("sds", "csd", "dds", "vsd"),
    "prx-pixel": ("sds", "rfds", "flow-sds", "nfsd", "sdi", "vsd"),
    "klein": ("rfds", "vsd"),
    "z-image": ("rfds", "nfsd", "vsd"),
    "qwen-image": ("flow-sds", "dds", "vsd"),
    "qwen-image-edit": ("rfds", "sds-bridge"),
    "ic-light": ("sds", "csd", "dds"),
    "tiny vae": ("sds", "sdi"),
    "tiny vae, sd 3": ("rfds",),
    "random": ("sds", "csd"),
    "random xl": ("sds",),
    "random sd 3": ("sds",),
    "random ic-light": ("sds",),
    "ddpm": ("sds", "sds-x0", "ism"),
}
CASES += [(kind, score) for kind, scores in FAMILIES.items() for score in scores]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "score"), CASES)
def test_a_few_steps_change_the_depth_the_same_way_each_time(kind: str, score: str) -> None:
    prior = make_prior(kind, score)
    first, again = run(prior), run(prior)
    assert not first.partial
    assert (first.members != first.initial).any()
    assert torch.equal(first.members, again.members)
    assert not any(p.requires_grad for n, p in prior.network().named_parameters() if "lora" not in n)
    assert not prior.network().training


@pytest.mark.parametrize("kind", ["pixel", "latent"])
@pytest.mark.parametrize("score", ["vsd", "dds"])
def test_members_together_are_members_one_by_one(kind: str, score: str, device: torch.device) -> None:
    if score == "vsd":
        pytest.importorskip("peft")
    prior = make_prior(kind, score, device, dtype="float32")
    together, alone = run(prior, device), run(prior, device, members_per_batch=1)
    change = float((together.members - together.initial).norm())
    assert float((together.members - alone.members).norm()) < (0.01 if device.type == "cpu" else 0.1) * change


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "score"), [case for case in CASES if case[1] != "vsd"])
def test_rows_are_scored_independently(kind: str, score: str, device: torch.device) -> None:
    prior = make_prior(kind, score, device, dtype="float32")
    pictures = torch.cat([photo(seed=s) for s in range(3)]).to(device).requires_grad_()
    condition = prior.condition(photo().to(device), "a tiger")
    light = BlinnPhong(lights=3).draw(1, seeded()).flatten().to(device)
    noise = prior.draw(3, seeded()).to(device)
    prior(pictures, condition, light, noise).sum().backward()
    for i in range(3):
        own = slice(i, i + 1)
        alone = pictures[own].detach().requires_grad_()
        prior(alone, condition, light.rows(own), noise.rows(own)).sum().backward()
        # A contrast is the difference of predictions that nearly agree; mixed rows are off by about 1.
        assert relative_error(pictures.grad[own], alone.grad) < (1e-3 if device.type == "cpu" else 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["latent", *(kind for kind in FAMILIES if kind != "ddpm")])
def test_in_half_precision_the_gradient_points_the_same_way(
    kind: str, dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = BlinnPhong().draw(1, seeded()).flatten().to(device)

    def gradient(precision: torch.dtype) -> torch.Tensor:
        monkeypatch.setattr(DiffusionPrior, "precision", lambda *_: precision)
        prior, picture = latent_prior("sds", kind, device), photo().to(device).requires_grad_()
        assert prior._denoiser.dtype is precision
        condition = prior.condition(picture.detach(), "a tiger")
        prior(picture, condition, light, prior.draw(1, seeded()).to(device)).sum().backward()
        return picture.grad.flatten()

    half, full = gradient(dtype), gradient(torch.float32)
    assert torch.isfinite(half).all()
    assert torch.cosine_similarity(half, full, dim=0) > 0.99


def loss(prior: Any, score: str, relit: torch.Tensor) -> torch.Tensor:
    condition = prior.condition(photo(), "a tiger")
    light = BlinnPhong().draw(1, seeded()).flatten()
    return prior(relit, condition, light, prior.draw(1, seeded()))


@pytest.mark.parametrize("kind", ["pixel", "latent"])
def test_dds_is_zero_at_the_photo_and_csd_without_guidance(kind: str) -> None:
    assert float(loss(make_prior(kind, "dds"), "dds", photo())) < 1e-12
    assert float(loss(make_prior(kind, "dds"), "dds", photo(seed=1))) > 1e-8
    prior = make_prior(kind, "csd")
    prior.guidance_scale = 0.0
    assert float(loss(prior, "csd", photo(seed=1))) == 0


def test_vsds_copy_starts_as_the_model_and_learns_its_pictures() -> None:
    """With an untrained copy vsd is guidance alone; teaching it lowers its error on the pictures."""
    pytest.importorskip("peft")
    prior = tiny_prior(score="vsd", guidance_scale=2.0, guidance_base="text", lora_rate=1e-2)
    prior.begin([0])
    contrast = tiny_prior(score="csd", guidance_scale=2.0)
    relit = photo(seed=1)
    assert float(loss(prior, "vsd", relit)) == pytest.approx(float(loss(contrast, "csd", relit)), rel=1e-4)
    copies = prior._copies
    assert copies is not None
    x, errors = torch.randn(4, 3, 16, 16, generator=seeded()) * 0.1, []
    with torch.enable_grad():
        for _ in range(30):
            for own in copies.turns(4):
                light = torch.zeros(4, 8)
                noise, t = torch.randn(x.shape, generator=seeded(5)), torch.full((4,), 500)
                noisy = prior.schedule.add_noise(x, noise, t)[own]
                told = prior._model(noisy, t, None, light)
                error = (told - prior.schedule.target(x, noise, t)).square().mean()
                copies.learn(error)
                errors.append(float(error.detach()))
    assert errors[-1] < 0.9 * errors[0]
    assert float(loss(tiny_prior(score="csd", guidance_scale=2.0), "csd", relit)) > 0


def test_vsd_without_its_package_says_so_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for prior in (StableDiffusion(checkpoint=str(SD), score="vsd"), PixelDiffusion(score="vsd")):
        with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[vsd\]"'):
            prior.ensure_available()
        type(prior)(checkpoint=prior.checkpoint).ensure_available()


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Already found a `peft_config`")
def test_vsd_leaves_the_frozen_model_as_it_was() -> None:
    pytest.importorskip("peft")
    prior, plain = latent_prior("vsd"), latent_prior("sds")
    for _ in range(2):
        run(prior)
    inputs = StepInputs(plain.condition(photo(), "a tiger"), Illumination(), plain.draw(1, seeded()))
    noisy, t = inputs.noise["noise"], inputs.timestep
    found, expected = (p.predict(noisy, t, inputs, ("text",))["text"] for p in (prior, plain))
    assert torch.equal(found, expected)


def test_prompts_of_each_branch() -> None:
    told = StableDiffusion(negative_prompt="blurry").prompts("a tiger")
    assert told == {"text": "a tiger", "uncond": "blurry"}
    assert StableDiffusion(score="nfsd").prompts("a") == {"text": "a", "uncond": "", "negative": NEGATIVE}
    mine = StableDiffusion(score="csd", negative_scale=1.0, negative_prompt="dull").prompts("a")
    assert mine == {"text": "a", "uncond": "", "negative": "dull"}
    assert StableDiffusion(score="dds", source_prompt="a cat").prompts("a")["source"] == "a cat"
    assert StableDiffusion(score="dds").prompts("a")["source"] == "a"
    bridge = StableDiffusion(score="sds-bridge").prompts("")
    assert bridge == {"text": "", "artefacts": ARTEFACTS}


def test_an_unconditional_model_is_refused_for_a_rule_of_contrast() -> None:
    with pytest.raises(WeightsError, match="csd compares predictions with and without conditions"):
        tiny_prior(relighting=False, score="csd")
    with pytest.raises(ValueError, match="csd compares"):
        tiny_prior(condition_on="nothing", score="csd")


@pytest.mark.parametrize("score", ["nfsd", "sds-bridge"])
def test_a_rule_that_needs_text_names_the_priors_that_read_it(score: str) -> None:
    with pytest.raises(ConfigError, match=f"{score} needs a prompt .*these do: stable-diffusion"):
        redepth.Pipeline("smoke", overrides=[f"prior.score={score}"])
    assert "text" in PixelDiffusion.supported_branches


@pytest.mark.parametrize("score", PIXEL)
def test_the_embedded_prior_refines_a_real_photo_by_it(score: str, real_photos: Mapping[str, Path]) -> None:
    overrides = [f"prior.score={score}", "prior.inversion_steps=2", "optim.steps=2"]
    result = redepth.refine(real_photos["coins"], "smoke", overrides=overrides)
    assert not result.partial
    assert (result.refined != result.initial).any()
