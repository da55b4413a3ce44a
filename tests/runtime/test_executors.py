from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from redepth.errors import ConfigError, InputError, RedepthError
from redepth.runtime import cluster, signals
from redepth.runtime.executors import Done, Resources, executor, gpu_share
from tests.support import fake_gpus

KINDS = {
    "inline": Resources(threads=1),
    "processes": Resources(workers=2, threads=1),
    "ray": Resources(workers=2, threads=1, ray="local"),
}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One cluster of two workers for all tests here; starting one takes seconds."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=KINDS)
def resources(request: pytest.FixtureRequest) -> Resources:
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return KINDS[request.param]


def make_adder(amount: int, log: Path | None = None) -> Callable[[int], float]:
    """A worker that fails for 3 and 4, and notes that it was made."""
    if log is not None:
        (log / f"made-{os.getpid()}").touch()

    def work(given: int) -> float:
        if given == 3:
            raise InputError("three\nis not liked")
        if given == 4:
            raise KeyError("four")
        return random.Random(given).random() + amount

    return work


def outcomes(found: Iterator[Done[Any, Any]]) -> list[Done[Any, Any]]:
    return sorted(found, key=lambda done: done.index)


def test_all_executors_give_the_same(resources: Resources) -> None:
    found = outcomes(executor(resources).run(partial(make_adder, 10), list(range(8))))
    expected = outcomes(executor(KINDS["inline"]).run(partial(make_adder, 10), list(range(8))))
    assert found == expected
    assert [done.item for done in found] == list(range(8))


@pytest.mark.slow
def test_a_failure_is_an_outcome_and_the_rest_runs(resources: Resources) -> None:
    found = outcomes(executor(resources).run(partial(make_adder, 0), [2, 3, 4, 5]))
    assert [done.error for done in found] == ["", "three is not liked", "KeyError: 'four'", ""]
    assert found[1].result is None
    assert isinstance(found[3].result, float)


@pytest.mark.slow
def test_each_process_makes_one_worker(resources: Resources, tmp_path: Path) -> None:
    list(executor(resources).run(partial(make_adder, 0, tmp_path), list(range(10, 20))))
    assert 1 <= len(list(tmp_path.iterdir())) <= resources.workers


def test_nothing_to_do_makes_no_worker(resources: Resources, tmp_path: Path) -> None:
    assert list(executor(resources).run(partial(make_adder, 0, tmp_path), [])) == []
    assert list(tmp_path.iterdir()) == []


def make_interrupted() -> Callable[[int], int]:
    """A worker that Ctrl-C ends at a 2; while it does others, it takes a moment."""

    def work(given: int) -> int:
        if given == 2:
            raise KeyboardInterrupt
        time.sleep(0.5)
        return given

    return work


@pytest.mark.slow
def test_ctrl_c_ends_the_run_after_what_was_running(resources: Resources) -> None:
    found: list[Done[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(executor(resources).run(make_interrupted, [2, *range(10, 30)]))
    (when,) = [place for place, done in enumerate(found) if done.index == 0]
    assert found[when].interrupted
    assert "interrupted" in found[when].error
    assert all(done.result == done.item for done in found if done.index != 0)
    assert len(found) - when <= resources.workers


@contextmanager
def two_patient_workers(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with an input in each of two processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.patient_worker", str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite that was started in the background ignores some, and its children would inherit that.
        preexec_fn=partial(signals.set_all, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.iterdir())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("number", "to_all", "code"),
    [
        (signal.SIGINT, True, 130),
        pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, 129, marks=pytest.mark.slow),
    ],
    ids=["ctrl-c of a terminal", "terminate", "terminate to the group", "hang-up"],
)
def test_a_signal_reaches_workers_and_ends_the_run(
    tmp_path: Path, number: int, to_all: bool, code: int
) -> None:
    """What was running gives what it has, no further input starts, and nobody prints a traceback."""
    with two_patient_workers(tmp_path) as process:
        (os.killpg if to_all else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    *found, last = out.splitlines()
    assert sorted(found) == ["0 partial False", "1 None True"]
    assert last == f"interrupted {code}"
    assert err == ""


@pytest.mark.slow
def test_no_worker_outlives_a_program_that_is_killed(tmp_path: Path) -> None:
    with two_patient_workers(tmp_path) as process:
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len([worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())]) == 2
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


@pytest.mark.slow
def test_a_stopped_executor_starts_nothing_more(resources: Resources) -> None:
    runner = executor(resources)
    found = []
    for done in runner.run(partial(make_adder, 0), list(range(10, 30))):
        runner.stop()
        found.append(done)
    assert 1 <= len(found) <= resources.workers


def test_the_traceback_of_a_failure_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "redepth.runtime.work"):
        list(executor(KINDS["inline"]).run(partial(make_adder, 0), [3, 4, 5]))
    failures = [r.exc_info for r in caplog.records if r.exc_info is not None]
    assert [info[0] for info in failures] == [InputError, KeyError]


