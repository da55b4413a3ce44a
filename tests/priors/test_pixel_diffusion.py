from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.contracts import Illumination, Material
from redepth.errors import ConfigError, InputError, WeightsError
from redepth.priors.distillation import StepInputs
from redepth.priors.pixel_diffusion import PixelDiffusion, cut_window
from redepth.priors.pixel_unet import Layout, condition_rows, light_vector
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.checkpoints import copy_of
from tests.support.helpers import CPU, SCHEDULE, photo, relative_error, seeded, tiny_prior, tiny_unet


def light(count: int) -> Illumination:
    return BlinnPhong(lights=count).draw(1, seeded()).flatten()


def test_the_loss_is_the_distance_to_the_guided_reconstruction() -> None:
    """Recomputed from the model's raw predictions by the definition, window by window."""
    prior = tiny_prior(guidance_scale=2.0, guidance_base="uncond", weighting="x0", t_min=0.5, t_max=0.9)
    relit, condition = photo(40, 50, seed=1), prior.condition(photo(40, 50), "")
    noise = prior.draw(1, seeded())
    loss = prior(relit, condition, light(1), noise)
    u = noise["window"][0].tolist()
    x, seen = (cut_window(p[0], 16, "own-scale", *u)[None] * 2 - 1 for p in (relit, photo(40, 50)))
    alpha = (prior.schedule.a[noise["timestep"]] ** 2).view(1, 1, 1, 1)
    noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise["noise"]
    vector = torch.cat([light_vector(light(1)), torch.ones(1, 1)], dim=1)
    with torch.no_grad():
        told = prior._model(noisy, noise["timestep"], seen, vector)
        untold = prior._model(noisy, noise["timestep"])
    velocity = untold + 2 * (told - untold)
    reconstruction = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity
    expected = 0.5 * ((x - reconstruction) ** 2).mean()
    assert torch.allclose(loss[0], expected, rtol=1e-4)


def test_each_condition_matters_and_dropping_it_is_telling_nothing() -> None:
    model = tiny_unet()
    noisy, t = torch.randn(1, 3, 16, 16, generator=seeded()), torch.tensor([700])
    seen = photo(16, 16) * 2 - 1
    with torch.no_grad():
        nothing = model(noisy, t)
        dropped = model(
            noisy, t, *condition_rows(seen, light_vector(light(1)), torch.zeros(1), torch.zeros(1))
        )
        both = model(noisy, t, *condition_rows(seen, light_vector(light(1)), torch.ones(1), torch.ones(1)))
        no_light = model(
            noisy, t, *condition_rows(seen, light_vector(light(1)), torch.ones(1), torch.zeros(1))
        )
    assert torch.equal(nothing, dropped)
    assert not torch.allclose(both, no_light, atol=1e-6)
    assert not torch.allclose(no_light, nothing, atol=1e-6)


@pytest.mark.parametrize("relighting", [True, False])
def test_a_device_predicts_what_a_cpu_does(relighting: bool, device: torch.device) -> None:
    noisy, t = torch.randn(2, 3, 16, 16, generator=seeded()), torch.tensor([300, 700])
    with torch.no_grad():
        here = tiny_unet(relighting)(noisy, t)
        there = tiny_unet(relighting).to(device)(noisy.to(device), t.to(device))
    assert relative_error(there.cpu(), here) < 1e-3


def test_an_unconditional_model_ignores_guidance() -> None:
    relit = photo(40, 50)
    losses = []
    for scale in (0.0, 7.0):
        prior = tiny_prior(relighting=False, guidance_scale=scale)
        noise = prior.draw(1, seeded())
        losses.append(prior(relit, prior.condition(relit, ""), light(1), noise))
    assert torch.equal(*losses)


def test_windows() -> None:
    picture = torch.arange(3 * 20 * 30, dtype=torch.float32).view(3, 20, 30)
    assert torch.equal(cut_window(picture, 8, "own-scale", 0.0, 0.0, 0.0), picture[:, :8, :8])
    assert torch.equal(cut_window(picture, 8, "own-scale", 0.9, 0.999, 0.999), picture[:, 12:, 22:])
    assert torch.equal(cut_window(picture, 20, "whole", 0.0, 0.5, 0.999), picture[:, :, 10:])
    assert cut_window(picture, 8, "whole", 0.0, 0.0, 0.0).shape == (3, 8, 8)
    assert cut_window(picture, 64, "own-scale", 0.3, 0.3, 0.3).shape == (3, 64, 64)
    sides = {int(8 + u * 13) for u in (0.0, 0.999)}
    assert sides == {8, 20}


