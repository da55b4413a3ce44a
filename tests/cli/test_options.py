"""Options that commands share: devices and where work runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redepth.cli import options
from redepth.errors import ConfigError
from tests.support.command import call


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.parametrize(
    ("workers", "ray", "device", "gpus"),
    [
        (4, None, "auto", 2),
        (4, None, "cuda", 2),
        (1, None, "cuda", 1),
        # Who names a GPU means it: no worker goes to another one.
        (4, None, "cuda:1", 0),
        (4, None, "cpu", 0),
        (4, "auto", "cuda", 2),
        (4, "auto", "cpu", 0),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_workers_share_the_gpus(workers: int, ray: str | None, device: str, gpus: int) -> None:
    assert options.resources(workers, ray, None, device).gpus == gpus


def test_workers_of_ray_look_for_gpus_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert options.resources(4, "auto", None, "cuda").gpus == 1
    assert options.resources(4, "auto", None, "auto").gpus == 0
    with pytest.raises(ConfigError, match="--device cuda in place of cuda:1"):
        options.resources(4, "auto", None, "cuda:1")


@pytest.mark.usefixtures("two_gpus", "never_loads")
def test_a_gpu_that_is_not_there_is_named_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"'cuda:2' is not available here.*cuda:0, cuda:1"):
        options.resources(2, None, None, "cuda:2")


@pytest.mark.parametrize("wrong", ["gpu", "cuda:", "cuda:one", "cuda:-1", "cpu:0", "CUDA"])
def test_a_device_that_is_none_is_refused(wrong: str, real_photos: dict[str, Path], tmp_path: Path) -> None:
    done = call("refine", real_photos["coins"], "--device", wrong, "--out", tmp_path)
    assert done.code == 2
    assert "cuda:0" in done.err


def test_a_second_gpu_can_be_asked_for(real_photos: dict[str, Path], tmp_path: Path) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("there is one")
    done = call("refine", real_photos["coins"], "--preset", "smoke", "--device", "cuda:1", "--out", tmp_path)
    assert done.code == 2
    assert "device 'cuda:1' is not available here" in done.err
