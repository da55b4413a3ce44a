"""A broken component through the command line: one line names it, and no result is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth import depth_models, priors, renderers
from redepth.contracts import Condition, Features, Illumination, Noise, Surface
from redepth.depth_models.depth_anything import DepthAnything
from redepth.optim import objectives
from redepth.registry import Entry, Registry
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.command import SMOKE, Finished, call
from tests.support.helpers import TargetPrior


class ChannelsLast(BlinnPhong):
    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        return super().__call__(depth, image_linear, illumination).permute(0, 1, 3, 4, 2)


class OneLoss(TargetPrior):
    def __init__(self) -> None:
        super().__init__()

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        return super().__call__(relit, condition, illumination, noise).mean()


class Detached:
    def __call__(self, surface: Surface) -> Tensor:
        return surface.raw.detach().abs().mean(dim=(1, 2, 3))


class HalfSize(DepthAnything):
    def decode(self, features: Features, parameters: Any = None) -> Tensor:
        return torch.nn.functional.avg_pool2d(super().decode(features, parameters), 2)


FAMILIES: dict[str, tuple[Registry, type, tuple[str, ...], str]] = {
    "renderer": (renderers.REGISTRY, ChannelsLast, ("renderer.name=broken",), "the renderer ChannelsLast"),
    "prior": (priors.REGISTRY, OneLoss, ("prior.name=broken",), "the prior OneLoss"),
    "objective": (
        objectives.REGISTRY,
        Detached,
        ("optim.objectives.broken.weight=1",),
        "the objective 'broken' (Detached)",
    ),
    "depth model": (
        depth_models.REGISTRY,
        HalfSize,
        (
            "depth_model.name=broken",
            "depth_model.checkpoint=embedded:relief-depth",
            "depth_model.longer_side=96",
            "depth_model.scale=7.0",
        ),
        "the depth model HalfSize",
    ),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_command_line_names_a_broken_component(
    family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    registry, component, settings, name = FAMILIES[family]
    monkeypatch.setitem(registry._entries, "broken", Entry("broken", component))
    options = [word for setting in settings for word in ("--set", setting)]
    done: Finished = call("refine", real_photos["coins"], *SMOKE, *options, "--out", tmp_path / "out")
    assert done.code == 2
    (line,) = done.complaints
    assert line.startswith(f"error: {real_photos['coins']}: {name} returned ")
    assert not (tmp_path / "out").exists()
