"""A pytest plugin that prints each test's outcome as soon as it is known: a run may be cut short."""

from __future__ import annotations

from typing import Any

PREFIX = "outcome: "


def pytest_runtest_logreport(report: Any) -> None:
    """Print the outcome and the name of a test, and the reason of a failure."""
    if report.when == "call" or report.outcome != "passed":
        print(f"\n{PREFIX}{report.outcome} {report.nodeid}", flush=True)
    if report.failed:
        print(report.longreprtext[-2500:], flush=True)
