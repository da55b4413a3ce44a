"""What every test file may use: no network, real photos, recorded numbers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# What tests cache is theirs; processes that they start inherit it.
os.environ["REDEPTH_CACHE"] = tempfile.mkdtemp(prefix="redepth-tests-")
# Tiny models gain nothing from threads, and threads that wait for each other crawl on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.support.devices import device, dtype  # noqa: F401

if TYPE_CHECKING:
    from tests.support.hub_server import Hub

# Triton reads it when a kernel is defined: without a GPU, kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

PHOTOS = ("brick", "coins", "gravel", "moon", "motorcycle_left")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, so that two processes end at about the same time."""
    items.sort(key=lambda item: "the_first_200_steps" not in item.name)


@pytest.fixture(scope="session", autouse=True)
def _cache_goes_away() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["REDEPTH_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def skimage_data() -> Path:
    """The folder of the data files inside the installed scikit-image; nothing is ever downloaded."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image is not installed")
    return Path(spec.origin).parent / "data"


@pytest.fixture(scope="session")
def real_photos(skimage_data: Path) -> dict[str, Path]:
    """Name -> file: ``coins``, ``moon``, ``brick``, ``gravel`` (grey) and ``motorcycle_left`` (colour)."""
    files = {name: skimage_data / f"{name}.png" for name in PHOTOS}
    missing = [str(path) for path in files.values() if not path.is_file()]
    assert not missing, f"this scikit-image ships without {missing}"
    return files


@pytest.fixture(scope="session")
def motorcycle_disparity(skimage_data: Path) -> Path:
    """The measured disparity of ``motorcycle_left``, (500, 741), infinite where unknown."""
    path = skimage_data / "motorcycle_disp.npz"
    assert path.is_file(), f"this scikit-image ships without {path}"
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded numbers and tiny checkpoints."""
    return Path(__file__).parent / "golden"


# --- a hub on loopback ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hub_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repository -> folder with the files of the real one, its weights of a few channels."""
    from tests.support import hub_repositories

    home = tmp_path_factory.mktemp("hub")
    found = {}
    for name, make in hub_repositories.MAKERS.items():
        package = hub_repositories.PACKAGES.get(name)
        if package is None or importlib.util.find_spec(package):
            found[name] = home / name.replace("/", "--")
            make(found[name])
    return found


@pytest.fixture(scope="session")
def session_server() -> Iterator[Hub]:
    """One server for all tests; `server` is it, with nothing asked of it yet."""
    from tests.support.hub_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def server(session_server: Hub, hub_folders: dict[str, Path]) -> Hub:
    """A hub with the repositories of `hub_folders`."""
    from tests.support.hub_server import Repository

    session_server.forget()
    session_server.moved = {}
    session_server.repositories = {name: Repository(folder) for name, folder in hub_folders.items()}
    return session_server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What HF_HOME is under `online`."""
    return tmp_path / "home"


@pytest.fixture
def online(server: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub's client of this process asks that server, and caches in a new folder; no wait is long."""
    from tests.support.loopback import connect, new_process

    monkeypatch.setenv("REDEPTH_CACHE", str(home / "redepth"))
    connect(monkeypatch, server.url, home)
    yield server
    new_process()


@pytest.fixture
def coins(real_photos: dict[str, Path]) -> Path:
    """A photo."""
    return real_photos["coins"]
