from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from redepth.checkpoints import Source
from redepth.errors import InputError
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.words import BLURRED, LIGHT_WORDS
from tests.support.helpers import CPU, seeded
from training import train_photo
from training.caption_prior import (
    BLURRED_SHARE,
    NAMES,
    WORDS,
    Captioned,
    build_captioned_prior,
    caption_steps,
    captioned_composites,
    captioned_posters,
    partly_blurred,
    told_rows,
)
from training.loop import snapshot
from training.networks import SIZE
from training.stored_scenes import StoredScenes

START = "embedded:relief-relighting-prior"


def run(*arguments: str) -> None:
    result = CliRunner().invoke(train_photo.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def named(words: torch.Tensor) -> list[set[str]]:
    return [{w for w, said in zip(WORDS, row, strict=True) if said} for row in words.tolist()]


def test_captions_name_the_kind_and_the_light(rooms: StoredScenes) -> None:
    seen = captioned_composites(16, seeded(), rooms)
    assert seen.picture.shape == (16, 3, SIZE, SIZE)
    assert -1 <= seen.picture.min() < seen.picture.max() <= 1
    captions = named(seen.words)
    assert all("relief" in words for words in captions[:8])
    assert all(words & {"room", "street", "hall", "things", "landscape"} for words in captions[8:])
    assert all(words & set(LIGHT_WORDS) for words in captions)
    again = captioned_composites(16, seeded(), rooms)
    assert torch.equal(again.picture, seen.picture)


def test_the_word_for_blurred_surfaces_is_theirs_alone() -> None:
    depth = torch.exp(0.2 * torch.randn(64, 1, 24, 24, generator=seeded()))
    found, blurred = partly_blurred(depth, seeded())
    flatter = found.log().std(dim=(1, 2, 3)) < 0.5 * depth.log().std(dim=(1, 2, 3))
    assert torch.equal(flatter, blurred)
    assert 0 < blurred.float().mean() < 3 * BLURRED_SHARE


def test_posters_have_their_own_words_and_no_shading() -> None:
    seen = captioned_posters(16, seeded())
    assert all("poster" in words and not words & {"relief", *LIGHT_WORDS} for words in named(seen.words))
    sharp = seen.picture[[BLURRED not in words for words in named(seen.words)]]
    steps = (sharp[..., 1:] - sharp[..., :-1]).abs().mean(dim=1)
    # Most neighbours have the same colour.
    assert float((steps < 0.02).float().mean()) > 0.5


def test_words_and_captions_are_left_out_at_random() -> None:
    rows = told_rows(torch.ones(4000, len(WORDS)), seeded())
    told = rows[:, -1] == 1
    assert float(told.float().mean()) == pytest.approx(0.88, abs=0.02)
    assert not rows[~told].any()
    assert float(rows[told][:, :-1].mean()) == pytest.approx(0.85, abs=0.01)


def test_a_warm_start_denoises_as_the_re_lighting_prior_that_is_told_nothing() -> None:
    from diffusers import UNet2DConditionModel

    model = build_captioned_prior(0, START).eval()
    unet = Source(START).model(UNet2DConditionModel, "unet").float().eval()
    noisy, t = torch.randn(1, 3, SIZE, SIZE, generator=seeded()), torch.tensor([600])
    folded = torch.nn.functional.pixel_unshuffle(noisy, 4)
    with torch.no_grad():
        told = model(noisy, t, None, torch.ones(1, len(WORDS) + 1))
        both = torch.cat([folded, torch.zeros_like(folded)], dim=1)
        expected = unet(both, t, None, class_labels=torch.zeros(1, 8)).sample
    assert torch.allclose(told, torch.nn.functional.pixel_shuffle(expected, 4), atol=1e-5)


def test_a_step_has_a_gradient_for_the_words() -> None:
    model = build_captioned_prior(0, START)
    seen = Captioned(torch.zeros(4, 3, SIZE, SIZE), torch.ones(4, len(WORDS)))
    loss = caption_steps(model, lambda: seen, seeded(), CPU)()
    loss.backward()
    weight = model.unet.class_embedding.linear_1.weight
    assert torch.isfinite(loss)
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["scenes", "other"])
def test_it_is_trained_kept_exported_and_loaded(
    domain: str, folder: Path, rooms: StoredScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_photo, "validate_captioned", lambda *_: {})
    runs, out = tmp_path / "runs", tmp_path / "out"
    common = ("--init", START, "--runs", str(runs), "--scenes", str(folder), "--domain", domain)
    run("caption", "--until", "2", "--keep", "16", *common)
    name = NAMES[domain]  # type: ignore[index]
    (row,) = (runs / f"{name}-0" / "log.jsonl").read_text().splitlines()
    assert 0 < json.loads(row)["loss"] < 1
    first = snapshot(runs / f"{name}-0", 16)
    with pytest.raises(InputError, match="kept are those after 16 samples"):
        snapshot(runs / f"{name}-0", 32)
    run("export", "--out", str(out), "--runs", str(runs), "--samples", "16")
    prior = PixelDiffusion(checkpoint=str(out / name), condition_on="prompt").load(CPU)
    assert prior.describe()["kind"] == "captioned prior"
    written = load_file(out / name / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(written["conv_in.weight"], first["unet.conv_in.weight"].half())
