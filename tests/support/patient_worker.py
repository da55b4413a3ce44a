"""Workers that wait until Ctrl-C ends their input, and a program that runs them in two processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redepth.runtime import signals
from redepth.runtime.executors import Resources, executor


def make_patient(folder: Path) -> Callable[[int], str]:
    """A worker that returns what it has when it is interrupted, as a refinement does; a 1 has nothing yet."""

    def work(item: int) -> str:
        try:
            (folder / str(item)).touch()
            time.sleep(120)
        except KeyboardInterrupt:
            if item == 1:
                raise
        return "partial"

    return work


def main() -> None:
    """Run four inputs in two processes and print the outcomes, and the exit code of an interruption."""
    with signals.caught():
        run()


def run() -> None:
    """Print each outcome as it comes."""
    outcomes = executor(Resources(workers=2, threads=1)).run(
        partial(make_patient, Path(sys.argv[1])), range(4)
    )
    try:
        for done in outcomes:
            print(done.item, done.result, done.interrupted)
    except KeyboardInterrupt:
        print("interrupted", signals.exit_code())


if __name__ == "__main__":
    main()
