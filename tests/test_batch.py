"""Several photos: what is done is left alone, and other processes give the same files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.command import call

SMALL = ["--preset", "smoke", "--set", "optim.steps=1", "--set", "optim.members=1"]


def refine(folder: Path, photos: Mapping[str, Path], *more: str) -> tuple[int, str, str]:
    done = call("refine", photos["coins"], photos["moon"], *SMALL, "--out", folder, *more)
    return done.code, done.out, done.err


def written(folder: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in sorted(folder.glob("*/run.json"))}


def test_a_second_call_does_only_what_is_left(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    assert refine(tmp_path, real_photos)[0] == 0
    first = written(tmp_path)
    assert set(first) == {"coins", "moon"}
    code, out, _ = refine(tmp_path, real_photos)
    assert (code, written(tmp_path)) == (0, first)
    assert "2 of 2 photos are done already" in out
    (tmp_path / "moon" / "run.json").write_text("{")
    refine(tmp_path, real_photos)
    assert {name for name, time in written(tmp_path).items() if time != first[name]} == {"moon"}
    for change in (["--seed", "3"], ["--set", "optim.steps=2"], ["--prompt", "x"], ["--fresh"]):
        before = written(tmp_path)
        assert refine(tmp_path, real_photos, *change)[0] == 0
        assert all(time != before[name] for name, time in written(tmp_path).items())


def test_one_photo_is_refined_whenever_it_is_asked_for(
    tmp_path: Path, real_photos: Mapping[str, Path]
) -> None:
    for _ in range(2):
        before = written(tmp_path)
        assert call("refine", real_photos["coins"], *SMALL, "--out", tmp_path).code == 0
        assert written(tmp_path) != before


@pytest.mark.slow
def test_other_processes_write_the_same_and_a_bad_photo_stops_nothing(
    tmp_path: Path, real_photos: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    refine(tmp_path / "here", real_photos)
    broken = tmp_path / "broken.png"
    broken.write_bytes(real_photos["coins"].read_bytes()[:2000])
    done = call(
        "refine",
        real_photos["coins"],
        broken,
        real_photos["moon"],
        *SMALL,
        "--out",
        tmp_path / "there",
        "--workers",
        "2",
    )
    assert done.code == 2
    assert "broken.png" in done.err
    for name in ("coins", "moon"):
        ours, theirs = (
            json.loads((tmp_path / where / name / "run.json").read_text()) for where in ("here", "there")
        )
        assert ours["losses"]["total"][0] == pytest.approx(theirs["losses"]["total"][0], rel=1e-4)
        assert ours["preset"] == theirs["preset"]
