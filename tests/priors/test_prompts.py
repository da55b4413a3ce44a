"""Captions by tiny checkpoints of the real classes, their cache, and what happens without a captioner."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

import redepth
from redepth.config import Prompting
from redepth.errors import MissingDependencyError, WeightsError
from redepth.priors.prompts import CAPTIONERS, MAX_TOKENS, Captioner
from tests.support.checkpoints import WORDS, copy_of, tiny, to_pickle
from tests.support.command import call
from tests.support.helpers import CPU, photo

NAMES = ("blip", "blip2")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "captions"


def array(seed: int = 0) -> Any:
    return photo(seed=seed)[0].permute(1, 2, 0).numpy()


def captioner(name: Any, folder: Path | None = None, **options: Any) -> Captioner:
    return Captioner(name, CPU, checkpoint=str(folder or tiny(name)), **options)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("loaded the captioner")


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_is_what_the_model_writes_of_the_photo(name: str) -> None:
    import transformers

    known = CAPTIONERS[name]
    model = getattr(transformers, known.model).from_pretrained(tiny(name)).eval()
    processor = getattr(transformers, known.processor).from_pretrained(tiny(name))
    found = captioner(name, dtype="float32").captions([array(0), array(1)])
    for seed, prompt in enumerate(found):
        picture = Image.fromarray(np.rint(array(seed) * 255).astype(np.uint8))
        pixels = processor(images=picture, return_tensors="pt").pixel_values
        with torch.no_grad():
            tokens = model.generate(pixel_values=pixels, max_new_tokens=MAX_TOKENS, do_sample=False)
        assert prompt.text == processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        assert set(prompt.text.split()) <= set(WORDS)
    assert found[0].text != found[1].text
    assert found[0].origin == {
        "from": name,
        "checkpoint": str(tiny(name)),
        "revision": None,
        "commit": None,
        "dtype": "float32",
        "cached": False,
    }


def test_it_is_loaded_once_for_all_photos_and_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.checkpoints import Source

    loads: list[str] = []
    original = Source.model

    def counted(source: Source, cls: Any, *args: Any, **options: Any) -> Any:
        loads.append(cls.__name__)
        return original(source, cls, *args, **options)

    monkeypatch.setattr(Source, "model", counted)
    writer = captioner("blip")
    writer.captions([array(seed) for seed in range(3)])
    assert loads == ["BlipForConditionalGeneration"]
    assert writer._loaded is None


def test_a_caption_is_written_once_and_no_part_of_a_path(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captioner, "_write", lambda *_: "../../../etc/passwd\n a: <cat>?")
    first = captioner("blip").captions([array()])[0]
    (entry,) = cache.rglob("*.json")
    assert entry.parent == cache
    assert len(entry.stem) == 64
    monkeypatch.setattr(Captioner, "_write", never)
    again = captioner("blip").captions([array()])[0]
    assert again.text == first.text
    assert (first.origin["cached"], again.origin["cached"]) == (False, True)


@pytest.mark.slow
def test_a_caption_belongs_to_pixels_captioner_weights_and_precision(cache: Path, tmp_path: Path) -> None:
    folder = copy_of("blip", tmp_path)

    def count(picture: Any = None, name: str = "blip", where: Path = folder, **options: Any) -> int:
        captioner(name, where, **options).captions([array() if picture is None else picture])
        return len(list(cache.iterdir()))

    assert count() == 1
    assert count() == 1
    assert count(array(1)) == 2
    # The same bytes in another shape.
    assert count(array().reshape(28, 140, 3)) == 3
    assert count(dtype="bfloat16") == 4
    (folder / "model.safetensors").touch()
    assert count() == 5
    assert count(name="blip2", where=tiny("blip2")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "[]", '{"text": 3}', "\0"])
def test_a_damaged_entry_is_ignored_and_written_anew(cache: Path, damage: str) -> None:
    first = captioner("blip").captions([array()])[0]
    (entry,) = cache.iterdir()
    whole = entry.read_text()
    entry.write_text(damage)
    again = captioner("blip").captions([array()])[0]
    assert (again.text, again.origin["cached"]) == (first.text, False)
    assert entry.read_text() == whole


def test_precisions() -> None:
    cuda = torch.device("cuda")
    assert Captioner("blip2", CPU).dtype == "bfloat16"
    assert Captioner("blip", cuda).dtype == "float32"
    eight = all(importlib.util.find_spec(name) for name in ("bitsandbytes", "accelerate"))
    assert Captioner("blip2", cuda).dtype == ("int8" if eight else "float16")
    assert Captioner("blip2", cuda, dtype="bfloat16").dtype == "bfloat16"
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(
            MissingDependencyError, match=r'bitsandbytes is needed.*"redepth\[int8\]".*--prompt'
        ):
            captioner("blip2", dtype="int8").ensure_available()


def test_the_named_captioners_are_the_presets() -> None:
    assert {"none", *CAPTIONERS} == set(get_args(Prompting.model_fields["captioner"].annotation))
    assert Captioner("blip2", CPU).checkpoint == "Salesforce/blip2-opt-2.7b"
    assert Captioner("blip", CPU).revision == CAPTIONERS["blip"].revision
    assert Captioner("blip", CPU, checkpoint="owner/other").revision is None


# --- without one ----------------------------------------------------------------------------------


def test_a_captioner_that_cannot_be_had_is_an_error_with_the_ways_out(tmp_path: Path) -> None:
    for use in (lambda c: c.ensure_available(), lambda c: c.captions([array()])):
        with pytest.raises(
            WeightsError, match=r"no captions by blip2: .*--prompt.*--caption none.*fallback"
        ) as e:
            use(Captioner("blip2", CPU))
        assert "\n" not in str(e.value)
    folder = copy_of("blip", tmp_path)
    to_pickle(folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"no captions by blip: .* is a pickle"):
        captioner("blip", folder).ensure_available()


@pytest.mark.parametrize("damaged", [False, True])
def test_the_run_goes_on_without_only_if_that_was_said(
    damaged: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of("blip", tmp_path)
    if damaged:
        (folder / "model.safetensors").write_bytes(b"no weights")
    else:
        (folder / "config.json").unlink()
    overrides = ["prompt.captioner=blip", f"prompt.checkpoint={folder}"]
    with pytest.raises(WeightsError, match="no captions by blip"):
        redepth.Pipeline("smoke", overrides=overrides).captions([array()])
    pipeline = redepth.Pipeline("smoke", overrides=[*overrides, "prompt.fallback=none", "optim.steps=1"])
    result = pipeline.refine(array())
    assert result.prompt == ""
    assert result.record()["prompt_origin"]["from"] == "none"
    assert "no captions by blip" in result.record()["prompt_origin"]["because"]
    assert caplog.text.count("going on with an empty prompt") == 1


# --- in a run -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_presets_captioner_writes_what_no_one_gave(real_photos: dict[str, Path]) -> None:
    overrides = ["prompt.captioner=blip2", f"prompt.checkpoint={tiny('blip2')}", "optim.steps=1"]
    pipeline = redepth.Pipeline("smoke", overrides=overrides)
    written = pipeline.refine(real_photos["coins"])
    assert set(written.prompt.split()) <= set(WORDS)
    assert written.prompt == pipeline.captions([real_photos["coins"]])[0].text
    assert written.record()["prompt_origin"]["from"] == "blip2"
    given = pipeline.refine(real_photos["coins"], prompt="coins")
    assert (given.prompt, given.prompt_origin) == ("coins", {"from": "user"})
    # A prompt given to the function needs no captioner at all.
    free = ["prompt.captioner=blip", "optim.steps=1"]
    assert redepth.refine(real_photos["coins"], "smoke", prompt="", overrides=free).prompt == ""


@pytest.mark.slow
def test_the_command_line_shows_and_records_captions(real_photos: dict[str, Path], tmp_path: Path) -> None:
    photos = (real_photos["coins"], real_photos["moon"])
    settings = ("--preset", "smoke", "-s", "optim.steps=1", "--out", tmp_path / "out")
    checkpoint = ("-s", f"prompt.checkpoint={tiny('blip')}")
    done = call("refine", *photos, *settings, *checkpoint, "--caption", "blip")
    assert done.code == 0, done
    for path in photos:
        run = json.loads((tmp_path / "out" / path.stem / "run.json").read_text())
        assert f"{path}: {run['prompt']} (blip)" in done.out
        assert run["prompt_origin"]["from"] == "blip"
        assert run["preset"]["prompt"]["captioner"] == "blip"
    done = call("refine", photos[0], *settings, "--caption", "none")
    assert done.code == 0, done
    run = json.loads((tmp_path / "out" / "coins" / "run.json").read_text())
    assert (run["prompt"], run["prompt_origin"]) == ("", {"from": "none"})


def test_a_wrong_way_to_a_prompt_is_one_line(real_photos: dict[str, Path], tmp_path: Path) -> None:
    for arguments, words in (
        (("--prompt", "x", "--caption", "blip"), "--prompt and --caption exclude each other"),
        (
            ("--caption", "blip"),
            "no captions by blip: the weights of 'Salesforce/blip-image-captioning-base'",
        ),
        (("-s", "prompt.captioner=blip3"), "prompt.captioner"),
        (("-s", "prompt.captionr=blip"), "did you mean 'captioner'"),
    ):
        out = ("--out", tmp_path / "out")
        done = call("refine", real_photos["coins"], "--preset", "smoke", *out, *arguments)
        assert done.code == 2
        assert len(done.complaints) == 1, done.err
        assert words in done.err
    assert not (tmp_path / "out").exists()
