"""The large flow-matching transformers against diffusers' own pipelines of the same checkpoint."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from redepth.contracts import Illumination
from redepth.errors import InputError, WeightsError
from redepth.priors import text
from redepth.priors.distillation import StepInputs
from redepth.priors.flow_transformer import FlowTransformer, from_tokens, to_tokens
from redepth.priors.flux2_klein import Flux2Klein
from redepth.priors.prx import PRXPixel
from redepth.priors.qwen_image import QwenImage
from redepth.priors.qwen_image_edit import QwenImageEdit, photo_inputs
from redepth.priors.scores import RULES, guide
from redepth.priors.z_image import ZImage
from redepth.registry import options_schema
from tests.support.checkpoints import copy_of, tiny, to_cache, to_shards
from tests.support.helpers import CPU, photo, relative_error, seeded
from tests.support.hub_repositories import as_vocabulary

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


def predictions(prior: FlowTransformer, prompt: str, noisy: Tensor) -> dict[str, Tensor]:
    """What the prior predicts at the noise level of `Steps`."""
    inputs = StepInputs(prior.condition(square_photo(), prompt), Illumination(), prior.draw(1, seeded()))
    with torch.no_grad():
        return dict(prior.predict(noisy, torch.tensor([749]), inputs, ("text", "uncond")))


def square_photo() -> Tensor:
    """A photo of the model's size in 8 bit: nothing on the way to the model rounds or resamples it."""
    return torch.randint(0, 256, (1, 3, SIZE, SIZE), generator=seeded(3)).float() / 255


class Steps:
    """Runs a pipeline for three steps; it is compared at the second one, at sigma = 0.75.

    Attributes:
        outputs: of each call of its transformer.
        noisy: the latents before the second step.
        guided: the velocity along which the second step goes.
    """

    def __init__(self, pipe: Any, **arguments: Any) -> None:
        self.outputs: list[Any] = []
        steps: list[tuple[Tensor, Tensor]] = []
        take = pipe.scheduler.step

        def step(velocity: Tensor, t: Tensor, latents: Tensor, **more: Any) -> Any:
            steps.append((velocity, latents))
            return take(velocity, t, latents, **more)

        pipe.scheduler.step = step
        hook = pipe.transformer.register_forward_hook(lambda *given: self.outputs.append(given[2][0]))
        # The scheduler shifts 0.5 to 0.75.
        pipe(
            sigmas=[1.0, 0.5, 0.1],
            height=SIZE,
            width=SIZE,
            output_type="latent",
            generator=seeded(),
            **arguments,
        )
        hook.remove()
        self.guided, self.noisy = steps[1]
        assert float(pipe.scheduler.sigmas[1]) == 0.75


# --- FLUX.2 [klein] -------------------------------------------------------------------------------


def test_klein_predicts_what_the_pipeline_does() -> None:
    pipe = pipeline("Flux2KleinPipeline", "klein")
    steps = Steps(pipe, prompt="a tiger", guidance_scale=3.0)
    prior = loaded("klein")
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4))
    told, uncond = steps.outputs[2:4]
    assert relative_error(to_tokens(found["text"]), told) < BOUND
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
    steps = Steps(pipe, prompt="a tiger on a stone in the sun", guidance_scale=3.0)
    prior = loaded("z-image")
    found = predictions(prior, "a tiger on a stone in the sun", steps.noisy)
    told, uncond = (-output[:, 0] for output in steps.outputs[1])
    assert relative_error(found["text"][0], told) < BOUND
    assert relative_error(found["uncond"][0], uncond) < BOUND
    assert relative_error(found["text"][0], uncond) > 100 * BOUND
    # Guidance of this pipeline starts from the prompt's prediction.
    guided = guide(found["text"], found["uncond"], 3.0, "text")
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
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4))
    tokens = {name: to_tokens(prediction) for name, prediction in found.items()}
    told, uncond = steps.outputs[2:4]
    assert relative_error(tokens["text"], told) < BOUND
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
    found = predictions(prior, "a tiger", from_tokens(steps.noisy, 4))
    tokens = {name: to_tokens(prediction) for name, prediction in found.items()}
    told, uncond = (output[:, :16] for output in steps.outputs[2:4])
    assert relative_error(tokens["text"], told) < BOUND
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


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (6, 2)])
def test_the_photos_positions_are_those_of_the_library(size: tuple[int, int]) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = tiny("qwen-image-edit")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder").model
    token = model.config.image_token_id
    ids = torch.tensor([[3, 1, 4, token, 1, 5]])
    grid = torch.tensor([[1, 2 * size[0], 2 * size[1]]])
    seen = {"pixel_values": torch.zeros(1), "image_grid_thw": grid}
    found = photo_inputs({"input_ids": ids}, seen, token, merged=2)
    told = found["input_ids"]
    assert int((told == token).sum()) == size[0] * size[1]
    expected, _ = model.get_rope_index(told, (told == token).int(), image_grid_thw=grid)
    assert torch.equal(found["position_ids"], expected)


