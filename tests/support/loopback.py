"""Use the hub on loopback as a client, in this process or in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from redepth import checkpoints
from redepth.checkpoints import hub_api, retries
from redepth.checkpoints.optional_files import request_optional
from tests.support.command import ENVIRONMENT, Finished, call
from tests.support.hub_repositories import SD
from tests.support.hub_server import COMMIT, Hub

UNET = "unet/diffusion_pytorch_model.safetensors"
SMALL = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=70")
RUN = ("--device", "cpu", *SMALL, "-s", "prior.size=64")


def connect(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Make the hub's client of this process use a server and an empty cache, and retry without waiting."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    huggingface_hub.close_session()
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0, 0.0))
    new_process()


def new_process() -> None:
    """Clear the results of requests that a process keeps."""
    hub_api._probe.cache_clear()
    hub_api.listing.cache_clear()
    request_optional.cache_clear()


def source(**options: Any) -> checkpoints.Source:
    """Locate Stable Diffusion's UNet."""
    return checkpoints.locate(SD, options.pop("revision", None), ["unet/config.json", UNET], **options)


def refine(photo: Path, out: Path, *more: str | Path, preset: str = "re-depth-anything") -> Finished:
    """Run ``redepth refine`` with small settings in this process."""
    return call("refine", photo, "--out", out, "--preset", preset, *RUN, *more)


def environment(server: Hub, home: Path, **more: str) -> dict[str, str]:
    """The variables of a child process that uses a server and a cache of its own."""
    variables = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "REDEPTH_CACHE": f"{home}/r",
    }
    return {**ENVIRONMENT, **variables, "HF_TOKEN": "hf_secret", **more}


def cached(home: Path, repository: str, name: str) -> Path:
    """The blob of a cached file, to which its name in the snapshot links."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    return (folder / "snapshots" / COMMIT / name).resolve()
