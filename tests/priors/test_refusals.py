"""What is wrong with a prior's checkpoint or prompt, on the command line: one line, and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from redepth.checkpoints import lookup
from tests.support.checkpoints import copy_of, tiny, to_pickle
from tests.support.command import call
from tests.support.helpers import GOLDEN

UNET = "unet/diffusion_pytorch_model.safetensors"


def nothing(folder: Path) -> None:
    """Leave it as it is."""


def without_unet(folder: Path) -> None:
    (folder / UNET).unlink()


def pickled(folder: Path) -> None:
    to_pickle(folder / UNET)


def corrupted(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:5000])


def another_class(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    shutil.copytree(tiny("ddpm") / "unet", folder / "unet")


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (nothing, ("-s", "prior.checkpoint=owner/nothing-here"), ("'owner/nothing-here'", "hf download")),
        (nothing, ("-s", "prior.checkpoint=nothing-here"), ("no such folder, and not a hub id",)),
        (nothing, ("-s", "prior.checkpoint=owner/x", "-s", "prior.local_files_only=true"), ("'owner/x'",)),
        (nothing, ("-s", "prior.vae=tiny"), ("'madebyollin/taesd'", "hf download")),
        (nothing, ("-s", "prior.name=stable-diffusion-xl"), ("has no text_encoder_2/model.safetensors",)),
        (nothing, ("--prompt", "word " * 100), ("tokens long", "reads 77", "shorten it")),
        (nothing, ("-s", "prior.score=rfds"), ("flow-matching", "stable-diffusion-3")),
        (without_unet, (), (f"has no {UNET}",)),
        (pickled, (), ("is a pickle", "convert it: python -c")),
        (corrupted, (), ("UNet2DConditionModel", "damaged")),
        (another_class, (), ("is a 'UNet2DModel'", "UNet2DConditionModel is needed")),
    ],
)
def test_each_is_one_line(
    spoil: Callable[[Path], None],
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    real_photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whoever runs this may have the published weights.
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    folder = copy_of("sd15", tmp_path)
    spoil(folder)
    tiny_paper = (
        f"depth_model.checkpoint={GOLDEN / 'tiny-random-depth-anything'}",
        "depth_model.longer_side=70",
        f"prior.checkpoint={folder}",
        "prompt.captioner=none",
    )
    settings = [part for override in tiny_paper for part in ("-s", override)]
    done = call("refine", real_photos["coins"], *settings, *arguments, "--out", tmp_path / "out")
    assert done.code == 2
    # A progress bar may have begun.
    assert len([line for line in done.complaints if line.startswith("error: ")]) == 1, done.err
    assert len(done.complaints) <= 2, done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err


def test_a_prior_of_another_family_is_named(real_photos: dict[str, Path], tmp_path: Path) -> None:
    depth = f"depth_model.checkpoint={GOLDEN / 'tiny-random-depth-anything'}"
    prior = ("-s", f"prior.checkpoint={tiny('xl')}", "--prompt", "coins")
    done = call("refine", real_photos["coins"], "-s", depth, *prior, "--out", tmp_path / "out")
    assert done.code == 2
    assert len(done.complaints) == 1, done.err
    assert "is a StableDiffusionXLPipeline: take prior.name=stable-diffusion-xl" in done.err


def test_the_list_of_priors_says_what_each_lacks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    done = call("list", "priors")
    assert done.code == 0, done
    rows = {line.split()[0]: line.split()[1] for line in done.out.splitlines() if "  " in line}
    names = [
        "stable-diffusion",
        "stable-diffusion-2.1",
        "stable-diffusion-xl",
        "stable-diffusion-3",
        "stable-diffusion-3.5",
        "flux2-klein",
        "z-image",
        "qwen-image",
        "qwen-image-edit",
        "pixart-sigma",
        "prx-pixel",
        "ic-light",
    ]
    for name in names:
        assert rows[name] == "download"
    assert rows["pixel-diffusion"] == "ready"
    assert "redepth download prior NAME" in done.out
