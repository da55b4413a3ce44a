from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redepth.errors import ConfigError
from redepth.runtime.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from redepth.runtime.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=rf"process {process.pid} on .* is writing there"),
            locked(tmp_path),
        ):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with locked(tmp_path):
        assert (tmp_path / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []


def test_the_message_names_the_option(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=r"^--refined .* another --refined"),
        locked(tmp_path, "--refined"),
    ):
        pass


def test_a_lock_is_for_one_folder_and_one_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        locked(tmp_path),
        locked(tmp_path / "a"),
        pytest.raises(ConfigError, match="is writing"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
