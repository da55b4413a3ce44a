"""The command itself: entry point, help, version, debug logs, what it imports."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from redepth import __version__, cli
from redepth.cli import application
from tests.support.command import ENVIRONMENT, call


def test_the_installed_script_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="redepth")
    assert script.load() is cli.main
    assert call("--version").out.strip() == __version__
    helped = call("--help")
    assert helped.code == 0
    for command in ("refine", "list", "show", "doctor"):
        assert command in helped.out


@pytest.mark.parametrize(
    "code",
    [
        "import redepth",
        "import redepth; dir(redepth); redepth.__version__",
        "import sys; sys.argv = ['redepth', '--help']; from redepth.cli import main; main()",
        "import sys; sys.argv = ['redepth', 'refine', '--help']; from redepth.cli import main; main()",
    ],
)
def test_nothing_heavy_is_imported_for(code: str) -> None:
    heavy = {"torch", "numpy", "PIL", "transformers", "diffusers", "huggingface_hub", "matplotlib", "trimesh"}
    report = f"import atexit, sys; atexit.register(lambda: print('HEAVY', *({heavy} & set(sys.modules))))"
    done = subprocess.run(
        [sys.executable, "-c", f"{report}\n{code}"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"


@pytest.mark.parametrize(
    "command", [(), ("refine",), ("bench",), ("bench", "run"), ("list",), ("experiment",)]
)
def test_h_is_help(command: tuple[str, ...]) -> None:
    done = call(*command, "-h")
    assert (done.code, done.err) == (0, "")
    assert "Usage: " in done.out
    assert "--help" in done.out


@pytest.mark.parametrize("code", [1, 130])
def test_typers_code_of_an_interruption_becomes_that_of_the_signal(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise SystemExit(code)

    monkeypatch.setattr(application, "app", command)
    with pytest.raises(SystemExit) as end:
        application.main()
    assert end.value.code == 143
