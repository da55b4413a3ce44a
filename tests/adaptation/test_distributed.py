"""Several processes on a CPU (gloo, started by torchrun) train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.adaptation import state
from redepth.adaptation.lessons import Lesson
from redepth.adaptation.processes import Processes
from redepth.errors import ConfigError
from tests.support.helpers import CPU, relative_error, tiny_depth_model
from tests.support.trainings import LikeGrey, run, some_photos, weights

ROOT = Path(__file__).parents[2]


def torchrun(count: int, photos: Path, out: Path, **settings: Any) -> None:
    """Train in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", "tests.support.train_process", str(photos), str(out), json.dumps(settings)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("learns", ["all", "low-rank"])
def test_two_processes_have_the_losses_of_one(learns: str, tmp_path: Path) -> None:
    """Five photos in a step: three in the first process, two in the second. Also with loaders."""
    photos = some_photos(tmp_path / "photos")
    settings: dict[str, Any] = {"learns": learns, "steps": 6, "learning_rate": 1e-4}
    torchrun(2, tmp_path / "photos", tmp_path / "two", loaders=int(learns == "all"), **settings)
    one, _ = run(tmp_path / "one", photos, **settings)

    assert json.loads((tmp_path / "two" / "trained.json").read_text()) == {"world": 2, "steps": 6}
    alone, together = (state.read_log(tmp_path / name) for name in ("one", "two"))
    assert len(alone) == len(together) == 9
    for expected, found in zip(alone, together, strict=True):
        assert found.keys() == expected.keys()
        assert found["step"] == expected["step"]
        # Rounding differs, and AdamW amplifies it: the gradient shows that first.
        for key, bound in (("loss", 2e-5), ("distance", 2e-5), ("norm", 1e-3)):
            if key in expected:
                assert found[key] == pytest.approx(expected[key], rel=bound), (key, expected["step"])
    # The losses differ from step to step by far more than the two runs.
    losses = [row["loss"] for row in alone if "loss" in row]
    assert min(abs(a - b) for a, b in pairwise(losses)) > 1e-3 * losses[0]

    two = tiny_depth_model()
    two.checkpoint = str(tmp_path / "two" / "checkpoint")
    two.load(CPU)
    start, first, second = weights(tiny_depth_model()), weights(one), weights(two)
    # All together: the gradient of some, such as a key's bias, is nothing but rounding.
    change, wanted = (torch.cat([(w[k] - start[k]).flatten() for k in start]) for w in (second, first))
    assert float(wanted.norm()) > 0
    assert relative_error(change, wanted) < 1e-2


def test_fewer_photos_than_processes_are_refused(tmp_path: Path) -> None:
    photos = some_photos(tmp_path / "photos", 3)
    lessons = [Lesson("learn", tuple(photos), 2, LikeGrey())]
    with pytest.raises(ConfigError, match="a step has 2 photos for 3 processes"):
        run(tmp_path / "out", photos, lessons=lessons, processes=Processes(CPU, 1, 3))


def test_processes_share_items_in_turn() -> None:
    shares = [Processes(CPU, rank, 3).mine("abcdefg") for rank in range(3)]
    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    assert Processes(CPU).gathered("x") == ["x"]


def test_a_process_that_is_alone_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    processes = Processes.start("cpu")
    assert (processes.device, processes.rank, processes.world) == (CPU, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match=r'accelerate is needed for this: pip install "redepth\[adapt\]"'):
        Processes.start("cpu")
