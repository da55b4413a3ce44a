"""The large flow-matching transformers against diffusers' own pipelines of the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Illumination
from redepth.errors import WeightsError
from redepth.priors.distillation import StepInputs
from redepth.priors.flow_transformer import FlowTransformer, from_tokens, to_tokens
from redepth.priors.flux2_klein import Flux2Klein
from redepth.priors.qwen_image import QwenImage
from redepth.priors.qwen_image_edit import QwenImageEdit
from redepth.priors.scores import guide
from redepth.priors.z_image import ZImage
from tests.support.checkpoints import copy_of, tiny
from tests.support.helpers import CPU, photo, relative_error, seeded

BOUND = 1e-5
SIZE = 64
FAMILIES: dict[str, type[FlowTransformer]] = {
    "klein": Flux2Klein,
    "z-image": ZImage,
    "qwen-image": QwenImage,
    "qwen-image-edit": QwenImageEdit,
}


def loaded(name: str, folder: Path | None = None, **options: Any) -> Any:
    cls = FAMILIES[name]
    return cls(checkpoint=str(folder or tiny(name)), size=SIZE, **options).load(CPU)


def pipeline(cls: str, name: str, **parts: Any) -> Any:
    import diffusers

    found = getattr(diffusers, cls).from_pretrained(tiny(name), **parts)
    found.set_progress_bar_config(disable=True)
    return found


def predictions(prior: FlowTransformer, prompt: str, noisy: Tensor, sigma: float) -> dict[str, Tensor]:
    """What the prior predicts at a noise level of the pipeline's, which is not one of its own."""
    inputs = StepInputs(prior.condition(square_photo(), prompt), Illumination(), prior.draw(1, seeded()))
    level = torch.tensor([500])
    prior.schedule.s[level] = sigma
    with torch.no_grad():
        return dict(prior.predict(noisy, level, inputs, ("text", "uncond")))


def square_photo() -> Tensor:
    """A photo of the model's size in 8 bit: nothing on the way to the model rounds or resamples it."""
    return torch.randint(0, 256, (1, 3, SIZE, SIZE), generator=seeded(3)).float() / 255


class Steps:
    """Runs a pipeline for three steps; it is compared at the second one.

    Attributes:
        calls: inputs and output of each call of its transformer.
        noisy: the latents before the second step.
        sigma: their noise level.
        guided: the velocity along which the second step goes.
    """

    def __init__(self, pipe: Any, **arguments: Any) -> None:
        self.calls: list[tuple[dict[str, Any], Tensor]] = []
        steps: list[tuple[Tensor, Tensor]] = []
        take = pipe.scheduler.step

        def step(velocity: Tensor, t: Tensor, latents: Tensor, **more: Any) -> Any:
            steps.append((velocity, latents))
            return take(velocity, t, latents, **more)

        pipe.scheduler.step = step
        hook = pipe.transformer.register_forward_hook(self._record, with_kwargs=True)
        pipe(
            num_inference_steps=3,
            height=SIZE,
            width=SIZE,
            output_type="latent",
            generator=seeded(),
            **arguments,
        )
        hook.remove()
        self.guided, self.noisy = steps[1]
        self.sigma = float(pipe.scheduler.sigmas[1])
        assert 0.1 < self.sigma < 0.95

    def _record(self, _module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.calls.append((kwargs, output[0]))


# --- FLUX.2 [klein] -------------------------------------------------------------------------------


def test_klein_predicts_what_the_pipeline_does() -> None:
    pipe = pipeline("Flux2KleinPipeline", "klein")
    steps = Steps(pipe, prompt="a tiger", guidance_scale=3.0)
    prior = loaded("klein")
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4), steps.sigma)
    text, uncond = (output for _, output in steps.calls[2:4])
    assert relative_error(to_tokens(found["text"]), text) < BOUND
    assert relative_error(to_tokens(found["uncond"]), uncond) < BOUND
    assert relative_error(to_tokens(found["text"]), uncond) > 100 * BOUND
    guided = guide(found["text"], found["uncond"], 3.0, "uncond")
    assert relative_error(to_tokens(guided), steps.guided) < BOUND


def test_kleins_latents_are_the_pipelines() -> None:
    pipe, prior = pipeline("Flux2KleinPipeline", "klein"), loaded("klein")
    picture = square_photo()
    expected = pipe._encode_vae_image(picture * 2 - 1, None)
    assert expected.shape == (1, 16, 4, 4)
    assert relative_error(prior.encode(picture, None), expected.detach()) < BOUND


def test_kleins_text_is_the_pipelines() -> None:
    pipe = pipeline("Flux2KleinPipeline", "klein")
    told = loaded("klein").condition(photo(), "a {tiger}").tensors
    assert relative_error(told["text"], pipe.encode_prompt("a {tiger}")[0].detach()) < BOUND
    assert told["text"].shape == (1, 512, 48)


def test_distilled_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = copy_of("klein", tmp_path)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("{", '{"is_distilled": true, ', 1))
    with pytest.raises(WeightsError, match="is distilled, so that it has no guidance"):
        loaded("klein", folder)
    config = folder / "transformer" / "config.json"
    index.write_text(index.read_text().replace("true", "false", 1))
    config.write_text(config.read_text().replace('"guidance_embeds": false', '"guidance_embeds": true'))
    with pytest.raises(WeightsError, match="is distilled, so that it has no guidance"):
        loaded("klein", folder, weights="random")