@pytest.mark.slow
def test_processes_log_what_this_one_would(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("redepth.runtime.work")
    logger.setLevel("DEBUG")
    try:
        list(executor(KINDS["processes"]).run(partial(make_adder, 0), [4, 5]))
    finally:
        logger.setLevel("NOTSET")
    assert "KeyError: 'four'" in capfd.readouterr().err


def make_mortal(folder: Path, deaths: int) -> Callable[[int], int]:
    """A worker whose process is killed the first few times that it gets a 1."""

    def work(given: int) -> int:
        marks = list(folder.iterdir())
        if given == 1 and len(marks) < deaths:
            (folder / str(len(marks))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return given

    return work


@pytest.mark.slow
@pytest.mark.parametrize(("deaths", "error"), [(1, ""), (99, "killed its worker twice")])
def test_a_killed_worker_is_replaced_and_its_input_tried_again(
    resources: Resources, tmp_path: Path, deaths: int, error: str
) -> None:
    if resources.kind == "inline":
        pytest.skip("there is no other process to kill")
    found = outcomes(executor(resources).run(partial(make_mortal, tmp_path, deaths), [0, 1, 2, 3]))
    assert [done.index for done in found] == [0, 1, 2, 3]
    assert found[1].error.startswith(error)
    assert (found[1].result == 1) == (not error)
    assert [done.result for done in found if done.index != 1] == [0, 2, 3]


def make_deadly(folder: Path) -> Callable[[int], int]:
    """A worker whose process is killed by each multiple of 3; it notes what it was given."""

    def work(given: int) -> int:
        (folder / f"{given}-{time.time_ns()}").touch()
        if given % 3 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return given

    return work


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_however_often_workers_die_other_inputs_run_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "ray":
        request.getfixturevalue("local_ray")
    found = outcomes(executor(KINDS[kind]).run(partial(make_deadly, tmp_path), list(range(14))))
    assert [done.result for done in found] == [None if i % 3 == 0 else i for i in range(14)]
    given = [int(path.name.split("-")[0]) for path in tmp_path.iterdir()]
    assert sorted(given) == sorted([*range(14), *range(0, 14, 3)])


def make_stillborn() -> Callable[[int], int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@pytest.mark.slow
def test_processes_that_die_while_they_load_end_the_run() -> None:
    """With ten inputs: none of them is at fault, and each try may take minutes."""
    with pytest.raises(RedepthError, match="died while they loaded the models"):
        list(executor(KINDS["processes"]).run(make_stillborn, list(range(10))))


def make_nothing() -> Callable[[int], int]:
    raise RedepthError("no weights here")


@pytest.mark.slow
def test_a_worker_that_cannot_be_made_says_why(resources: Resources) -> None:
    with pytest.raises(RedepthError, match="no weights here"):
        list(executor(resources).run(make_nothing, [1, 2]))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_named_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"no Ray cluster at '{address}'.*ray start --head"):
        cluster.check(address)


def test_a_cluster_that_never_answers_is_given_up_after_a_time_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"{address}': no answer within 0.2 s"):
            cluster.check(address)


def test_threads_aregpu_shared_out() -> None:
    assert Resources(workers=2, threads=3).threads_each == 3
    assert Resources(workers=10_00).threads_each == 1
    assert Resources().kind == "inline"
    assert Resources(workers=2).kind == "processes"
    assert Resources(workers=2, ray="auto").kind == "ray"


# --- several GPUs ---------------------------------------------------------------------------------


def told(workers: int, gpus: int, inputs: int) -> list[tuple[int, int, str | None]]:
    resources = Resources(workers=workers, threads=1, gpus=gpus)
    return [done.result for done in executor(resources).run(fake_gpus.make_teller, list(range(inputs)))]


@pytest.mark.slow
@pytest.mark.parametrize("visible", [None, "5,3"])
def test_processes_are_spread_over_the_gpus_that_the_user_has_left(
    visible: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a current GPU of its own, counted among the visible ones, which are left as they are."""
    monkeypatch.setenv("REDEPTH_TEST_GPUS", "yes")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = told(workers=3, gpus=2, inputs=12)
    assert {v for _, _, v in found} == {visible}
    by_process = {process: gpu for process, gpu, _ in found}
    assert len(set(found)) == len(by_process)
    assert set(by_process.values()) <= {0, 1}
    if len(by_process) == 3:
        assert sorted(by_process.values()) == [0, 0, 1]


@pytest.mark.slow
def test_without_gpus_togpu_share_a_process_keeps_the_device_it_is_told() -> None:
    assert {gpu for _, gpu, _ in told(workers=2, gpus=0, inputs=4)} == {0}


@pytest.mark.parametrize(
    ("gpus", "workers", "share"),
    [(1, 1, 1), (4, 2, 1), (2, 2, 1), (1, 2, 1 / 2), (2, 3, 1 / 2), (2, 5, 1 / 3)],
)
def test_each_ray_worker_finds_room_on_a_gpu(gpus: int, workers: int, share: float) -> None:
    assert gpu_share(float(gpus), workers) == share
    assert gpus * int(1 / share) >= workers


def test_a_ray_cluster_without_gpus_is_named() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        gpu_share(0.0, 2)
