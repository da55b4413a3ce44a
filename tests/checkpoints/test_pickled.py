from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from redepth.checkpoints import pickled, read_pickled
from redepth.errors import WeightsError
from tests.checkpoints.test_hostile import Bomb

CONTENT = {"model_config": {"dims": [1, 2], "name": "a"}, "model": {"w": torch.arange(6.0).view(2, 3)}}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], packed: bool = False) -> Path:
    """Write the entries of an archive anew; a change to None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new)
    return path


def said(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_pickled(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_tensors_and_settings_are_read(tmp_path: Path) -> None:
    content = read_pickled(saved(CONTENT, tmp_path / "model.pt"))
    assert content["model_config"] == CONTENT["model_config"]
    assert torch.equal(content["model"]["w"], CONTENT["model"]["w"])


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "before archives"])
def test_code_in_a_model_pt_does_not_run(legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.pt"
    torch.save({"model": Bomb(mark)}, path, _use_new_zipfile_serialization=not legacy)
    message = said(path)
    assert ("is no archive" if legacy else "more than tensors and settings") in message
    assert legacy or f"its pickle names {os.mkdir.__module__}.mkdir, which is code" in message
    assert not mark.exists()


def test_the_environment_does_not_loosen_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "ran"
    said(saved({"model": Bomb(mark)}, tmp_path / "model.pt"))
    assert not mark.exists()


def test_what_is_no_archive_of_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"\0" * 64)
    assert "is no archive of weights" in said(path)
    content = saved(CONTENT, path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "is no archive of weights" in said(path)
    rewritten(saved(CONTENT, path), lambda _, content: content, packed=True)
    assert "no archive as torch writes it" in said(path)
    rewritten(saved(CONTENT, path), lambda name, content: None if name.endswith("data.pkl") else content)
    assert "no archive as torch writes it" in said(path)
    rewritten(saved(CONTENT, path), lambda name, content: None if name.endswith("data/0") else content)
    assert "or is damaged" in said(path)
    assert "must hold a dictionary" in said(saved(torch.ones(1), path))
    # A small limit stands for the real one.
    saved(CONTENT | {"more": "x" * 4096}, path)
    assert read_pickled(path)["more"] == "x" * 4096
    monkeypatch.setattr(pickled, "PICKLE_LIMIT", 2048)
    assert "no archive as torch writes it" in said(path)
    saved(CONTENT | {"model": {"w": torch.zeros(4096)}}, path)
    assert read_pickled(path)["model"]["w"].shape == (4096,)


def test_numbers_that_are_missing_are_noticed(tmp_path: Path) -> None:
    path = saved(CONTENT, tmp_path / "model.pt")
    rewritten(path, lambda name, content: content[:8] if name.endswith("data/0") else content)
    assert "or is damaged" in said(path)


def test_the_readers_advice_to_read_it_anyway_is_not_passed_on(tmp_path: Path) -> None:
    path = saved({"model": Bomb(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(WeightsError) as error:
        read_pickled(path)
    assert "weights_only" in str(error.value.__cause__)
    for words in ("weights_only", "torch.load", "can still", "\x1b"):
        assert words not in str(error.value)


def test_a_name_in_the_file_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    path = saved({"model": Bomb(tmp_path / "ran")}, tmp_path / "model.pt")

    def hostile(name: str, content: bytes) -> bytes:
        return content.replace(b"mkdir", b"\x1b[2J") if name.endswith("data.pkl") else content

    message = said(rewritten(path, hostile))
    assert message.isprintable()
    assert r".\x1b[2J, which is code" in message


def test_tensors_that_repeat_few_numbers_are_refused(tmp_path: Path) -> None:
    path, one = tmp_path / "model.pt", torch.zeros(1)
    for large in (one.as_strided((2**40,), (0,)), one.expand(2), torch.zeros(2**40, device="meta")):
        for content in ({"w": large}, {"a": [({"b": large},)]}):
            saved({"model": content}, path)
            assert "larger than their numbers in it" in said(path)
    saved({"model": {"w": torch.eye(3).to_sparse()}}, path)
    assert "larger than their numbers in it" in said(path)
    whole = torch.arange(12.0).view(3, 4)
    saved({"model": {"a": whole[1:], "b": whole.T, "c": nn.Parameter(whole), "d": torch.tensor(1)}}, path)
    assert torch.equal(read_pickled(path)["model"]["b"], whole.T)
