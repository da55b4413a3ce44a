"""Runs that are ended at a random moment, and what their folder of results holds then."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command import ENVIRONMENT

ROOT = Path(__file__).parents[2]
ANSWER_SECONDS = 120.0
ORPHAN_SECONDS = 20.0
TIMES = {"seconds", "timings", "memory_mib"}
UNSTABLE = {"plot.png"}
"""Files that show times."""


@dataclass
class ForkServer:
    """Starts runs of the command line; see `tests.soak.fork_server`."""

    process: subprocess.Popen[str]

    def ask(self, **request: Any) -> int:
        """Send a request and return the answer."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        if not select.select([stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError(f"no answer to {request} in {ANSWER_SECONDS:.0f} s")
        return int(stdout.readline())

    def run(
        self, arguments: Sequence[str], log: Path, end: tuple[signal.Signals, float] | None = None
    ) -> tuple[int, float]:
        """Run a command, send it a signal after some seconds, and return exit code and length in seconds.

        Ctrl-C reaches the whole session, as from a terminal; other signals the command alone.
        """
        # A command that is killed at once has not opened it.
        log.touch()
        started = time.monotonic()
        process = self.ask(start=arguments, log=str(log), imports="")
        try:
            if end is not None:
                number, seconds = end
                time.sleep(max(0.0, seconds + started - time.monotonic()))
                # Before it has made its session, it is in the group of the server.
                if number == signal.SIGINT and os.getsid(process) == process:
                    os.killpg(process, number)
                else:
                    os.kill(process, number)
            code = self.ask(wait=process)
            length = time.monotonic() - started
            wait_for_the_end_of(process)
        finally:
            for left in session(process):
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        return code, length

    def warm_up(self, arguments: Sequence[str], folder: Path) -> None:
        """Import everything that a command imports, so that later processes have it from the start."""
        process = self.ask(start=arguments, log=str(folder / "log"), imports=str(folder / "imports"))
        assert self.ask(wait=process) == 0, (folder / "log").read_text()
        self.ask(**{"import": json.loads((folder / "imports").read_text())})


@contextmanager
def fork_server(temporary: Path) -> Iterator[ForkServer]:
    """Yield a server whose processes put their temporary files in the folder ``runs`` of another one."""
    (temporary / "runs").mkdir()
    environment = {
        **ENVIRONMENT,
        "TMPDIR": str(temporary / "runs"),
        # Otherwise torch keeps it among the temporary files.
        "TORCHINDUCTOR_CACHE_DIR": str(temporary / "torch"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.fork_server"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield ForkServer(process)
    finally:
        process.kill()
        process.communicate()


def session(leader: int) -> list[int]:
    """Return the processes that still run in a session, its leader included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def wait_for_the_end_of(leader: int) -> None:
    """Raise AssertionError if a process of a session outlives its leader."""
    limit = time.monotonic() + ORPHAN_SECONDS
    while left := session(leader):
        assert time.monotonic() < limit, f"orphans {left} after {ORPHAN_SECONDS:.0f} s"
        time.sleep(0.05)


# --- what a folder holds --------------------------------------------------------------------------

Contents = dict[str, bytes]
"""Path in a folder -> what the file holds, without times."""


def contents(folder: Path) -> Contents:
    """Read all files of a folder but hidden ones."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path, path.relative_to(folder)) for path in files)
    return {
        name.as_posix(): _content(path)
        for path, name in names
        if path.name not in UNSTABLE and not any(part.startswith(".") for part in name.parts)
    }


def hidden(folder: Path) -> list[Path]:
    """Return what is hidden in a folder: work folders, temporary files and the lock of a run."""
    return list(folder.rglob(".*"))


def _content(path: Path) -> bytes:
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    values = [json.loads(text) for text in _documents(path)]
    return json.dumps([_without_times(value) for value in values]).encode()


def _documents(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return value


@dataclass(frozen=True)
class Unit:
    """A photo of a batch or a task of a bench: it is done as a whole.

    Attributes:
        record: path of the file that makes it done.
        files: all its files.
    """

    record: str
    files: Contents = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether it counts as done; a result that Ctrl-C cut short does not."""
        return self.record in self.files and b'"partial": true' not in self.files[self.record]


def units(found: Mapping[str, bytes]) -> dict[str, Unit]:
    """Sort files by the photo or task that they belong to; tables belong to none."""
    sorted_files: dict[str, Unit] = {}
    for path, content in found.items():
        folder, _, name = path.rpartition("/")
        if path.startswith("images/"):
            stem = f"{folder}/{name.split('.')[0]}"
            unit = sorted_files.setdefault(stem, Unit(f"{stem}.json"))
        elif folder not in ("", "pictures"):
            unit = sorted_files.setdefault(folder, Unit(f"{folder}/run.json"))
        else:
            continue
        unit.files[path] = content
    return sorted_files
