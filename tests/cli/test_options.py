"""Options that commands share: devices and where work runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.cli import options
from redepth.errors import ConfigError, RedepthError
from redepth.pipeline import Pipeline
from tests.support.command import SMOKE, call, one_line


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


@pytest.mark.parametrize(
    "option",
    [
        ("--workers", "1025"),
        ("--workers", "0"),
        ("--workers", "9" * 100),
        ("--seed", str(2**63)),
        ("--seed", str(2**64)),
        ("--seed", "-1"),
        ("--seed", "9" * 5000),
        ("--seed", "1", "--seed", "2"),
        ("--out", "a", "--out", "b"),
        ("--preset", "smoke", "--preset", "embedded"),
    ],
    ids=lambda option: " ".join(option)[:40],
)
@pytest.mark.usefixtures("never_loads")
def test_a_value_out_of_range_or_given_twice_is_refused(
    option: tuple[str, ...], real_photos: dict[str, Path]
) -> None:
    done = call("refine", real_photos["coins"], *option)
    one_line(done, option[0])
    assert len(done.err) < 500


@pytest.mark.parametrize(
    "option",
    [
        ("--size", "32", "--size", "32"),
        ("--size", "0"),
        ("--size", "100000"),
        ("--images", "0"),
        ("--strength", "nan"),
        ("--strength", "2"),
    ],
    ids=" ".join,
)
def test_an_experiment_out_of_range_is_refused(option: tuple[str, ...]) -> None:
    one_line(call("experiment", "targets", *option), option[0])


@pytest.mark.parametrize(
    "arguments",
    [
        ("refine",),
        ("refine", "x.jpg", "--sed", "1"),
        ("show", "smoke", "more"),
        ("bench", "motorcycle", "--limit", "x"),
    ],
    ids=" ".join,
)
def test_an_error_of_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    one_line(call(*arguments), "--help")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["split=["], "not valid YAML"),
        (["x=*a"], "anchors and aliases"),
        (["x=!!int 3"], "tags"),
        (["x=" + "9" * 5000], "more than 18 digits"),
        (["x"], "give KEY=VALUE"),
        (["x=1", "x=2"], "given twice"),
        (["root=b"], "given twice"),
        (["x=" + "[" * 2000], "nested more than"),
    ],
)
def test_an_option_of_a_reader_is_refused_in_one_line(given: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        options.reader_options(Path("a"), given)
    assert problem in str(error.value)
    assert "--option" in str(error.value)
    assert len(str(error.value)) < 300


def test_the_options_of_a_reader_are_values() -> None:
    given = ["a=1", "b=1e-3", "c=on", "d=[1, x]", "e=2026-01-31"]
    values = {"root": "r", "a": 1, "b": 0.001, "c": "on", "d": [1, "x"], "e": "2026-01-31"}
    assert options.reader_options(Path("r"), given) == values


@pytest.mark.parametrize("command", ["refine", "bench", "experiment"])
def test_threads_are_those_of_this_process(
    command: str, tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def count(*_: Any, **__: Any) -> None:
        used.append(torch.get_num_threads())
        raise RedepthError("enough")

    monkeypatch.setattr(Pipeline, "__init__", count)
    what: dict[str, list[Any]] = {"refine": [real_photos["brick"]], "bench": ["synthetic", "--limit", "1"]}
    what["experiment"] = ["renderer", "--images", "1", "--arm", "lambert"]
    before = torch.get_num_threads()
    try:
        done = call(command, *what[command], *SMOKE, "--threads", "3", "--out", tmp_path / "out")
    finally:
        torch.set_num_threads(before)
    assert done.code == 2
    assert set(used) == {3}


def test_workers_leave_the_threads_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int | None] = []
    monkeypatch.setattr("redepth.runtime.work.use_threads", set_to.append)
    assert options.resources(2, None, 3, "cpu").threads_each == 3
    assert set_to == []
    options.resources(1, None, 3, "cpu")
    assert set_to == [3]