def test_a_pyramid_has_the_whole_picture_first_and_then_windows_of_all_scales() -> None:
    pyramid, multiscale = tiny_prior(view="pyramid"), tiny_prior(view="multiscale")
    drawn, others = (prior.draw(3, seeded()) for prior in (pyramid, multiscale))
    assert torch.equal(drawn["window"][:, 1:], others["window"][:, 1:])
    assert torch.equal(drawn["window"][1:], others["window"][1:])
    picture = photo(48, 48)[0]
    whole = cut_window(picture, 16, "whole", 0.0, 0.0, 0.0)
    scales = [cut_window(picture, 16, "pyramid", *u) for u in drawn["window"].tolist()]
    assert torch.equal(scales[0], whole)
    assert not any(torch.equal(other, whole) for other in scales[1:])
    assert torch.equal(
        cut_window(photo(4096, 4096)[0], 16, "pyramid", *drawn["window"][0].tolist()),
        cut_window(photo(4096, 4096)[0], 16, "whole", 0.0, 0.0, 0.0),
    )


@pytest.mark.parametrize("view", ["whole", "multiscale", "pyramid"])
def test_every_view_of_a_picture_of_the_models_size_is_its_own(view: Any) -> None:
    relit, lights = photo(16, 16).expand(2, -1, -1, -1), light(2)
    own, other = tiny_prior(), tiny_prior(view=view)
    condition = own.condition(photo(16, 16, seed=1), "")
    losses = [p(relit, condition, lights, p.draw(2, seeded())) for p in (own, other)]
    assert torch.equal(*losses)


def test_gradient_reaches_the_window_alone() -> None:
    prior = tiny_prior()
    relit = photo(40, 50).requires_grad_()
    noise = prior.draw(1, seeded())
    prior(relit, prior.condition(photo(40, 50), ""), light(1), noise).sum().backward()
    assert int((relit.grad.abs().sum(dim=1) > 0).sum()) <= 16 * 16
    assert relit.grad.abs().sum() > 0