def test_an_embedding_belongs_to_its_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / "cache"))
    prior = loaded("qwen-image-edit")
    first = prior.condition(square_photo(), "a").tensors["text"]
    other = prior.condition(1 - square_photo(), "a").tensors["text"]
    assert relative_error(first, other) > 1e-3
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 4
    # From the cache, without the text encoder.
    again = loaded("qwen-image-edit")
    assert torch.equal(again.condition(square_photo(), "a").tensors["text"], first)
    assert again._encoders is None


def test_the_transformer_sees_the_photo() -> None:
    prior = loaded("qwen-image-edit")
    found = []
    for picture in (square_photo(), 1 - square_photo()):
        condition = prior.condition(square_photo(), "a")
        condition.tensors["photo.latents"] = prior.encode(picture, None).detach()
        inputs = StepInputs(condition, Illumination(), prior.draw(1, seeded()))
        with torch.no_grad():
            found.append(
                prior.predict(inputs.noise["noise"], torch.tensor([500]), inputs, ("uncond",))["uncond"]
            )
    assert relative_error(*found) > 1e-3


# --- all of them ----------------------------------------------------------------------------------


def relit_score(prior: Any, picture: Tensor) -> Tensor:
    condition = prior.condition(square_photo(), "a tiger")
    return prior(picture, condition, Illumination(), prior.draw(len(picture), seeded()))


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_of_different_lengths_do_not_influence_each_other(name: str) -> None:
    prior = loaded(name, score="csd", negative_scale=1.0, negative_prompt="a very dull picture of a stone")
    inputs = StepInputs(prior.condition(square_photo(), "a tiger"), Illumination(), prior.draw(2, seeded()))
    noisy, branches = inputs.noise["noise"], ("text", "uncond", "negative")
    level = torch.tensor([100, 600])
    with torch.no_grad():
        together = prior.predict(noisy, level, inputs, branches)
        for branch in branches:
            alone = prior.predict(noisy[1:], level[1:], inputs.rows(slice(1, 2)), (branch,))[branch]
            assert relative_error(together[branch][1:], alone) < BOUND
    assert relative_error(together["text"], together["negative"]) > 100 * BOUND


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("score", ["sds", "rfds", "flow-sds"])
def test_the_gradient_passes_the_vae(name: str, score: Any) -> None:
    prior = loaded(name, score=score, guidance_scale=2.0, dtype="float32")
    # Another size than the model's, so that it is also fitted.
    picture = photo().requires_grad_()
    relit_score(prior, picture).sum().backward()
    assert torch.isfinite(picture.grad).all()
    assert bool((picture.grad != 0).any(dim=1).float().mean() > 0.9)
    step = 1e-3 * picture.grad / picture.grad.norm()
    prior_loss = _frozen_loss(prior)
    change = prior_loss(picture.detach() + step) - prior_loss(picture.detach() - step)
    assert float(change) == pytest.approx(2 * float((step * picture.grad).sum()), rel=0.05)


def _frozen_loss(prior: Any) -> Any:
    """The loss whose target stays where it is at the photo: its gradient is the score's."""
    condition, noise = prior.condition(square_photo(), "a tiger"), prior.draw(1, seeded())
    inputs = StepInputs(condition, Illumination(), noise)
    with torch.no_grad():
        x = prior.to_model_space(photo(), noise)
        gradient = RULES[prior.score].gradient(prior._query(x, inputs))

    def loss(picture: Tensor) -> Tensor:
        with torch.no_grad():
            moved = prior.to_model_space(picture, noise).double()
        return 0.5 * (moved - (x - gradient)).square().mean()

    return loss


@pytest.mark.parametrize("name", FAMILIES)
def test_random_weights_are_seeded_and_the_way_into_the_latents_is_the_trained_one(name: str) -> None:
    state = torch.random.get_rng_state()
    trained, first, again = loaded(name), loaded(name, weights="random"), loaded(name, weights="random")
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [prior._denoiser.state_dict() for prior in (trained, first, again)]
    layer = next(key for key, value in weights[0].items() if value.dim() == 2)
    assert weights[0].keys() == weights[1].keys()
    assert torch.equal(weights[1][layer], weights[2][layer])
    assert not torch.equal(weights[0][layer], weights[1][layer])
    noise = trained.draw(1, seeded())
    spaces = [prior.to_model_space(photo(), noise) for prior in (trained, first)]
    assert torch.equal(*spaces)
    assert first.describe()["weights"] == "random"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", FAMILIES)
