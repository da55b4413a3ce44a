"""The model card: metadata as on the hub, and all that says how the model was made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from redepth.adaptation.card import LISTED, hash_of_hashes, model_card
from redepth.adaptation.checkpoint import UNKNOWN_LICENCE, Start
from redepth.adaptation.record import Adapted, Job, Validated
from redepth.components import resolve
from redepth.config import load_preset
from redepth.io.markup import parse_yaml
from redepth.runtime.resume import Identity

HUB = Start("depth-anything/Depth-Anything-V2-Small-hf", None, "c" * 40, "apache-2.0", None, True)


def job(photos: int = 3, keep: int = 0, *overrides: str) -> Job:
    hashes = {f"holiday-{n}": hashlib.sha256(bytes([n])).hexdigest() for n in range(photos + keep)}
    names = list(hashes)
    return Job(
        preset=resolve(load_preset("embedded-relief", overrides)),
        seed=11,
        photos={name: hashes[name] for name in names[:photos]},
        keep={name: hashes[name] for name in names[photos:]},
        identity=Identity(inputs={}, versions={"redepth": "0.1.0", "torch": "2.9"}),
    )


def adapted(**changes: Any) -> Adapted:
    values: dict[str, Any] = {
        "folder": Path("out/adapt"),
        "steps": 75,
        "chosen": 50,
        "stopped": "no improvement in 2 validations",
        "validations": [
            Validated(step=s, distance=d) for s, d in ((0, 9.87), (25, 8.5), (50, 8.12), (75, 8.4))
        ],
        "training": 2,
        "held_out": ["holiday-1"],
        "learned": (1000, 4000),
        "predict_seconds": 0.0213,
        "refine_seconds": 42.0,
    }
    return Adapted(**{**values, **changes})


def front_matter(card: str) -> Any:
    head, end, _ = card.removeprefix("---\n").partition("---\n")
    assert end
    return parse_yaml(head)


def test_the_metadata_is_that_of_the_hub() -> None:
    head = front_matter(model_card(job(), adapted(), HUB, 7.0))
    assert head == {
        "base_model": "depth-anything/Depth-Anything-V2-Small-hf",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "depth-estimation",
        "redepth_start": {"checkpoint": HUB.checkpoint, "commit": "c" * 40},
        "tags": ["depth-estimation", "redepth"],
    }


def test_a_start_without_hub_and_licence_claims_neither() -> None:
    card = model_card(job(), adapted(), Start("mine", licence=UNKNOWN_LICENCE), "auto")
    assert front_matter(card) == {
        "license": "other",
        "license_name": "unknown",
        "pipeline_tag": "depth-estimation",
        "redepth_start": {"checkpoint": "mine"},
        "tags": ["depth-estimation", "redepth"],
    }
    assert "is not known to redepth" in card
    assert "transformers" not in card
    assert "# mine, adapted to 2 photos" in card


def test_it_says_how_the_model_was_made() -> None:
    card = model_card(job(3, 0, "adapt.learns=decoder"), adapted(), HUB, 7.0)
    for words in (
        f"`depth-anything/Depth-Anything-V2-Small-hf`, commit {'c' * 40}",
        "method `distil`",
        "It learned the decoder: 1,000 of 4,000 numbers",
        "the licence `apache-2.0`",
        "| before | 9.87 % |",
        "| after | 8.12 % |",
        "The weights are the average at step 50, the best of 4 validations on 1 photos",
        "75 steps and ended: no improvement in 2 validations",
        "A prediction took 21 ms, a refinement of a photo 42 s",
        "No photos of other kinds were kept",
        "--preset embedded-relief --set depth_model.checkpoint=FOLDER",
        "`depth_model.scale` must be 7.0",
        "- torch 2.9",
        "Seed 11",
    ):
        assert words in card, words
    settings = card.partition("```yaml\n")[2].rpartition("```")[0].partition("```")[0]
    assert parse_yaml(settings) == job(3, 0, "adapt.learns=decoder").preset.model_dump(mode="json")


def test_photos_are_hashes_and_no_names() -> None:
    work = job(3, 2)
    card = model_card(work, adapted(keep=2), HUB, 7.0)
    assert "holiday" not in card
    for value in (*work.photos.values(), *work.keep.values()):
        assert f"- `{value}`" in card
    joined = "".join(f"{value}\n" for value in sorted(work.photos.values()))
    assert hash_of_hashes(work.photos) == hashlib.sha256(joined.encode()).hexdigest()
    assert f"`{hash_of_hashes(work.photos)}`" in card
    assert f"`{hash_of_hashes(work.keep)}`" in card
    assert "On 2 other photos it was trained to stay as it was" in card


def test_no_path_of_this_machine_is_published(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    start = f"depth_model.checkpoint={tmp_path / 'mine'}"
    card = model_card(job(3, 0, start), adapted(), Start("mine"), 7.0)
    assert str(tmp_path) not in card
    assert "checkpoint: mine\n" in card.partition("```yaml\n")[2]


def test_where_redepth_wrote_the_preprocessing_the_card_says_so() -> None:
    assert "had no `preprocessor_config.json`" in model_card(job(), adapted(), HUB, 7.0)
    own = Start(HUB.checkpoint, None, "c" * 40, "apache-2.0", {"size": 518}, True)
    assert "preprocessor_config.json" not in model_card(job(), adapted(), own, 7.0)


def test_of_many_photos_only_the_hash_of_all_is_given() -> None:
    work = job(LISTED + 1)
    card = model_card(work, adapted(), HUB, 7.0)
    assert next(iter(work.photos.values())) not in card
    assert hash_of_hashes(work.photos) in card


def test_without_validation_no_improvement_is_claimed() -> None:
    card = model_card(job(), adapted(validations=[], held_out=[], chosen=75), HUB, 7.0)
    assert "before" not in card.partition("## Measured")[2].partition("## Photos")[0]
    assert "nan" not in card.lower().partition("## settings")[0]


@pytest.mark.parametrize("name", ["embedded-relief", "own"])
def test_an_own_preset_is_not_named_as_if_it_came_with_the_package(name: str) -> None:
    work = job()
    work = work.model_copy(update={"preset": work.preset.model_copy(update={"name": name})})
    shown = "embedded-relief" if name == "embedded-relief" else "PRESET.yaml"
    assert f"--preset {shown} " in model_card(work, adapted(), HUB, 7.0)
