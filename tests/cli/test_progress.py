"""The progress without a terminal: plain lines, decided by steps; with one: a bar; with --quiet: nothing."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from redepth.adaptation.record import Event
from redepth.cli import console, progress
from redepth.cli.terminal import TerminalConsole
from redepth.optim.outcome import StepReport
from redepth.runtime.executors import Done, Resources
from tests.support.command import SMOKE, call


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on a stderr that is a file."""
    file = io.StringIO()
    monkeypatch.setattr(console, "err", TerminalConsole(file=file, width=40))
    return file


def report(step: int, steps: int, members: range = range(3), of_members: int = 3) -> Any:
    made = SimpleNamespace(step=step, steps=steps, members=members, of_members=of_members)
    made.losses = {"total": torch.full((len(members),), 1 / step)}
    return made


def run(steps: int, *batches: range, of_members: int) -> None:
    with progress.steps("a photo.png", read_every=1) as on_step:
        assert on_step is not None
        for members in batches:
            for step in range(1, steps + 1):
                on_step(report(step, steps, members, of_members))


def lines(log: io.StringIO) -> list[str]:
    """The lines without the time that is left."""
    return [re.sub(r", \d+ s left$", "", line) for line in log.getvalue().splitlines()]


def test_the_report_has_the_fields_of_the_loop() -> None:
    assert {"step", "steps", "members", "of_members", "losses"} <= set(StepReport.__dataclass_fields__)


def test_a_line_tells_step_members_and_loss_at_every_tenth(log: io.StringIO) -> None:
    run(40, range(3), of_members=3)
    printed = lines(log)
    assert printed[0] == "a photo.png: step 1/40, 3 members, loss 1"
    assert printed[1] == "a photo.png: step 4/40, 3 members, loss 0.25"
    assert [int(re.findall(r"step (\d+)", line)[0]) for line in printed] == [1, *range(4, 41, 4)]
    assert not re.search(r"left", log.getvalue().splitlines()[0])
    assert re.search(r", \d+ s left$", log.getvalue().splitlines()[1])


def test_batches_of_members_share_the_lines(log: io.StringIO) -> None:
    run(20, range(2), range(2, 3), of_members=3)
    printed = lines(log)
    assert len(printed) <= 1 + progress.LINES
    assert printed[-1] == "a photo.png: step 20/20, members 3-3 of 3, loss 0.05"
    assert "members 1-2 of 3" in printed[0]


def test_few_steps_have_a_line_each(log: io.StringIO) -> None:
    run(2, range(1), of_members=1)
    assert lines(log) == [f"a photo.png: step {n}/2, 1 member, loss {1 / n:.3g}" for n in (1, 2)]


def task(image: str, silog: tuple[float, float] | None = (2.0, 1.5), error: str = "") -> Done[Any, Any]:
    result = None if error else SimpleNamespace(silog=silog, change=0.25)
    return Done(0, ("smoke", image), result, error)


def test_each_task_has_a_line(log: io.StringIO, tmp_path: Path) -> None:
    with progress.resumable_tasks(tmp_path, 4) as on_done:
        # One was finished by an earlier call.
        on_done(task("a.png"), 2, 4)
        on_done(task("b.png", None), 3, 4)
        on_done(task("c\x1b[31m.png", error="no photo"), 4, 4)
    assert lines(log) == [
        "2/4: smoke: a.png SI-log 2.00 -> 1.50",
        "3/4: smoke: b.png changed by 25.0 %",
        "4/4: smoke: c\\x1b[31m.png failed: no photo",
    ]


def test_photos_of_workers_have_a_line_each(log: io.StringIO) -> None:
    outcomes: Any = [
        Done(i, SimpleNamespace(path=Path(name)), result)
        for i, (name, result) in enumerate([("a", 1), ("b", None)])
    ]
    assert list(progress.photos(iter(outcomes), 2, Resources(workers=2))) == outcomes
    assert lines(log) == ["1/2: a", "2/2: b failed"]
    assert list(progress.photos(iter(outcomes), 2, Resources())) == outcomes
    assert len(lines(log)) == 2


@pytest.mark.parametrize("colour", ["1", ""])
def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if colour:
        monkeypatch.setenv("FORCE_COLOR", colour)
    shown = {}
    for file in (Terminal(), io.StringIO()):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(console, "err", TerminalConsole(file=file))
        run(4, range(3), of_members=3)
        shown[file.isatty()] = file.getvalue()
    assert "━" in shown[True]
    assert "\x1b" not in shown[False]
    assert len(shown[False].splitlines()) == 4


def test_quiet_shows_nothing_and_an_error_all_the_same(log: io.StringIO, tmp_path: Path) -> None:
    console.set_quiet(True)
    try:
        with progress.steps("photo", 1) as on_step, progress.resumable_tasks(tmp_path, 1) as on_done:
            on_done(task("a.png", error="no photo"), 1, 1)
        with console.status("loading"):
            console.note("hidden")
        console.warn("shown")
    finally:
        console.set_quiet(False)
    assert on_step is None
    assert lines(log) == ["warning: shown"]


@pytest.mark.parametrize("quiet", [False, True])
def test_adaptations_side_by_side_have_their_own_lines(log: io.StringIO, quiet: bool) -> None:
    console.set_quiet(quiet)
    try:
        show = pickle.loads(pickle.dumps(progress.adaptations()))  # it goes to other processes
        for step in range(1, 21):
            for name in ("distil", "score"):
                show(name, Event("train", step, 20, f"loss {1 / step:.2f}"))
        show("score", Event("refine", 1, 2, "a.png: is damaged", failed=True))
    finally:
        console.set_quiet(False)
    printed = lines(log)
    assert printed.pop() == "error: a.png: is damaged"
    if quiet:
        assert printed == []
    else:
        assert printed[:3] == [
            "distil: train 1/20: loss 1.00",
            "score: train 1/20: loss 1.00",
            "distil: train 2/20: loss 0.50",
        ]
        assert len(printed) == 2 * (progress.LINES + 1)


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_a_quiet_refinement_prints_nothing(
    before: bool, tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    command = [
        "refine",
        str(real_photos["brick"]),
        *SMOKE,
        "--set",
        "optim.steps=1",
        "--set",
        "optim.members=1",
    ]
    command += ["--write", "map", "--out", str(tmp_path)]
    done = call("-q", *command) if before else call(*command, "--quiet")
    assert (done.code, done.out, done.progress) == (0, "", [])
    assert (tmp_path / "brick" / "run.json").is_file()
    if not before:
        loud = call(*command)
        assert [re.sub(r"loss .*", "", line) for line in loud.progress] == ["brick.png: step 1/1, 1 member, "]
        assert "brick" in loud.out
