"""The parts of `benchmarks.speed.gpu` that run tests."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from threading import Timer

from benchmarks.speed.gpu_part import Part, alone
from benchmarks.speed.pytest_outcomes import PREFIX
from benchmarks.speed.records import ROOT, timing

KERNEL_TESTS = ("geglu", "group_norm", "residual")
"""Tests in tests/ops that run on a GPU if there is one."""

WORKERS = max(1, 3 * (os.cpu_count() or 1) // 4)
"""Processes that run tests side by side: most of their time is the host's."""


def run_tests(part: Part, marks: str, *paths: str) -> None:
    """Run tests and store their outcomes as one row, also if the time limit ends them early.

    Each failure is printed at once (`benchmarks.speed.pytest_outcomes`).
    """
    with alone():
        began = time.perf_counter()
        code, outcomes, failed = _run_pytest(part, _command(part, marks, paths))
        took = 1e3 * (time.perf_counter() - began)
    name = " ".join([marks, *paths])
    if code:
        part.failures.append(f"{name}: {len(failed)} failed, pytest ended with {code}")
    record = {
        "failed": failed,
        "whole": code in (0, 1),
        "passed": outcomes["passed"],
        "skipped": outcomes["skipped"],
    }
    part.add(part.row("tests", "gpu", name, timing([took, took]), **record))


def _command(part: Part, marks: str, paths: tuple[str, ...]) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "benchmarks.speed.pytest_outcomes"]
    if part.tiny:
        # A CPU can run no GPU test: a few others stand in, so that this part is tried too.
        return [*command, "tests/ops/test_filters.py"]
    command += ["-m", marks, *(paths if paths else ("tests",))]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(WORKERS)]
    return command


def _run_pytest(part: Part, command: list[str]) -> tuple[int, Counter[str], list[str]]:
    """Run pytest until it ends or the limit of the part is near.

    Returns:
        Its exit code, the number of tests by outcome, and the names of those that failed.
    """
    outcomes = Counter[str]()
    failed: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        # The workers are stopped too: the output does not end as long as one of them runs.
        stop = partial(os.killpg, process.pid, signal.SIGKILL)
        left = part.limit - (time.monotonic() - part.started)
        timer = Timer(max(left - 10, 1), stop)
        timer.start()
        for line in process.stdout or ():
            if not line.startswith(PREFIX):
                sys.stdout.write(line)
                sys.stdout.flush()
                continue
            outcome, name = line.removeprefix(PREFIX).split(" ", 1)
            outcomes[outcome] += 1
            if outcome == "failed":
                failed.append(name.strip())
        timer.cancel()
    return process.returncode, outcomes, failed


def tests(part: Part) -> None:
    """The GPU tests, except those that compile and those of the mesh renderer, which compiles nvdiffrast."""
    run_tests(part, "gpu and not compiles", "tests", "--ignore=tests/renderers/test_mesh_gpu.py")


def kernel_tests(part: Part) -> None:
    """The tests of kernels, which run on a GPU if there is one."""
    run_tests(part, "not gpu", *(f"tests/ops/test_{name}.py" for name in KERNEL_TESTS))


def compiled_tests(part: Part) -> None:
    """The GPU tests that compile."""
    run_tests(part, "gpu and compiles")


def mesh(part: Part) -> None:
    """The mesh renderer with nvdiffrast, which compiles itself first."""
    run_tests(part, "gpu", "tests/renderers/test_mesh_gpu.py")
