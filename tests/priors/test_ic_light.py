from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from redepth.contracts import Illumination
from redepth.errors import ConfigError, WeightsError
from redepth.ops import color
from redepth.priors.distillation import StepInputs
from redepth.priors.ic_light import LIGHTS, ICLight, light_index
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.checkpoints import copy_of, tiny
from tests.support.helpers import CPU, photo, relative_error, seeded

OFFSETS = "iclight_sd15_fc.safetensors"
SIDES = {
    "from the front": (-0.1, 0.1, 1.0),
    "from the left": (-0.6, -0.2, 0.7),
    "from the right": (0.9, -0.5, 0.1),
    "from the top": (-0.2, 0.6, 0.7),
    "from the bottom": (0.3, -0.8, 0.5),
}


def light(*names: str) -> Illumination:
    directions = torch.tensor([SIDES[name] for name in names])
    return Illumination.of(torch.nn.functional.normalize(directions, dim=1))


def prior(folder: Path | None = None, **options: Any) -> ICLight:
    source = str(folder or tiny("ic-light"))
    return ICLight(checkpoint=source, light_checkpoint=source, size=64, **options).load(CPU)


def predicted(model: Any, seen: torch.Tensor, lit: Illumination, *branches: str) -> dict[str, torch.Tensor]:
    rows = len(lit.direction)
    noisy = torch.randn(1, 4, 8, 8, generator=seeded(3)).expand(rows, -1, -1, -1)
    inputs = StepInputs(model.condition(seen, "a tiger"), lit, model.draw(rows, seeded()))
    with torch.no_grad():
        return dict(model.predict(noisy, torch.full((rows,), 400), inputs, branches))


def test_it_is_the_sum_of_both_checkpoints_with_the_photo_beside_the_noise() -> None:
    """Put together by hand from the two files, and run on what the published form runs on."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder, model = tiny("ic-light"), prior()
    config = UNet2DConditionModel.load_config(folder / "unet")
    unet = UNet2DConditionModel.from_config({**config, "in_channels": 8})
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, torch.zeros_like(first)], dim=1)
    offsets = load_file(folder / OFFSETS)
    unet.load_state_dict({name: weights[name] + offsets[name].float() for name in weights})
    square = photo(64, 64)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    beside = vae.encode(square * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    noisy = torch.randn(1, 4, 8, 8, generator=seeded(3))
    told = StableDiffusion(checkpoint=str(folder), size=64).load(CPU)
    found = predicted(model, square, light("from the top"), "text", "uncond")
    for branch, text in (("text", "a tiger, light from the top"), ("uncond", "")):
        embedding = told.condition(square, text).tensors["text"]
        with torch.no_grad():
            expected = unet(torch.cat([noisy, beside], dim=1), 400, encoder_hidden_states=embedding).sample
        assert relative_error(found[branch], expected) < 1e-5


def test_without_offsets_it_is_stable_diffusion_whatever_the_photo(tmp_path: Path) -> None:
    folder = copy_of("ic-light", tmp_path)
    save_file({k: torch.zeros_like(v) for k, v in load_file(folder / OFFSETS).items()}, folder / OFFSETS)
    plain = StableDiffusion(checkpoint=str(folder), size=64).load(CPU)
    lit = light("from the left")
    expected = predicted(plain, photo(), lit, "text", "uncond")
    for seen in (photo(), photo(seed=1)):
        found = predicted(prior(folder, condition_on="photo"), seen, lit, "text", "uncond")
        assert all(relative_error(found[k], expected[k]) < 1e-5 for k in expected)


def test_photo_and_light_matter_and_each_row_is_told_its_own() -> None:
    model, names = prior(), ("from the right", "from the top")
    both = predicted(model, photo(), light(*names), "text", "uncond")
    for i, name in enumerate(names):
        alone = predicted(model, photo(), light(name), "text", "uncond")
        assert relative_error(both["text"][i : i + 1], alone["text"]) < 1e-5
    assert relative_error(both["text"][0], both["text"][1]) > 1e-4
    # The unconditional branch is conditioned on the photo, not on the light.
    assert torch.allclose(both["uncond"][0], both["uncond"][1], atol=1e-6)
    other = predicted(model, photo(seed=1), light(*names), "text", "uncond")
    assert all(relative_error(both[k], other[k]) > 1e-3 for k in both)


@pytest.mark.parametrize("side", SIDES)
def test_the_words_name_the_side_that_is_lit_in_the_picture(side: str) -> None:
    """A bump towards the camera is brighter on the side that the light comes from."""
    assert [LIGHTS[i] for i in light_index(light(side).direction).tolist()] == [side]
    if side == "from the front":
        return
    v, u = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    depth = 3.0 - 0.5 * torch.exp(-4 * (u**2 + v**2))
    lit = light(side).as_member()
    grey = color.srgb_to_linear(torch.full((1, 3, 64, 64), 0.5))
    picture = BlinnPhong()(depth[None, None], grey, lit)[0, 0].mean(dim=0)
    halves = {
        "from the left": picture[:, :32].mean() - picture[:, 32:].mean(),
        "from the top": picture[:32].mean() - picture[32:].mean(),
    }
    halves |= {"from the right": -halves["from the left"], "from the bottom": -halves["from the top"]}
    assert max(halves, key=lambda name: float(halves[name])) == side


def test_texts() -> None:
    model = ICLight(score="dds", source_prompt="a cat")
    texts = model.texts("a tiger")
    assert texts["text"] == tuple(f"a tiger, light {where}" for where in LIGHTS)
    assert texts["uncond"] == ("",)
    assert texts["source"] == ("a cat",)
    assert ICLight().texts("")["text"][1] == "light from the left"
    assert ICLight(condition_on="photo").texts("a tiger")["text"] == ("a tiger",)


def test_random_weights_have_the_form_and_need_no_offsets(tmp_path: Path) -> None:
    folder = copy_of("ic-light", tmp_path)
    (folder / OFFSETS).unlink()
    model = prior(folder, weights="random")
    assert model._denoiser.conv_in.weight[:, 4:].abs().sum() > 0
    lit = light("from the left")
    first, second = (predicted(model, photo(seed=s), lit, "text")["text"] for s in (0, 1))
    assert relative_error(first, second) > 1e-3


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = copy_of("ic-light", tmp_path)
    whole = load_file(folder / OFFSETS)
    save_file({k: v for k, v in whole.items() if k != "conv_in.bias"}, folder / OFFSETS)
    with pytest.raises(WeightsError, match=r"1 of its offsets do not fit .*conv_in\.bias.*form fc or fcon"):
        prior(folder)
    # The form with a background has 12 channels.
    wide = torch.zeros(16, 12, 3, 3, dtype=torch.float16)
    save_file(whole | {"conv_in.weight": wide}, folder / OFFSETS)
    with pytest.raises(WeightsError, match=r"1 of its offsets do not fit .*conv_in\.weight"):
        prior(folder)
    (folder / OFFSETS).write_bytes(b"")
    with pytest.raises(WeightsError, match="a weights file is damaged"):
        prior(folder)
    (folder / OFFSETS).unlink()
    with pytest.raises(WeightsError, match=f"has no {OFFSETS}"):
        prior(folder)


def test_a_renderer_without_directions_says_what_to_set() -> None:
    model = prior()
    inputs = StepInputs(model.condition(photo(), "a"), Illumination(), model.draw(1, seeded()))
    noisy = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ConfigError, match=r"does not draw direction: set prior\.condition_on=photo"):
        model.predict(noisy, torch.tensor([400]), inputs, ("text",))
