"""What `redepth new` writes: it works as it is, and it replaces nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import redepth
from redepth.cli.new import SETTINGS, Kind
from redepth.components import FAMILIES
from redepth.runtime import component_files
from tests.support.command import ENVIRONMENT, SMOKE, call, one_line, record

ROOT = Path(__file__).parents[2]
KINDS = get_args(Kind)


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(component_files, "_imported", {})
    for registry in FAMILIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("redepth_file_"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_registers_a_component_that_follows_its_contract(kind: str, tmp_path: Path) -> None:
    done = call("new", kind, "soft-light", "--out", tmp_path / "mine")
    assert (done.code, done.err) == (0, "")
    file, test = tmp_path / "mine" / "soft_light.py", tmp_path / "mine" / "test_soft_light.py"
    setting = SETTINGS[kind].format("soft-light")
    assert [line.strip() for line in done.out.splitlines()] == [
        f"written: {file}, {test}",
        "next:",
        f"pytest {test}",
        f"redepth refine photo.jpg --preset embedded --import {file} --set {setting}",
    ]
    assert all(len(path.read_text().splitlines()) < 120 for path in (file, test))
    registry = FAMILIES[f"{kind}s"]
    assert redepth.import_components(file) == [f"{registry.family} soft-light"]
    # Building checks the members that the contract names.
    registry.build("soft-light", {})
    assert registry.entries()["soft-light"].summary
    resolved = redepth.components.resolve(redepth.load_preset("embedded", [setting]))
    assert "soft-light" in resolved.to_yaml()


@pytest.mark.slow
def test_what_is_written_passes_its_test(tmp_path: Path) -> None:
    for kind in KINDS:
        assert call("new", kind, f"glow-{kind}", "--out", tmp_path).code == 0
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    tested = subprocess.run(
        command, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_refines_a_photo(kind: Kind, tmp_path: Path, real_photos: dict[str, Path]) -> None:
    assert call("new", kind, "glow", "--out", tmp_path).code == 0
    chosen = ("--set", "optim.steps=2", "--set", "optim.members=1", "--set", SETTINGS[kind].format("glow"))
    command = (*chosen, "--import", tmp_path / "glow.py", "--out", tmp_path / "out")
    done = call("refine", real_photos["brick"], *SMOKE, *command)
    assert done.code == 0, done.err
    made = record(tmp_path / "out" / "brick")
    assert "the code of glow.py" in made["identity"]["inputs"]
    assert "glow" in str(made["preset"])
    assert made["steps_done"] == [2]


@pytest.mark.slow
def test_what_is_written_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for kind in KINDS:
        assert call("new", kind, "glow", "--out", tmp_path / kind).code == 0
    settings = ("--config", str(ROOT / "pyproject.toml"), "--no-cache")
    for check in (("check", *settings, "--ignore", "D103"), ("format", "--check", *settings)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("renderer", "ggx", ["a renderer 'ggx' already", "redepth list renderers"]),
        ("depth-model", "depth-anything", ["a depth-model 'depth-anything' already"]),
        ("prior", "Soft Light", ["lower-case letters"]),
        ("prior", "../x", ["lower-case letters"]),
        ("prior", "x" * 61, ["at most 60"]),
        ("renderer", "true", ["YAML reads it as True"]),
        ("renderer", "json", ["json.py would hide the module json"]),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    kind: str, name: str, words: list[str], tmp_path: Path
) -> None:
    one_line(call("new", kind, name, "--out", tmp_path / "mine"), *words)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("existing", ["glow.py", "test_glow.py"])
def test_a_file_is_never_replaced(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine")
    one_line(call("new", "prior", "glow", "--out", tmp_path), str(tmp_path / existing), "exists already")
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one_line(call("new", "prior", "glow", "--out", tmp_path / "file"), f"--out {tmp_path / 'file'}")
    one_line(call("new", "prior", "glow", "--out", "/proc/glow"), "--out /proc/glow")


def test_an_unknown_kind_is_one_line() -> None:
    one_line(call("new", "lamp", "glow"), "lamp", "depth-model")
