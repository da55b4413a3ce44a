"""This process, or one of its own, as a client of the hub on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from redepth.checkpoints import downloads, hub
from tests.support.command import ENVIRONMENT, Finished, call
from tests.support.hub_repositories import SD
from tests.support.hub_server import COMMIT, Hub

UNET = "unet/diffusion_pytorch_model.safetensors"
SMALL = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=70")
RUN = ("--preset", "re-depth-anything", "--device", "cpu", *SMALL, "-s", "prior.size=64")


def connect(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    huggingface_hub.close_session()
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0, 0.0))
    new_process()


def new_process() -> None:
    """Forget what a process keeps in mind of the hub."""
    downloads._asked.cache_clear()
    downloads.listing.cache_clear()
    hub._asked_for.cache_clear()


def source(**options: Any) -> hub.Source:
    """Stable Diffusion's UNet."""
    return hub.locate(SD, options.pop("revision", None), ["unet/config.json", UNET], **options)


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
