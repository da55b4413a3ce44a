"""A small training as a program: alone, under torchrun, or one that kills itself after a step.

Usage: python -m tests.support.train_process PHOTOS OUT SETTINGS [KILL_AFTER]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from redepth.adaptation import photos as files
from redepth.adaptation.processes import Processes
from redepth.adaptation.training import TrainingReport
from tests.support.trainings import run


def main(photos: str, out: str, settings: str, kill_after: str = "0") -> None:
    torch.set_num_threads(1)

    def on_report(report: TrainingReport) -> None:
        if report.step == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)

    processes = Processes.start("cpu")
    model, trained = run(
        Path(out), files.find([photos]), processes=processes, on_report=on_report, **json.loads(settings)
    )
    if processes.first:
        model.save_checkpoint(Path(out) / "checkpoint")
        (Path(out) / "trained.json").write_text(
            json.dumps({"world": processes.world, "steps": trained.steps})
        )
    processes.wait()
    processes.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
