"""What a shell completes, as the shell asks for it: by environment variables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from redepth.cli import completion
from redepth.components import FAMILIES
from redepth.config import preset_names
from tests.support.command import ENVIRONMENT, call

PROGRAM = "import sys; sys.argv = ['redepth']; from redepth.cli import main; main()"


def completed(line: str, shell: str = "zsh", program: str = PROGRAM) -> str:
    """Return what a shell gets for a line that ends where the cursor is."""
    words = line.split(" ")
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    asked["_REDEPTH_COMPLETE"] = f"complete_{shell}"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**ENVIRONMENT, **asked}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_presets_are_completed_without_torch() -> None:
    heavy = "import atexit; atexit.register(lambda: print('TORCH', 'torch' in sys.modules))"
    printed = completed("redepth refine a.jpg --preset re-", "bash", f"import sys; {heavy}\n{PROGRAM}")
    assert printed.split() == ["re-depth-anything", "re-depth-fast", "TORCH", "False"]


def test_a_setting_and_a_name_are_completed_without_torch() -> None:
    heavy = "import atexit; atexit.register(lambda: print('TORCH', 'torch' in sys.modules))"
    printed = completed("redepth refine a.jpg -s renderer.name=b", "zsh", f"import sys; {heavy}\n{PROGRAM}")
    assert "renderer.name=blinn-phong" in printed
    assert "TORCH False" in printed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("redepth sh", ["show"]),
        ("redepth show emb", ["embedded", "embedded-relief", "embedded-relief-photo"]),
        ("redepth list pr", ["presets", "priors", "protocols"]),
        ("redepth download ic-l", ["ic-light"]),
        ("redepth bench run --pres", ["--preset"]),
        (
            "redepth refine a.jpg --preset smoke --set optim.memb",
            ["optim.members=", "optim.members_per_batch="],
        ),
        # An option twice is an error of the finished command only.
        ("redepth refine a.jpg --seed 1 --seed 2 --thr", ["--threads"]),
    ],
)
def test_a_line_is_completed(line: str, words: list[str]) -> None:
    assert completed(line, "bash").split() == words


def test_every_preset_and_component_is_known() -> None:
    assert completion.presets("") == preset_names()
    known = completion.presets_and_components("")
    for family in ("depth-models", "renderers", "priors"):
        assert set(FAMILIES[family].entries()) < set(known)


def test_settings_are_those_of_the_schema() -> None:
    keys = completion.settings("")
    assert {"optim.steps=", "optim.learning_rates.decoder=", "prior.name=", "output.write="} <= set(keys)
    assert all(key.endswith("=") for key in keys)
    assert completion.settings("optim.early_stop.enabled=t") == ["optim.early_stop.enabled=true"]
    assert completion.settings("prompt.captioner=b") == ["prompt.captioner=blip", "prompt.captioner=blip2"]
    assert completion.settings("renderer.name=ggx,la") == ["renderer.name=ggx,lambert"]
    assert completion.settings("no.such=") == []


def test_the_script_of_a_shell_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        environment = {**os.environ, "_REDEPTH_COMPLETE": f"source_{shell}"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
        )
        assert "_REDEPTH_COMPLETE" in done.stdout, done
    assert "--install-completion" in call("-h").out
