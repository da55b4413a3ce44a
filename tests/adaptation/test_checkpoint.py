"""The checkpoint of an adaptation: redepth and transformers load what was saved, with nothing changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.adaptation.card import model_card
from redepth.adaptation.checkpoint import (
    CARD,
    FILES,
    UNKNOWN_LICENCE,
    Start,
    licence_of,
    preprocessor_settings,
    start_of,
    write_checkpoint,
)
from redepth.checkpoints import Source
from redepth.depth_models.backbone import PREPROCESSOR, Preprocessing
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import OutputError
from tests.adaptation.test_card import adapted, job
from tests.support.helpers import CPU, GOLDEN, photo, seeded

TINY = str(GOLDEN / "tiny-random-depth-anything")
EMBEDDED = "embedded:relief-depth"


def changed(checkpoint: str = EMBEDDED, **options: Any) -> DepthAnything:
    """A depth model whose weights differ from those of its checkpoint."""
    model = DepthAnything(checkpoint=checkpoint, **options).load(CPU)
    generator = seeded(4)
    with torch.no_grad():
        for parameter in model.network().parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


def saved(model: DepthAnything, folder: Path, start: Start | None = None) -> Path:
    write_checkpoint(model, start or start_of(model), "# card\n", folder)
    return folder


def prediction(model: DepthAnything) -> torch.Tensor:
    with torch.no_grad():
        return model.decode(model.encode(model.prepare(photo(96, 120))))


@pytest.mark.parametrize("checkpoint", [EMBEDDED, TINY])
def test_a_saved_model_predicts_the_same_to_the_bit(checkpoint: str, tmp_path: Path) -> None:
    model = changed(checkpoint, longer_side=112, scale=7.0)
    folder = saved(model, tmp_path / "checkpoint")
    assert {path.name for path in folder.iterdir()} == set(FILES)
    again = DepthAnything(checkpoint=str(folder), longer_side=112, scale=7.0).load(CPU)
    assert torch.equal(prediction(again), prediction(model))
    start = DepthAnything(checkpoint=checkpoint, longer_side=112, scale=7.0).load(CPU)
    assert not torch.allclose(prediction(start), prediction(model), rtol=1e-3)
    assert again.preprocessing == model.preprocessing


def test_transformers_alone_predicts_from_it(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    folder = saved(changed(longer_side=192), tmp_path / "checkpoint")
    model = AutoModelForDepthEstimation.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    picture = (photo(96, 96)[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    # The sides and the normalisation that redepth used.
    assert tuple(pixels.shape) == (1, 3, 192, 192)
    ours = DepthAnything(checkpoint=str(folder), longer_side=192, antialias=True).load(CPU)
    expected = ours.pixels(ours.prepare(torch.from_numpy(picture / 255.0).float().permute(2, 0, 1)[None]))
    assert float((pixels - expected).abs().mean()) < 0.05
    with torch.no_grad():
        assert model(pixels).predicted_depth.shape[-2:] == (192, 192)


def test_the_preprocessing_of_the_start_is_kept_word_for_word(tmp_path: Path) -> None:
    start = shutil.copytree(TINY, tmp_path / "start")
    settings = {"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3]}
    (start / PREPROCESSOR).write_text(json.dumps(settings | {"size": 70, "own": "kept"}))
    model = changed(str(start), longer_side=70)
    folder = saved(model, tmp_path / "checkpoint")
    assert json.loads((folder / PREPROCESSOR).read_text()) == settings | {"size": 70, "own": "kept"}
    assert DepthAnything(checkpoint=str(folder), longer_side=70).load(CPU).preprocessing.mean == (
        0.4,
        0.5,
        0.6,
    )


def test_a_further_adaptation_names_the_first_start(tmp_path: Path) -> None:
    model = changed(longer_side=70)
    first = start_of(model)
    write_checkpoint(model, first, model_card(job(), adapted(), first, 7.0), tmp_path / "one")
    second = start_of(DepthAnything(checkpoint=str(tmp_path / "one"), longer_side=70).load(CPU))
    assert (second.checkpoint, second.licence, second.on_hub) == (EMBEDDED, "apache-2.0", False)
    hub = Start("owner/model", None, "c" * 40, "cc-by-nc-4.0", None, True)
    write_checkpoint(model, hub, model_card(job(), adapted(), hub, 7.0), tmp_path / "two")
    third = start_of(DepthAnything(checkpoint=str(tmp_path / "two"), longer_side=70).load(CPU))
    assert (third.checkpoint, third.commit, third.licence) == ("owner/model", "c" * 40, "cc-by-nc-4.0")
    # A folder that redepth did not write is known by its name alone.
    other = Path(shutil.copytree(TINY, tmp_path / "mine"))
    assert start_of(DepthAnything(checkpoint=str(other), longer_side=70).load(CPU)).checkpoint == "mine"


@pytest.mark.parametrize("rule", ["minimal", "stretch"])
def test_written_preprocessing_is_read_back(rule: Any) -> None:
    own = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), target=(64, 96), multiple=16, rule=rule)
    assert Preprocessing().updated(preprocessor_settings(own)) == own


def test_the_relative_scale_survives_the_change_of_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A preset that leaves the scale open gets it from the name of the paper's checkpoint alone.
    monkeypatch.setattr("redepth.depth_models.depth_anything.V2_SMALL", TINY)
    model = changed(TINY, longer_side=70)
    assert model.scale == 7.0
    folder = saved(model, tmp_path / "checkpoint")
    assert DepthAnything(checkpoint=str(folder), longer_side=70).load(CPU).scale == 7.0
    # And a second adaptation keeps it, too.
    second = saved(changed(str(folder), longer_side=70), tmp_path / "second")
    assert DepthAnything(checkpoint=str(second), longer_side=70).load(CPU).scale == 7.0
    assert DepthAnything(checkpoint=str(second), scale=3.0).load(CPU).scale == 3.0
    assert DepthAnything(checkpoint=str(second), scale="auto").load(CPU).scale == "auto"


def test_a_checkpoint_with_a_scale_of_its_photo_stores_none(tmp_path: Path) -> None:
    folder = saved(changed(TINY, longer_side=70, scale="auto"), tmp_path / "checkpoint")
    assert "redepth_scale" not in json.loads((folder / "config.json").read_text())
    config = json.loads((folder / "config.json").read_text()) | {"redepth_scale": "seven"}
    (folder / "config.json").write_text(json.dumps(config))
    assert DepthAnything(checkpoint=str(folder), longer_side=70).load(CPU).scale == "auto"


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = changed(TINY, longer_side=70)
    folder = saved(model, tmp_path / "checkpoint")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(_: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(model, "save_checkpoint", full)
    with pytest.raises(
        OutputError, match="checkpoint: cannot be written: the disk is full; the same command"
    ):
        saved(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("checkpoint", "licence"),
    [
        (EMBEDDED, "apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Small-hf", "apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Large-hf", "cc-by-nc-4.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf", "cc-by-nc-4.0"),
        ("Intel/dpt-beit-base-384", "mit"),
        ("prs-eth/marigold-depth-v1-1", "openrail++"),
        ("apple/DepthPro-hf", "apple-amlr"),
    ],
)
def test_the_licence_is_that_of_the_start(checkpoint: str, licence: str) -> None:
    assert licence_of(Source(checkpoint)) == licence


def test_the_licence_of_a_folder_is_that_of_its_card(tmp_path: Path) -> None:
    assert licence_of(Source(str(tmp_path))) == UNKNOWN_LICENCE
    (tmp_path / CARD).write_text("---\nlicense: cc-by-nc-4.0\ntags: [a]\n---\n# x\n")
    assert licence_of(Source(str(tmp_path))) == "cc-by-nc-4.0"
    (tmp_path / CARD).write_text("---\nlicense: other\nlicense_name: unknown\n---\n# x\n")
    assert licence_of(Source(str(tmp_path))) == UNKNOWN_LICENCE
    for text in ("# no front matter\n", "---\nlicense: [1, 2]\n---\n", "---\n: :\n---\n", "---\n"):
        (tmp_path / CARD).write_text(text)
        assert licence_of(Source(str(tmp_path))) == UNKNOWN_LICENCE