def test_its_weights_may_be_in_shards(
    name: str, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the published ones are, of the transformer and of the text encoder; in a folder and from the hub."""
    folder = copy_of(name, tmp_path)
    to_shards(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    to_shards(folder / "text_encoder" / "model.safetensors")
    to_cache(folder, hub_cache, "owner/shards")
    scores = []
    for number, where in enumerate((str(tiny(name)), str(folder), "owner/shards")):
        monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / f"embeddings {number}"))
        prior = FAMILIES[name](checkpoint=where, size=SIZE).load(CPU)
        scores.append(relit_score(prior, photo(seed=1)).detach())
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])
    next((folder / "transformer").glob("*-00002-of-00002.safetensors")).unlink()
    with pytest.raises(WeightsError, match=r"has no transformer/.*-00002-of-00002\.safetensors"):
        FAMILIES[name](checkpoint=str(folder)).ensure_available()


def test_a_tokenizer_of_vocabulary_and_merges_is_whole(tmp_path: Path) -> None:
    """Some published checkpoints have those in place of tokenizer.json."""
    folder = copy_of("klein", tmp_path)
    as_vocabulary(folder / "tokenizer")
    found, expected = (loaded("klein", where).embed_text("a tiger") for where in (folder, None))
    assert torch.equal(found["embedding"], expected["embedding"])


@pytest.mark.parametrize("name", FAMILIES)
def test_with_weights_in_float8_the_score_points_the_same_way(name: str) -> None:
    def gradient(**options: Any) -> Tensor:
        picture = photo(seed=1).requires_grad_()
        relit_score(loaded(name, **options), picture).sum().backward()
        return picture.grad.flatten()

    stored, full = gradient(quantize="fp8-storage"), gradient()
    assert not torch.equal(stored, full)
    assert torch.cosine_similarity(stored, full, dim=0) > 0.9


@pytest.mark.parametrize("name", FAMILIES)
def test_its_precision_is_the_published_one(name: str) -> None:
    prior = FAMILIES[name](checkpoint=str(tiny(name)))
    assert prior.precision(torch.device("cuda")) is torch.bfloat16
    assert prior.precision(CPU) is torch.float32
    assert FAMILIES[name](dtype="float16").precision(torch.device("cuda")) is torch.float16


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_that_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="tokens long and the text encoder reads 5"):
        loaded(name).condition(square_photo(), "word " * 200)


@pytest.mark.parametrize("name", [*FAMILIES, "prx-pixel"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "<think>"])
def test_a_prompt_with_a_token_of_the_chat_is_refused_by_name(name: str, token: str) -> None:
    prx = name == "prx-pixel"
    found = PRXPixel(checkpoint=str(tiny(name)), size=SIZE).load(CPU) if prx else loaded(name)
    with pytest.raises(InputError, match=re.escape(f"the prompt holds '{token}', which")):
        found.condition(photo(), f"a cat {token} on a mat")
    found.condition(photo(), "a cat <b> | on a mat")


def test_a_distilled_z_image_is_named_by_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "Z-Image-Turbo"
    folder.symlink_to(tiny("z-image"))
    with caplog.at_level(logging.WARNING):
        loaded("z-image")
        assert not caplog.records
        loaded("z-image", folder)
    assert [r.getMessage() for r in caplog.records] == [
        f"'{folder}' seems to be Z-Image-Turbo, which is distilled to few noise levels and has no guidance: "
        "take Tongyi-MAI/Z-Image"
    ]


def test_the_sizes_are_multiples_of_a_token() -> None:
    for cls in FAMILIES.values():
        schema = options_schema(cls)
        assert schema(size=1040).size == 1040
        with pytest.raises(ValidationError, match="multiple of 16"):
            schema(size=1032)


def test_checkpoints_of_other_pipelines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a QwenImageEditPipeline: take prior\.name=qwen-image-edit"):
        loaded("qwen-image", tiny("qwen-image-edit"))
    folder = copy_of("qwen-image-edit", tmp_path)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("QwenImageEditPipeline", "QwenImageEditPlusPipeline"))
    with pytest.raises(
        WeightsError, match=r"is a QwenImageEditPlusPipeline, .* take a QwenImageEditPipeline"
    ):
        loaded("qwen-image-edit", folder)


@pytest.mark.parametrize("spoil", [("2.0", "0.0"), ("2.0", "-1.0"), ("2.0,\n", "")])
def test_a_vae_without_usable_statistics_is_refused(spoil: tuple[str, str], tmp_path: Path) -> None:
    folder = copy_of("qwen-image", tmp_path)
    config = folder / "vae" / "config.json"
    content = config.read_text()
    assert spoil[0] in content
    config.write_text(content.replace(*spoil, 1))
    with pytest.raises(WeightsError, match="VAE"):
        loaded("qwen-image", folder)


def test_the_encoders_leave_the_device_after_use(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[bool] = []
    release = text.TextEncoders.release
    monkeypatch.setattr(text.TextEncoders, "release", lambda self: (released.append(True), release(self)))
    for name in FAMILIES:
        loaded(name).condition(square_photo(), f"not asked so far of {name}")
    assert released == [True] * len(FAMILIES)
