import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redepth
from redepth import components, io
from redepth.app.settings import FILES, RunSettings, settings_of_form
from redepth.cli import refine as refine_command
from redepth.config import load_preset
from redepth.config.hashing import preset_sha256
from redepth.errors import ConfigError
from tests.support.command import call

OFFERED = {"embedded": "embedded", "smoke": "smoke"}

CHOSEN = RunSettings(
    "smoke", members=3, steps=5, budget="90s", seed=7, prompt='a brick\'s "wall" & $HOME', device="cpu"
)
ODD_NAME = "-it's a `photo` of $5.png"


def filled_in(**fields: Any) -> RunSettings:
    return settings_of_form(**({"preset": "smoke", "offered": OFFERED} | fields))


def test_the_command_line_repeats_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    io.save_png(tmp_path / ODD_NAME, np.zeros((20, 20, 3), np.uint8))
    requests: list[refine_command.RefineRequest] = []
    monkeypatch.setattr(refine_command, "run", lambda request: requests.append(request) or 0)
    words = shlex.split(CHOSEN.command(ODD_NAME))
    assert words[0] == "redepth"
    done = call(*words[1:])
    assert done.code == 0, done
    (request,) = requests
    ours, theirs = CHOSEN.resolved(), request.settings.preset
    assert preset_sha256(theirs) == preset_sha256(ours)
    assert theirs.optim.members == 3
    assert theirs.optim.budget == "90s"
    assert theirs.output.write == ours.output.write
    assert (request.settings.seed, request.settings.prompt) == (7, CHOSEN.prompt)
    assert request.settings.device == "cpu"
    assert [path.name for path in request.paths] == [ODD_NAME]


def test_the_python_lines_repeat_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class Result:
        def save(self, folder: str) -> None:
            calls.append((folder,))

    def refine(photo: str, **options: Any) -> Result:
        calls.append((photo, options))
        return Result()

    monkeypatch.setattr(redepth, "refine", refine, raising=False)
    exec(CHOSEN.script(ODD_NAME), {})
    (photo, options), (folder,) = calls
    preset = components.resolve(load_preset(options.pop("preset"), options.pop("overrides")))
    assert preset_sha256(preset) == preset_sha256(CHOSEN.resolved())
    assert preset.output.write == CHOSEN.resolved().output.write
    assert options == {"seed": 7, "prompt": CHOSEN.prompt, "device": "cpu"}
    assert (photo, folder) == (ODD_NAME, "out/photo")


def test_what_is_the_presets_own_is_not_said() -> None:
    line = RunSettings("embedded").command("brick.png")
    assert line == f"redepth refine brick.png --preset embedded --seed 0 --write {','.join(FILES)}"


def test_a_limit_of_pixels_is_repeated() -> None:
    settings = RunSettings("smoke", max_pixels=1000)
    assert "--max-pixels 1000" in settings.command("a.png")
    assert "max_pixels=1000" in settings.script("a.png")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"preset": None}, "choose embedded, smoke"),
        ({"preset": "/etc/passwd"}, "not offered"),
        ({"preset": "re-depth-anything"}, "not offered"),
        ({"members": 2.5}, "members"),
        ({"members": 0}, "members"),
        ({"steps": -1}, "steps"),
        ({"steps": float("nan")}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"seed": True}, "seed"),
        ({"seed": 2.0**70}, "seed"),
        ({"members": 10**400}, "members"),
        ({"steps": 10**5000}, "steps"),
        ({"seed": float("inf")}, "seed"),
        ({"budget": "soon"}, "budget"),
        ({"prompt": "x" * 3000}, "2000"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        filled_in(**fields)
    assert "\n" not in str(error.value)


def test_empty_fields_are_the_presets() -> None:
    settings = filled_in(members=None, steps=None, budget=" ", seed=None, prompt="  ")
    assert settings == RunSettings("smoke")
    assert settings.overrides == []


def test_whole_numbers_may_come_as_floats() -> None:
    settings = filled_in(members=2.0, steps=4.0, seed=9.0)
    assert settings.overrides == ["optim.members=2", "optim.steps=4"]
    assert settings.seed == 9
