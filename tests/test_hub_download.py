"""The first run and the next ones, against a hub on loopback whose repositories look like the real ones."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redepth import downloads, hub
from redepth.errors import WeightsError
from tests import hub_repositories as repos
from tests.command import ENVIRONMENT, Finished, call
from tests.hub_repositories import BLIP2, DA3, DEPTH, SD, XL
from tests.hub_server import COMMIT, Hub, Repository, serving

UNET = "unet/diffusion_pytorch_model.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=70")
RUN = ("--preset", "re-depth-anything", "--device", "cpu", *SMALL, "-s", "prior.size=64")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("hub")
    found = {}
    for name, make in repos.MAKERS.items():
        if name != DA3 or importlib.util.find_spec("depth_anything_3"):
            found[name] = home / name.replace("/", "--")
            make(found[name])
    return found


@pytest.fixture(scope="session")
def session_server(folders: dict[str, Path]) -> Iterator[Hub]:
    with serving() as server:
        yield server


@pytest.fixture
def server(session_server: Hub, folders: dict[str, Path]) -> Hub:
    session_server.forget()
    session_server.moved = {}
    session_server.repositories = {name: Repository(folder) for name, folder in folders.items()}
    return session_server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def online(server: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub's client of this process asks that server, and caches in a new folder; no wait is long."""
    monkeypatch.setenv("REDEPTH_CACHE", str(home / "redepth"))
    connect(monkeypatch, server.url, home)
    yield server
    new_process()


def connect(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0, 0.0))
    new_process()


def new_process() -> None:
    """Forget what a process keeps in mind of the hub."""
    downloads.unreachable.cache_clear()
    downloads.listing.cache_clear()


def refine(photo: Path, out: Path, *more: str | Path) -> Finished:
    return call("refine", photo, "--out", out, *RUN, *more)


def environment(server: Hub, home: Path, **more: str) -> dict[str, str]:
    own = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "REDEPTH_CACHE": f"{home}/r",
    }
    return {**ENVIRONMENT, **own, "HF_TOKEN": "hf_secret", **more}


def cached(home: Path, repository: str, name: str) -> Path:
    """The blob of a cached file: its name in the snapshot is a link to it."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    return (folder / "snapshots" / COMMIT / name).resolve()


@pytest.fixture
def coins(real_photos: dict[str, Path]) -> Path:
    return real_photos["coins"]


# --- what is downloaded ---------------------------------------------------------------------------


def test_the_first_run_downloads_what_the_preset_needs_and_nothing_else(
    online: Hub, coins: Path, tmp_path: Path
) -> None:
    done = refine(coins, tmp_path / "out")
    assert done.code == 0, done
    expected = {DEPTH: repos.DEPTH_FILES, SD: repos.sd_files(), BLIP2: repos.BLIP2_FILES}
    assert online.downloaded() == expected
    run = json.loads((tmp_path / "out" / "coins" / "run.json").read_text())
    assert {run[part]["commit"] for part in ("depth_model", "prior", "prompt_origin")} == {COMMIT}
    # Each of the two large ones is one line; where there is no terminal there is no bar.
    assert [f"of {name}" in done.err for name in expected] == [True] * 3
    assert "downloading 3 files of depth-anything/Depth-Anything-V2-Small-hf, 81" in done.err
    assert "\x1b" not in done.err
    online.forget()
    new_process()
    again = refine(coins, tmp_path / "again")
    assert (again.code, again.complaints) == (0, [])
    assert online.asked == []
