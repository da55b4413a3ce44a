"""Runs that are killed at random moments: nothing is lost, and the results are as without a kill."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.soak.runs import Contents, ForkServer, contents, fork_server, hidden, units
from tests.support.small_photos import write_photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for orphans in /proc"),
]

KILLS = int(os.environ.get("REDEPTH_SOAK_KILLS", "100"))
SIGNALS = {signal.SIGKILL: 70, signal.SIGTERM: 10, signal.SIGHUP: 10, signal.SIGINT: 10}
"""How often each is sent, in percent."""

SMALL = ("--preset", "smoke", "--device", "cpu", "--set", "optim.steps=2", "--set", "optim.members=1")


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        arguments: of the command, without its folder.
        share: of all kills, in percent.
        before: arguments of a run that ends before the kills; its results are to be replaced.
        last: arguments of the run that completes the results; by default the command's.
    """

    arguments: tuple[str, ...]
    share: int
    before: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


REFINE = ("refine", "PHOTOS", *SMALL)
STUDY = ("--size", "32", "--images", "2", "--threads", "1", "--arm", "trained", "--arm", "oracle")
JOBS = {
    "refine": Job(REFINE, 36),
    "refine anew": Job((*REFINE, "--seed", "1", "--fresh"), 20, REFINE, (*REFINE, "--seed", "1")),
    "bench": Job(("bench", "synthetic", "--limit", "3", *SMALL, "--option", "size=32", "--arrays"), 25),
    "experiment": Job(("experiment", "prior", *SMALL, *STUDY), 16),
    "refine in two processes": Job((*REFINE, "--workers", "2"), 3),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("a", "b", "c")):
        write_photo(folder / f"{name}.png", seed)
    return folder


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of all runs."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[ForkServer]:
    with fork_server(temporary) as started:
        yield started


@dataclass
class Soak:
    """One job: its folder, what an undisturbed run makes, and what was seen so far.

    Attributes:
        expected: the results of an undisturbed run.
        former: those that it replaces.
        length: of an undisturbed run in seconds.
        done: record of a photo or task that was done at the last kill -> when it was written.
        seen: when kills landed -> how many did.
    """

    server: ForkServer
    job: Job
    folder: Path
    complete: Callable[[tuple[str, ...], Path], float]
    clock: random.Random
    expected: Contents
    former: Contents
    length: float
    done: dict[str, int] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        """The folder of results."""
        return self.folder / "out"

    def begin(self) -> None:
        """Start with the results that the command is to replace."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.done = {}
        if self.former:
            shutil.copytree(self.folder / "before", self.out)

    def kill(self, arguments: tuple[str, ...]) -> bool:
        """Run the command, kill it, check what is left, and return whether the kill was in time."""
        number = self.clock.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        moment = self.clock.uniform(0, self.length)
        log = self.folder / "killed.log"
        code, _ = self.server.run([*arguments, "--out", str(self.out)], log, (number, moment))
        assert code in (0, -number, 128 + number), f"{number.name}: {code}\n{log.read_text()}"
        assert "Traceback" not in log.read_text(), f"{number.name}: {log.read_text()}"
        if code == 0:
            return False
        self.check()
        self.seen[f"{number.name} {self.phase()}"] += 1
        return True

    def check(self) -> None:
        """Assert that what is done is whole and right, and that nothing was lost or made again."""
        expected, former = units(self.expected), units(self.former)
        whole = {name: unit for name, unit in units(contents(self.out)).items() if unit.is_done}
        for name, unit in whole.items():
            known = [each[name].files for each in (expected, former) if name in each]
            assert unit.files in known, f"{name} is neither a former result nor the expected one"
        records = {unit.record: (self.out / unit.record).stat().st_mtime_ns for unit in whole.values()}
        if not self.former:
            assert records.items() >= self.done.items()
        self.done = records

    def phase(self) -> str:
        """Return in words where a kill met the command, as far as its folder shows."""
        left = [path for path in hidden(self.out) if path.suffix != ".lock"]
        if any((path / "old").exists() for path in left):
            return "while folders were swapped"
        if left:
            return "while files were written"
        if not self.out.is_dir() or not self.done:
            return "before the first result"
        finished = len(self.done) == len(units(self.expected))
        return "after the last result" if finished and not self.former else "between two results"

    def end(self) -> None:
        """Complete the results, and assert that they are those of an undisturbed run."""
        self.complete(self.job.last or self.job.arguments, self.out)
        found = contents(self.out)
        assert found.keys() == self.expected.keys()
        assert [name for name in found if found[name] != self.expected[name]] == []
        assert hidden(self.out) == []


@pytest.mark.parametrize("name", JOBS)
def test_nothing_is_lost(
    name: str,
    server: ForkServer,
    photos: Path,
    temporary: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    job = JOBS[name]

    def with_photos(arguments: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(photos) if part == "PHOTOS" else part for part in arguments)

    def complete(arguments: tuple[str, ...], out: Path) -> float:
        log = tmp_path / "log"
        code, seconds = server.run([*with_photos(arguments), "--out", str(out)], log)
        assert code == 0, log.read_text()
        return seconds

    def undisturbed(arguments: tuple[str, ...], out: Path) -> tuple[Contents, float]:
        seconds = complete(arguments, out)
        return contents(out), seconds

    server.warm_up([*with_photos(job.arguments), "--out", str(tmp_path / "first")], tmp_path)
    former = undisturbed(job.before, tmp_path / "before")[0] if job.before else {}
    expected, seconds = undisturbed(job.arguments, tmp_path / "expected")
    assert expected == contents(tmp_path / "first")
    soak = Soak(server, job, tmp_path, complete, random.Random(name), expected, former, seconds)
    soak.begin()
    while soak.seen.total() < max(1, KILLS * job.share // 100):
        if not soak.kill(with_photos(job.arguments)):
            soak.end()
            soak.begin()
    soak.end()
    assert list((temporary / "runs").iterdir()) == []
    record_property("kills", soak.seen.total())
    for phase, count in sorted(soak.seen.items()):
        record_property(phase, count)
        print(f"{name}: {count} x {phase}")
