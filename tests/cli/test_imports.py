"""--import: components of one file in every command, before or after it; their code decides what is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import redepth
from redepth.runtime import component_files
from tests.support.command import SMOKE, call, one_line

RENDERER = '''
from __future__ import annotations

from dataclasses import dataclass

import redepth
from redepth.renderers.matte import Lambert


@redepth.renderers.register("glow")
@dataclass(kw_only=True, eq=False)
class Glow(Lambert):
    """Lambert shading under another name."""
'''


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(component_files, "_imported", {})
    monkeypatch.setattr(redepth.renderers.REGISTRY, "_entries", dict(redepth.renderers.REGISTRY._entries))
    yield
    sys.modules.pop("redepth_file_glow", None)


@pytest.fixture
def glow(tmp_path: Path) -> Path:
    file = tmp_path / "glow.py"
    file.write_text(RENDERER)
    return file


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_a_component_is_listed_and_shown(before: bool, glow: Path) -> None:
    for command in (("list", "renderers"), ("show", "smoke", "--set", "renderer.name=glow")):
        option = ("--import", glow)
        done = call(*option, *command) if before else call(*command, *option)
        assert done.code == 0, done.err
        assert "glow" in done.out


@pytest.mark.parametrize(
    "command",
    [
        ("refine", "x.png"),
        ("bench", "run"),
        ("bench",),
        ("experiment", "prior"),
        ("compare", "x"),
        ("adapt", "x"),
        ("list",),
        ("show",),
        ("doctor",),
        ("download", "smoke"),
    ],
)
def test_every_command_takes_the_option(command: tuple[str, ...], tmp_path: Path) -> None:
    one_line(call(*command, "--import", tmp_path / "none.py"), "none.py: no such file")


@pytest.mark.usefixtures("never_loads")
def test_what_is_wrong_with_a_file_is_one_line_with_its_number(
    glow: Path, real_photos: dict[str, Path]
) -> None:
    glow.write_text("import redepth\n\nnothing.register()\n")
    one_line(call("refine", real_photos["brick"], *SMOKE, "--import", glow), f"{glow}, line 3: NameError")


@pytest.mark.slow
def test_changed_code_is_refined_again(glow: Path, real_photos: dict[str, Path], tmp_path: Path) -> None:
    photos = [real_photos[name] for name in ("brick", "moon")]
    small = ("--set", "optim.steps=1", "--set", "optim.members=1", "--set", "depth_model.longer_side=64")
    command = ("refine", *photos, *SMOKE, *small, "--set", "renderer.name=glow", "--write", "map")
    command = (*command, "--out", tmp_path / "out", "--import", glow)
    assert call(*command).code == 0
    assert "2 of 2 photos are done already" in call(*command).out
    glow.write_text(RENDERER + "\n# changed\n")
    done = call(*command)
    assert done.out.count("refined again: the code of glow.py changed") == 2
    assert len([line for line in done.progress if "step 1/1" in line]) == 2