def test_saved_and_loaded_it_is_the_same_prior(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    model = tiny_unet()
    model.unet.save_pretrained(tmp_path / "unet")
    DDIMScheduler(**SCHEDULE).save_pretrained(tmp_path / "scheduler")
    model.layout.write(tmp_path)
    prior = PixelDiffusion(checkpoint=str(tmp_path)).load(CPU)
    assert prior._model.layout == Layout(size=16, patch=2, relighting=True)
    assert prior.schedule.predicts == "v_prediction"
    relit, noise = photo(40, 50), tiny_prior().draw(2, seeded())
    both = [
        p(relit.expand(2, -1, -1, -1), p.condition(relit, ""), light(2), noise) for p in (prior, tiny_prior())
    ]
    assert torch.allclose(*both, rtol=1e-5)
    randomised = PixelDiffusion(checkpoint=str(tmp_path), weights="random", random_seed=3).load(CPU)
    again = PixelDiffusion(checkpoint=str(tmp_path), weights="random", random_seed=3).load(CPU)
    first, second, trained = (next(p._model.parameters()) for p in (randomised, again, prior))
    assert torch.equal(first, second)
    assert not torch.equal(first, trained)


def test_folders_that_hold_no_such_model_say_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no unet/config\.json and 2 more: the checkpoint"):
        PixelDiffusion(checkpoint=str(tmp_path)).load(CPU)
    folder = copy_of("ddpm", tmp_path)
    (folder / "unet" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(WeightsError, match="is of a 'AutoencoderKL', not UNet2DModel or UNet2DCond"):
        PixelDiffusion(checkpoint=str(folder)).load(CPU)
    with pytest.raises(WeightsError, match="a noise schedule of 500 timesteps; 1000 are supported"):
        tiny_prior().use_schedule(SCHEDULE | {"num_train_timesteps": 500}, CPU)


def test_a_renderer_without_material_is_matte_to_the_prior() -> None:
    direction = light(3).direction
    matte = Illumination.of(direction, Material.matte((3,)))
    assert torch.equal(light_vector(Illumination.of(direction)), light_vector(matte))
    assert light_vector(matte)[:, 3:].tolist() == 3 * [[1.0, 0.0, pytest.approx(2 / 7), 1.0]]


def test_the_light_vector_has_the_frame_of_the_checkpoints() -> None:
    """The embedded checkpoints were trained with x to the left and y down."""
    assert light_vector(Illumination.of(torch.tensor([[0.6, 0.48, 0.64]])))[0, :3].tolist() == pytest.approx(
        [-0.6, -0.48, 0.64]
    )


def test_a_renderer_without_a_direction_is_enough_unless_the_light_is_a_condition() -> None:
    relit = photo(40, 50)
    for condition_on in ("photo", "nothing"):
        prior = tiny_prior(condition_on=condition_on)
        loss = prior(relit, prior.condition(relit, ""), Illumination(), prior.draw(1, seeded()))
        assert torch.isfinite(loss).all()
    prior = tiny_prior()
    with pytest.raises(ConfigError, match=r"does not draw direction: set prior\.condition_on=photo"):
        prior(relit, prior.condition(relit, ""), Illumination(), prior.draw(1, seeded()))


def test_a_part_of_a_material_alone_is_refused() -> None:
    """Matte values in its place would condition the prior on another surface."""
    prior, relit = tiny_prior(), photo(40, 50)
    light = Illumination({"direction": torch.tensor([[0.0, 0.0, 1.0]]), "shininess": torch.ones(1)})
    with pytest.raises(ConfigError, match="draws shininess but not diffuse, specular: draw a whole"):
        prior(relit, prior.condition(relit, ""), light, prior.draw(1, seeded()))


# --- captions -------------------------------------------------------------------------------------

WORDS = ("relief", "tiles", "left", "blurred")


@pytest.mark.parametrize("score", ["sds", "csd", "nfsd", "sdi", "dds", "sds-bridge"])
def test_every_rule_runs_on_captions_and_reads_them(score: str) -> None:
    prior = tiny_prior(words=WORDS, score=score, condition_on="prompt", guidance_scale=7.5)
    relit = photo(40, 50).requires_grad_()
    noise, gradients = prior.draw(1, seeded()), []
    for prompt in ("a relief of tiles", "relief"):
        loss = prior(relit, prior.condition(photo(40, 50, seed=1), prompt), light(1), noise)
        gradients.append(torch.autograd.grad(loss.sum(), relit)[0])
        assert gradients[-1].abs().max() > 0
    assert not torch.allclose(*gradients, atol=1e-9)


def test_a_captioned_prior_predicts_under_the_words_of_its_prompt() -> None:
    prior = tiny_prior(words=WORDS, condition_on="prompt", guidance_scale=3.0, guidance_base="uncond")
    prior.weighting, prior.t_min, prior.t_max = "uniform", 0.6, 0.6
    relit = photo(16, 16)
    noise = prior.draw(1, seeded())
    relit.requires_grad_()
    loss = prior(relit, prior.condition(relit.detach(), "Tiles, left"), light(1), noise)
    (gradient,) = torch.autograd.grad(loss.sum(), relit)
    noisy = prior.schedule.add_noise(relit.detach() * 2 - 1, noise["noise"], noise["timestep"])
    with torch.no_grad():
        told = prior._model(noisy, noise["timestep"], None, torch.tensor([[0.0, 1, 1, 0, 1]]))
        untold = prior._model(noisy, noise["timestep"])
    told, untold = (prior.schedule.noise_of(p, noisy, noise["timestep"]) for p in (told, untold))
    expected = 2 * (untold + 3 * (told - untold) - noise["noise"]) / relit.numel()
    assert torch.allclose(gradient, expected, atol=1e-7)


def test_the_light_in_words_depends_on_each_light() -> None:
    prior = tiny_prior(words=WORDS, condition_on="prompt+light")
    direction = torch.tensor([[-0.6, 0.0, 0.8], [0.6, 0.0, 0.8]])
    inputs = StepInputs(
        prior.condition(photo(16, 16), "tiles"), Illumination.of(direction), prior.draw(2, seeded())
    )
    assert prior._told("text", 2, inputs).tolist() == [[0, 1, 1, 0, 1], [0, 1, 0, 0, 1]]
    assert prior._told("uncond", 2, inputs).tolist() == [[0.0] * 5] * 2


def test_a_prompt_without_known_words_is_no_unconditional_run() -> None:
    prior = tiny_prior(words=WORDS, condition_on="prompt")
    for prompt in ("", "a cat"):
        with pytest.raises(InputError, match="none of the words that the prior knows: relief, tiles"):
            prior.condition(photo(16, 16), prompt)


@pytest.mark.parametrize(
    ("words", "condition_on", "takes"),
    [
        (WORDS, "photo+light", r"captioned prior, which takes prompt\+light, prompt, nothing"),
        ((), "prompt", r"re-lighting prior, which takes photo\+light, photo, nothing"),
    ],
)
def test_a_condition_that_the_model_does_not_have_is_refused(
    words: tuple[str, ...], condition_on: str, takes: str
) -> None:
    with pytest.raises(WeightsError, match=takes):
        tiny_prior(words=words, condition_on=condition_on)


def test_a_captioned_prior_is_saved_and_loaded_and_its_words_are_counted(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    model = tiny_unet(words=WORDS)
    model.unet.save_pretrained(tmp_path / "unet")
    DDIMScheduler(**SCHEDULE).save_pretrained(tmp_path / "scheduler")
    model.layout.write(tmp_path)
    prior = PixelDiffusion(checkpoint=str(tmp_path), condition_on="prompt").load(CPU)
    assert prior._model.layout == model.layout
    Layout(size=16, patch=2, words=WORDS[:2]).write(tmp_path)
    with pytest.raises(WeightsError, match=r"reads 5 numbers of a caption, and .* has 2 words"):
        PixelDiffusion(checkpoint=str(tmp_path), condition_on="prompt").load(CPU)


def test_rules_with_a_negative_prompt_need_a_prompt() -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        PixelDiffusion(score="nfsd")
    PixelDiffusion(score="nfsd", condition_on="prompt")