# --- Z-Image --------------------------------------------------------------------------------------


def test_z_image_predicts_what_the_pipeline_does() -> None:
    pipe = pipeline("ZImagePipeline", "z-image")
    steps = Steps(pipe, prompt="a tiger on a stone in the sun", guidance_scale=1.0)
    prior = loaded("z-image")
    found = predictions(prior, "a tiger on a stone in the sun", steps.noisy, steps.sigma)
    text, uncond = (-output[:, 0] for output in steps.calls[1][1])
    assert relative_error(found["text"][0], text) < BOUND
    assert relative_error(found["uncond"][0], uncond) < BOUND
    assert relative_error(found["text"][0], uncond) > 100 * BOUND
    # Guidance of this pipeline starts from the prompt's prediction.
    guided = guide(found["text"], found["uncond"], 1.0, "text")
    assert relative_error(guided, steps.guided) < BOUND


def test_z_images_latents_are_the_pipelines() -> None:
    pipe, prior = pipeline("ZImageImg2ImgPipeline", "z-image"), loaded("z-image")
    picture, at = square_photo(), torch.tensor([0.0])
    pipe.scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=1.0)
    # Its noise draws from the posterior first; at noise level 0 only that is left.
    pipe.scheduler.scale_noise = lambda latents, *_: latents
    arguments = (picture * 2 - 1, at, 1, 16, SIZE, SIZE, torch.float32, CPU, seeded())
    expected = pipe.prepare_latents(*arguments)
    posterior = torch.randn(1, 16, 8, 8, generator=seeded())
    assert relative_error(prior.encode(picture, posterior), expected.detach()) < BOUND


# --- Qwen-Image -----------------------------------------------------------------------------------


def rescaled(text: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Guidance, scaled to the length of the conditional prediction in each token."""
    guided = guide(text, uncond, scale, "uncond")
    return guided * (text.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("negative", [" ", "a dull and dark picture"])
def test_qwen_image_predicts_what_the_pipeline_does(negative: str) -> None:
    pipe = pipeline("QwenImagePipeline", "qwen-image")
    steps = Steps(pipe, prompt="a tiger", negative_prompt=negative, true_cfg_scale=3.0)
    prior = loaded("qwen-image", negative_prompt=negative.strip())
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4), steps.sigma)
    tokens = {name: to_tokens(prediction) for name, prediction in found.items()}
    text, uncond = (output for _, output in steps.calls[2:4])
    assert relative_error(tokens["text"], text) < BOUND
    assert relative_error(tokens["uncond"], uncond) < BOUND
    assert relative_error(tokens["text"], uncond) > 100 * BOUND
    assert relative_error(rescaled(tokens["text"], tokens["uncond"], 3.0), steps.guided) < BOUND


def edit_pipeline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pipeline, for small pictures, with the positions that its text encoder had in transformers 4."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit
    from transformers import Qwen2Tokenizer, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    # The published processor is also one of videos, which needs torchvision.
    monkeypatch.setattr(Qwen2VLProcessor, "check_argument_for_proper_class", lambda *_: None)
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda *_: (SIZE, SIZE, None))
    folder = tiny("qwen-image-edit")
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor")
    processor = Qwen2VLProcessor(pictures, tokenizer, None)
    pipe = pipeline("QwenImageEditPipeline", "qwen-image-edit", processor=processor)
    token = pipe.text_encoder.config.image_token_id

    def add_types(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "mm_token_type_ids": (kwargs["input_ids"] == token).int()}

    pipe.text_encoder.register_forward_pre_hook(add_types, with_kwargs=True)
    return pipe


def as_pil(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray((picture[0] * 255).round().byte().permute(1, 2, 0).numpy())


def test_qwen_image_edit_predicts_what_the_pipeline_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, picture = edit_pipeline(monkeypatch), as_pil(square_photo())
    steps = Steps(pipe, image=picture, prompt="a tiger", negative_prompt=" ", true_cfg_scale=3.0)
    prior = loaded("qwen-image-edit")
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4), steps.sigma)
    tokens = {name: to_tokens(prediction) for name, prediction in found.items()}
    text, uncond = (output[:, :16] for _, output in steps.calls[2:4])
    assert relative_error(tokens["text"], text) < BOUND
    assert relative_error(tokens["uncond"], uncond) < BOUND
    assert relative_error(tokens["text"], uncond) > 100 * BOUND
    assert relative_error(rescaled(tokens["text"], tokens["uncond"], 3.0), steps.guided) < BOUND


def test_qwen_images_latents_are_the_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, prior = edit_pipeline(monkeypatch), loaded("qwen-image-edit")
    picture = square_photo()
    encoded = pipe._encode_vae_image(picture[:, :, None] * 2 - 1, None)
    expected = from_tokens(pipe._pack_latents(encoded, 1, 4, 8, 8), 4)
    assert relative_error(prior.encode(picture, None), expected.detach()) < BOUND
    assert torch.equal(prior.condition(picture, "a").tensors["photo.latents"], prior.encode(picture, None))
