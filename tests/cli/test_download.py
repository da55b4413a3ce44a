"""The download command: exactly what a run would load, with its size first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from redepth.checkpoints import fetching
from redepth.checkpoints.cache import repository_folder
from redepth.cli import capabilities, download
from redepth.config import load_preset
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.errors import NotDownloadedError
from redepth.optim.objectives import REGISTRY as OBJECTIVES
from redepth.registry import Entry
from tests.support import hub_repositories as repos
from tests.support.command import SMOKE, call, one_line
from tests.support.hub_repositories import BLIP2, DEPTH, SD
from tests.support.hub_server import Hub
from tests.support.loopback import new_process

PAPER = {DEPTH: repos.DEPTH_FILES, SD: repos.sd_files(), BLIP2: repos.BLIP2_FILES}


def test_a_preset_is_fetched_whole_and_once(online: Hub) -> None:
    done = call("download", "re-depth-anything", "--yes")
    assert done.code == 0, done
    assert online.downloaded() == PAPER
    size = sum((online.repositories[DEPTH].folder / name).stat().st_size for name in repos.DEPTH_FILES)
    assert f"{size / 1e3:.3g} kB in 3 files" in done.out
    assert all(name in done.out for name in PAPER)
    assert "--set prompt.captioner=none" in done.out
    online.forget()
    new_process()
    again = call("download", "re-depth-anything")
    assert again.code == 0, again
    assert again.out.count("in the cache") == 3
    assert again.out.endswith("Nothing to fetch.\n")
    assert online.requests == []


def test_a_dry_run_fetches_no_weights(online: Hub) -> None:
    done = call("download", "re-depth-anything", "--dry-run")
    assert done.code == 0, done
    # How large sharded weights are is known from their index alone.
    assert online.downloaded() == {BLIP2: {"model.safetensors.index.json"}}
    assert f"in {len(repos.BLIP2_FILES) - 1} files" in done.out
    assert "To fetch: " in done.out


def test_overrides_change_what_a_preset_needs(online: Hub) -> None:
    done = call("download", "re-depth-anything", "-s", "prompt.captioner=none", "-s", "prior.variant=fp16")
    assert done.code == 0, done
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES, SD: repos.sd_files(".fp16")}


def test_components_are_fetched_by_name(online: Hub) -> None:
    assert call("download", "depth-models", "depth-anything").code == 0
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES}
    # The same checkpoint under another name.
    assert "in the cache" in call("download", "depth-anything-v2-small").out
    assert call("download", "captioner", "blip2").code == 0
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES, BLIP2: repos.BLIP2_FILES}
    assert call("download", "prior", "stable-diffusion").code == 0
    assert online.downloaded() == PAPER


def test_an_interrupted_download_goes_on(online: Hub) -> None:
    online.faults.cuts = {"model.safetensors": [1000] * 5}
    # The first five answers break off; each gives a part, so that the same command ends.
    done = call("download", "depth-anything")
    assert done.code == 0, done
    assert online.starts("model.safetensors")[1] == 1000
    assert call("download", "depth-anything").out.endswith("Nothing to fetch.\n")


def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    done = call("download", "depth-anything")
    one_line(done, "1 kB left", "HF_HOME")
    assert online.downloaded() == {}
    assert not repository_folder(DEPTH).is_dir()


def test_what_ships_with_redepth_needs_no_hub() -> None:
    for name in ("embedded", "smoke"):
        done = call("download", name)
        assert done.code == 0, done
        assert done.out.count("ships with redepth") == 2
        assert done.out.endswith("Nothing to fetch.\n")
    assert "loads no weights" in call("download", "blinn-phong").out
    assert "loads no weights" in call("download", "precomputed").out


def test_without_a_hub_the_error_says_what_to_do() -> None:
    done = call("download", "re-depth-anything", "--dry-run")
    one_line(done, DEPTH, "HF_HUB_OFFLINE", ": connect, and run redepth download again\n")
    assert "hf download" not in done.err


class Needy:
    """An objective whose weights are missing."""

    def __call__(self, surface: Any) -> Any:
        raise AssertionError("it is used")

    def ensure_available(self) -> None:
        raise NotDownloadedError("the weights of needy are missing")


def test_what_an_objective_needs_is_found_before_any_work(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never_loads: None
) -> None:
    monkeypatch.setitem(OBJECTIVES._entries, "needy", Entry("needy", Needy))
    chosen = ("--set", "optim.objectives.needy.weight=1")
    problem = "the weights of needy are missing"
    one_line(call("download", "smoke", *chosen), problem)
    one_line(call("refine", real_photos["coins"], *SMOKE, *chosen, "--out", tmp_path / "a"), problem)
    one_line(call("experiment", "prior", "--preset", "smoke", *chosen, "--out", tmp_path / "b"), problem)
    preset = load_preset("smoke", {"optim.objectives.needy.weight": 1})
    monkeypatch.setattr(capabilities, "load_preset", lambda _: preset)
    check = capabilities.family("presets")[0]
    assert (check.state, check.found) == ("download", "weights not downloaded: objective needy")


def test_unknown_and_ambiguous_names(monkeypatch: pytest.MonkeyPatch) -> None:
    one_line(call("download", "embeded"), "did you mean 'embedded'")
    one_line(call("download", "prior", "stable-difusion"), "did you mean 'stable-diffusion'")
    one_line(call("download", "preset", "embeded"), "did you mean 'embedded'")
    one_line(call("download", "captioner", "blip3"), "did you mean 'blip'")
    one_line(call("download", "captioner"), "which captioner? one of blip, blip2")
    one_line(call("download", "pixel-diffusion", "-s", "prior.view=whole"), "--set belongs to presets")
    entry = Entry("embedded", "redepth.depth_models.depth_pro:DepthPro")
    monkeypatch.setitem(DEPTH_MODELS._entries, "embedded", entry)
    done = call("download", "embedded")
    one_line(done, "a preset and a depth-model", "redepth download depth-model embedded")
    assert call("download", "preset", "embedded").code == 0


@pytest.mark.parametrize("answer", [True, False])
def test_a_terminal_is_asked_first(online: Hub, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(download.typer, "confirm", confirm)
    monkeypatch.setattr(download, "_on_a_terminal", lambda: True)
    done = call("download", "depth-anything")
    assert asked == ["Download?"]
    assert online.downloaded() == ({DEPTH: repos.DEPTH_FILES} if answer else {})
    assert done.code == (0 if answer else 2)
    call("download", "depth-anything", "--yes")
    assert len(asked) == 1


def test_a_preset_file_is_fetched(online: Hub, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: smoke\ndepth_model:\n  checkpoint: depth-anything-v2-small\n")
    done = call("download", mine)
    assert done.code == 0, done
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES}
