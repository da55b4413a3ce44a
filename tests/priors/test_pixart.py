"""PixArt-Sigma against diffusers' own pipelines of the same checkpoint."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Illumination
from redepth.errors import MissingDependencyError, WeightsError
from redepth.priors.distillation import StepInputs
from redepth.priors.pixart import TOKENS, PixArtSigma
from tests.support.checkpoints import copy_of, save_pixart, tiny
from tests.support.helpers import CPU, photo, relative_error, seeded

BOUND = 1e-5
SIZE = 64


def pixart(folder: Path | None = None, **options: Any) -> PixArtSigma:
    return PixArtSigma(checkpoint=str(folder or tiny("pixart")), size=SIZE, **options).load(CPU)


def predictions(prior: PixArtSigma, prompt: str, noisy: Tensor, t: int) -> dict[str, Tensor]:
    inputs = StepInputs(prior.condition(photo(), prompt), Illumination(), prior.draw(1, seeded()))
    with torch.no_grad():
        return dict(prior.predict(noisy, torch.tensor([t]), inputs, ("text", "uncond")))


def first_call(name: str, folder: Path, **arguments: Any) -> tuple[dict[str, Any], Tensor]:
    """What a pipeline hands to its transformer first, and what that answers: no prompt, the prompt."""
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    seen: list[tuple[dict[str, Any], Tensor]] = []

    def record(_module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        seen.append(({"sample": args[0], **kwargs}, output[0]))

    pipe.transformer.register_forward_hook(record, with_kwargs=True)
    pipe(
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        output_type="latent",
        generator=seeded(),
        clean_caption=False,
        use_resolution_binning=False,
        **arguments,
    )
    return seen[0]


@pytest.mark.parametrize(
    ("name", "checkpoint"), [("PixArtSigmaPipeline", "pixart"), ("PixArtAlphaPipeline", "pixart-alpha")]
)
def test_it_is_told_and_predicts_what_the_pipeline_does(name: str, checkpoint: str) -> None:
    """PixArt-Alpha's pipeline tells the transformer the size, if it wants to know; Sigma's does not."""
    folder = tiny(checkpoint)
    call, output = first_call(name, folder, prompt="A Tiger", negative_prompt="dull")
    prior = pixart(folder, negative_prompt="dull")
    found = predictions(prior, "A Tiger", call["sample"][:1], int(call["timestep"][0]))
    assert output.shape[1] == 8
    assert found["text"].shape[1] == 4
    for branch, expected in zip(("uncond", "text"), output[:, :4].split(1), strict=True):
        assert relative_error(found[branch], expected) < BOUND
    assert relative_error(found["text"], output[:1, :4]) > 100 * BOUND
    told = prior.condition(photo(), "A Tiger").tensors
    assert told["text"].shape == (1, TOKENS, 64)
    assert 0 < int(told["text.mask"].sum()) < TOKENS


def test_the_padding_of_a_text_does_not_count() -> None:
    prior = pixart()
    condition = prior.condition(photo(), "a tiger").tensors
    noisy = torch.randn(1, 4, 8, 8, generator=seeded())

    def predicted(embedding: Tensor, mask: Tensor) -> Tensor:
        texts = {"embedding": embedding, "mask": mask}
        inputs = StepInputs(prior.condition(photo(), ""), Illumination(), prior.draw(1, seeded()))
        with torch.no_grad():
            return prior.denoise(noisy, torch.tensor([300]), texts, inputs)

    embedding, mask = condition["text"], condition["text.mask"]
    spoiled = torch.where(mask[..., None].bool(), embedding, torch.full_like(embedding, 7.0))
    expected = predicted(embedding, mask)
    assert relative_error(predicted(spoiled, mask), expected) < 1e-6
    assert relative_error(predicted(spoiled, torch.ones_like(mask)), expected) > 1e-3


def test_its_noise_levels_are_those_of_its_sampler() -> None:
    from diffusers import DPMSolverMultistepScheduler

    sampler = DPMSolverMultistepScheduler.from_pretrained(tiny("pixart"), subfolder="scheduler")
    prior = pixart()
    assert sampler.config.beta_schedule == "linear"
    assert torch.allclose(prior.schedule.a**2, sampler.alphas_cumprod)
    assert prior.schedule.predicts == "epsilon"
    assert not prior.schedule.flow


def test_its_latents_are_scaled_and_its_vae_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    square = torch.rand(1, 3, SIZE, SIZE, generator=seeded())
    prior = pixart()
    expected = prior._vae.encode(square * 2 - 1).latent_dist.mode() * 0.13025
    assert torch.allclose(prior.encode(square, None), expected, atol=1e-6)
    monkeypatch.setattr(PixArtSigma, "precision", lambda *_: torch.float16)
    assert pixart()._vae.dtype is torch.float32


def test_another_transformer_is_read_from_its_own_repository(tmp_path: Path) -> None:
    own, other = copy_of("pixart", tmp_path), tmp_path / "other"
    save_pixart(other, num_layers=1)
    for part in ("text_encoder", "tokenizer", "vae", "scheduler"):
        shutil.rmtree(other / part)
    (other / "model_index.json").unlink()
    shutil.rmtree(own / "transformer")
    prior = pixart(own, transformer_checkpoint=str(other))
    assert len(prior._denoiser.transformer_blocks) == 1
    assert prior.describe()["transformer_checkpoint"] == str(other)
    random = pixart(own, transformer_checkpoint=str(other), weights="random")
    assert len(random._denoiser.transformer_blocks) == 1
    assert "transformer_checkpoint" not in pixart().describe()
    with pytest.raises(WeightsError, match=r"has no transformer/"):
        pixart(own)


def test_a_vocabulary_in_its_published_form_needs_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = copy_of("pixart", tmp_path)
    pixart(folder).ensure_available()
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    for check in (PixArtSigma(checkpoint=str(folder)).ensure_available, lambda: pixart(folder)):
        with pytest.raises(MissingDependencyError, match=r'sentencepiece .*pip install "redepth\[t5\]"'):
            check()


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "added_tokens.json"])
def test_an_embedding_belongs_to_every_file_of_the_tokenizer(name: str, tmp_path: Path) -> None:
    folder = copy_of("pixart", tmp_path)
    (folder / "tokenizer" / "spiece.model").write_bytes(b"published beside it")
    prior = pixart(folder)
    before = prior.text_origin()
    assert prior.text_origin() == before
    path = folder / "tokenizer" / name
    path.write_text(path.read_text() + "\n" if path.is_file() else "{}")
    assert prior.text_origin() != before


def test_a_transformer_of_other_channels_is_refused(tmp_path: Path) -> None:
    folder = copy_of("pixart", tmp_path)
    shutil.rmtree(folder / "transformer")
    save = tmp_path / "save"
    save_pixart(save, out_channels=6)
    shutil.copytree(save / "transformer", folder / "transformer")
    with pytest.raises(WeightsError, match="makes 6 channels from 4"):
        pixart(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(WeightsError, match=r"take prior.name=stable-diffusion$"):
        pixart(folder)
