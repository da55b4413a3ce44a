"""Stored rooms for the tests of training: two small files, drawn once by the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training import train_photo
from training.stored_scenes import StoredScenes, stored_scenes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("scenes")
    arguments = ["scenes", "--out", str(found), "--files", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.stored_scenes.PER_FILE", 4)
        result = CliRunner().invoke(train_photo.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found


@pytest.fixture
def rooms(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StoredScenes:
    monkeypatch.setattr("training.stored_scenes.PER_FILE", 4)
    return stored_scenes(folder)
