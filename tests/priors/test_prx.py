"""PRXPixel against diffusers' own pipeline of the same checkpoint."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Illumination
from redepth.errors import MissingDependencyError, WeightsError
from redepth.priors import scores
from redepth.priors.distillation import StepInputs
from redepth.priors.pictures import fit_square
from redepth.priors.prx import TOKENS, PRXPixel
from tests.support.checkpoints import copy_of, tiny
from tests.support.helpers import CPU, photo, relative_error, seeded

BOUND = 1e-5
SIZE = 64
GUIDANCE = 5.0


def prx(folder: Path | None = None, **options: Any) -> PRXPixel:
    return PRXPixel(checkpoint=str(folder or tiny("prx-pixel")), **{"size": SIZE, **options}).load(CPU)


class Steps:
    """The steps of a pipeline: inputs and output of its transformer, velocity and picture of its sampler."""

    def __init__(self, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from diffusers import PRXPixelPipeline
        from diffusers.pipelines.prx import pipeline_prx_pixel

        # An optional package that mends wrongly decoded text: it changes no text here.
        monkeypatch.setattr(pipeline_prx_pixel, "ftfy", SimpleNamespace(fix_text=str), raising=False)
        pipe = PRXPixelPipeline.from_pretrained(tiny("prx-pixel"))
        pipe.set_progress_bar_config(disable=True)
        self.calls: list[tuple[dict[str, Any], Tensor]] = []
        self.steps: list[tuple[Tensor, Tensor]] = []
        take = pipe.scheduler.step

        def step(velocity: Tensor, t: Tensor, sample: Tensor, **more: Any) -> Any:
            self.steps.append((velocity, sample))
            return take(velocity, t, sample, **more)

        pipe.scheduler.step = step
        pipe.transformer.register_forward_hook(self._record, with_kwargs=True)
        pipe(
            prompt,
            height=SIZE,
            width=SIZE,
            num_inference_steps=3,
            guidance_scale=GUIDANCE,
            output_type="latent",
            generator=seeded(),
            use_resolution_binning=False,
        )

    def _record(self, _module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.calls.append((kwargs, output[0]))


@pytest.mark.parametrize("step", [0, 1])
def test_it_is_told_and_predicts_what_the_pipeline_does(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Steps("a tiger &amp; a cat", monkeypatch)
    told, output = pipeline.calls[step]
    velocity, noisy = pipeline.steps[step]
    prior = prx(score="rfds", guidance_scale=GUIDANCE, guidance_base="uncond")
    condition = prior.condition(photo(), "a tiger &amp; a cat")
    # The pipeline's levels are none of the prior's: put its first two in their place.
    t, sigma = torch.tensor([500]), float(told["timestep"][0])
    prior.schedule.s[500], prior.schedule.a[500] = sigma, 1 - sigma
    inputs = StepInputs(condition, Illumination(), prior.draw(1, seeded()))
    with torch.no_grad():
        found = prior.predict(noisy, t, inputs, ("text", "uncond"))
    for branch, expected in zip(("uncond", "text"), output.split(1), strict=True):
        assert relative_error(found[branch], expected) < BOUND
    assert relative_error(found["text"], output[:1]) > 100 * BOUND
    guided = scores.guide(found["text"], found["uncond"], GUIDANCE, "uncond")
    assert relative_error(prior.schedule.velocity_of(guided, noisy, t), velocity) < BOUND
    tensors = condition.tensors
    for name, part in (("encoder_hidden_states", ""), ("attention_mask", ".mask")):
        expected = torch.cat([tensors[f"{branch}{part}"] for branch in ("uncond", "text")]).float()
        assert torch.allclose(told[name].float(), expected, atol=1e-6)
    assert tensors["text"].shape == (1, TOKENS, 16)
    assert 0 < int(tensors["text.mask"].sum()) < TOKENS


def test_its_noise_starts_where_the_pipelines_does(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = Steps("a tiger", monkeypatch).steps[0][1]
    prior = prx()
    assert torch.equal(prior.draw_model(1, seeded())["noise"], noisy)
    assert prior.noise_scale == 2
    assert float(prior.draw(4, seeded())["noise"].std()) == pytest.approx(2.0, rel=0.02)


def test_the_picture_is_what_it_denoises() -> None:
    prior, relit = prx(), photo().requires_grad_()
    x = prior.to_model_space(relit, prior.draw(1, seeded()))
    assert torch.allclose(x, fit_square(relit, SIZE) * 2 - 1)
    assert x.shape == (1, 3, SIZE, SIZE)
    condition = prior.condition(photo(), "a tiger")
    prior(relit, condition, Illumination(), prior.draw(1, seeded())).sum().backward()
    assert relit.grad is not None
    assert bool(relit.grad.any())
    assert not hasattr(prior, "_vae")
    assert "vae" not in prior.describe()


@pytest.mark.parametrize(
    ("found", "works"), [("0.37.1", False), ("0.38.0.dev0", False), ("0.39.0", True), ("1.0", True)]
)
def test_an_older_diffusers_is_named_and_not_the_checkpoint(
    found: str, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: found if name == "diffusers" else version(name)
    )
    prior = PRXPixel(checkpoint=str(tiny("prx-pixel")), size=SIZE)
    if works:
        prior.ensure_available()
        prior.load(CPU)
        return
    for check in (prior.ensure_available, lambda: prior.load(CPU)):
        with pytest.raises(
            MissingDependencyError, match=rf'diffusers {found} cannot .* "diffusers>=0\.39,<1"'
        ):
            check()


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = copy_of("prx-pixel", tmp_path)

    def index(**changes: Any) -> None:
        whole = json.loads((tiny("prx-pixel") / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(whole | changes))

    for scale in (0, -1.0, "2", 1000):
        index(noise_scale=scale)
        with pytest.raises(WeightsError, match=r"noise_scale .* must be a number above 0, up to 100"):
            prx(folder)
    index(noise_scale=1.5)
    assert prx(folder).noise_scale == 1.5
    index(_class_name="PRXPipeline")
    with pytest.raises(WeightsError, match="is a PRXPipeline, which no prior reads: take a PRXPixelPipeline"):
        prx(folder)
    with pytest.raises(WeightsError, match=r"patches of 16 pixels: prior\.size must be a multiple"):
        prx(size=72)
    (folder / "model_index.json").unlink()
    config = json.loads((folder / "transformer" / "config.json").read_text())
    shutil.rmtree(folder / "transformer")
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(config | {"in_channels": 16}))
    with pytest.raises(WeightsError, match="reads 16 channels, not the 3 of pixels"):
        prx(folder, weights="random")
