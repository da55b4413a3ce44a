"""The cache trusts nothing that it holds: entries are checked, made anew with a line, and private."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from redepth.errors import WeightsError
from redepth.priors import cache
from redepth.priors.stable_diffusion import StableDiffusion
from tests.support.checkpoints import SD
from tests.support.helpers import CPU, photo

ORIGIN = ("model", "a tiger")
TENSORS = {"embedding": torch.arange(6.0).view(1, 2, 3)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(home: Path) -> Path:
    (found,) = (path for path in home.rglob("*") if not path.is_dir())
    return found


def rewritten(path: Path, name: str = "embedding", **tensors: torch.Tensor) -> None:
    """Change the tensors of an entry and keep what it says of itself."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), **tensors}, path, metadata)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_prompt(path: Path) -> None:
    cache.save_tensors("x", ("model", "a cat"), TENSORS)
    (other,) = (p for p in path.parent.iterdir() if p != path)
    shutil.move(other, path)


SPOILS: list[Callable[[Path], object]] = [
    pipe,
    device,
    folder,
    other_prompt,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(b"\xff" * 100),
    lambda path: path.write_bytes((10**8).to_bytes(8, "little") + b"{" * 50),
    lambda path: save_file(TENSORS, path),
    lambda path: rewritten(path, embedding=torch.zeros(1, 2, 3)),
    lambda path: rewritten(path, embedding=torch.zeros(6)),
    lambda path: rewritten(path, embedding=TENSORS["embedding"].half()),
    lambda path: rewritten(path, embedding=TENSORS["embedding"] * float("nan")),
    lambda path: rewritten(path, more=torch.zeros(1)),
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_an_entry_that_does_not_fit_is_made_anew_with_a_line(
    spoil: Callable[[Path], object], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.save_tensors("x", ORIGIN, TENSORS)
    path = entry(home)
    assert torch.equal(cache.load_tensors("x", ORIGIN)["embedding"], TENSORS["embedding"])
    spoil(path)
    assert cache.load_tensors("x", ORIGIN) is None
    (line,) = caplog.messages
    assert str(path) in line
    assert "made anew" in line
    if not path.is_dir():
        cache.save_tensors("x", ORIGIN, TENSORS)
        assert torch.equal(cache.load_tensors("x", ORIGIN)["embedding"], TENSORS["embedding"])


@pytest.mark.parametrize(
    "change",
    [{"text": "a cat"}, {"text": 3}, {"text": None}, {"origin": "x"}, {"sha256": "x"}],
)
def test_a_text_that_does_not_fit_is_made_anew(
    change: dict[str, object], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.save_text("captions", ORIGIN, "a tiger")
    path = entry(home)
    assert cache.load_text("captions", ORIGIN) == "a tiger"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert cache.load_text("captions", ORIGIN) is None
    assert "made anew" in caplog.text


def test_an_absent_entry_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert cache.load_tensors("x", ORIGIN) is None
    assert cache.load_text("x", ORIGIN) is None
    assert not caplog.messages


def test_entries_and_folders_are_the_users_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        cache.save_tensors("x", ORIGIN, TENSORS)
        cache.save_text("y", ORIGIN, "a tiger")
    finally:
        os.umask(before)
    for path in (home, *home.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def small() -> StableDiffusion:
    return StableDiffusion(checkpoint=str(SD), size=64, guidance_scale=2.0).load(CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding": torch.zeros(1, 24, 7)},
        {"embedding": torch.zeros(24, 32)},
        {"embedding": torch.zeros(2, 24, 32)},
        {"embedding": torch.zeros(1, 24, 32, dtype=torch.float16)},
        {"pooled": torch.zeros(1, 3)},
    ],
    ids=str,
)
def test_an_embedding_of_another_model_is_made_anew(
    wrong: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    prior = small()
    expected = prior.condition(photo(), "a tiger").tensors["text"]
    cache.save_tensors("embeddings", (*prior.text_origin(), "a tiger"), wrong)
    assert torch.equal(small().condition(photo(), "a tiger").tensors["text"], expected)
    assert len(caplog.messages) == 1


def test_text_encoders_that_are_broken_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = small()
    broken = {"embedding": torch.full((1, 24, 32), float("nan"))}
    monkeypatch.setattr(prior, "embed_text", lambda _: broken)
    with pytest.raises(WeightsError, match=r"give no embedding for a prompt: its embedding is not finite"):
        prior.condition(photo(), "a tiger")
