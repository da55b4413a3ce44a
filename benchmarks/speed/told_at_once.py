"""A pytest plugin that tells each outcome when it is there: a run that is cut short has said what it knew."""

from __future__ import annotations

from typing import Any

TOLD = "outcome: "


def pytest_runtest_logreport(report: Any) -> None:
    """Print outcome and name of a test, and why it failed."""
    if report.when == "call" or report.outcome != "passed":
        print(f"\n{TOLD}{report.outcome} {report.nodeid}", flush=True)
    if report.failed:
        print(report.longreprtext[-2500:], flush=True)
