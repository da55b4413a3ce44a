"""The networks of the optional package depth-anything-3: built from a configuration, and split."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from redepth.contracts import Features
from redepth.depth_models.packages import packaged
from redepth.errors import MissingDependencyError

PACKAGE = "depth_anything_3"
INSTALL = 'pip install "redepth[da3]" && pip install --no-deps depth-anything-3'
"""The package declares dozens of dependencies (numpy<2, open3d, ...); its network needs only the extra's."""

CLASSES = {
    "mono": {"net": ("model.dinov2.dinov2", "DinoV2"), "head": ("model.dpt", "DPT")},
    "any-view": {
        "net": ("model.dinov2.dinov2", "DinoV2"),
        "head": ("model.dualdpt", "DualDPT"),
        "cam_dec": ("model.cam_dec", "CameraDec"),
    },
}
"""Kind of network -> its parts, in the configuration's words -> module and class in the package."""

STORED_AS = {"net": "backbone"}
"""A part -> its name in a file of weights, where that is another."""


class Encoder(nn.Module):
    """From pixels to the four token maps of the last layers; a photo is one view.

    Args:
        net: the package's ``DinoV2``.
        patch_size: of its tokens.
        camera: the package's ``CameraDec``; the constants are then the vertical and horizontal field of view
            in radians, (B, 2), without gradient.
    """

    def __init__(self, net: nn.Module, patch_size: int, camera: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net
        self.camera = camera
        self.patch = patch_size

    def forward(self, pixels: Tensor) -> Features:
        """Encode normalised pixels (B,3,H,W)."""
        # The network's inputs and states have an axis of views after the batch.
        states, _ = self.net(pixels[:, None])
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        constants: tuple[Tensor, ...] = ()
        if self.camera is not None:
            # Translation, quaternion and two angles, from the camera token of the last layer.
            constants = (self.camera(states[-1][1].detach())[:, 0, 7:9].detach(),)
        return Features(maps=tuple(tokens[:, 0] for tokens, _ in states), constants=constants, grid=grid)


class Decoder(nn.Module):
    """From the token maps to depth (B,1,H,W), by the package's ``DPT`` or ``DualDPT``."""

    def __init__(self, head: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.head = head
        self.patch = patch_size

    def forward(self, features: Features) -> Tensor:
        """Decode; other outputs of the head, such as its sky mask, are left out."""
        height, width = (self.patch * n for n in features.grid)
        states = [(w[:, None],) for w in features.maps]
        depth: Tensor = self.head(states, height, width, patch_start_idx=0)["depth"]
        return depth


class _LeftOut(nn.Module):
    """Stands for a part whose output is not used: zeros of one pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, *_: Tensor, size: Any = None) -> Tensor:
        return x.new_zeros(len(x), self.channels, 1, 1)


def without_rays(head: Any) -> None:
    """Leave the map of rays out of a ``DualDPT``: it takes half of the time, and no depth depends on it."""
    scratch = head.scratch
    features = scratch.output_conv1.in_channels
    for level in range(1, 5):
        setattr(scratch, f"refinenet{level}_aux", _LeftOut(features))
    for name, channels in (("output_conv1_aux", features // 2), ("output_conv2_aux", 7)):
        setattr(scratch, name, nn.ModuleList([_LeftOut(channels)] * head.aux_levels))


def ensure_installed() -> None:
    """Raise MissingDependencyError if a package is missing that the networks need."""
    for module in (PACKAGE, "einops", "omegaconf", "addict"):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f"{module} is needed for Depth Anything 3: {INSTALL}")


def kind_of(graph: Mapping[str, Any]) -> str:
    """Return a key of `CLASSES`; empty for a network that is neither, such as two nested ones."""
    parts = set(graph) - {"__object__"}
    if parts == {"net", "head"}:
        return "mono"
    return "any-view" if parts >= {"net", "head", "cam_dec"} else ""


def build(kind: str, graph: Mapping[str, Any]) -> nn.ModuleDict:
    """Build the parts of a network, with random weights. Raises what the package does for wrong values."""
    parts = nn.ModuleDict()
    # The package prints on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        for part, (module, name) in CLASSES[kind].items():
            options = {k: v for k, v in graph[part].items() if k != "__object__"}
            parts[part] = item(module, name)(**options)
    if kind == "any-view":
        without_rays(parts["head"])
    return parts


def shipped(name: str) -> dict[str, Any]:
    """Return the configuration of that name that ships with the package, empty if there is none."""
    if not re.fullmatch(r"[\w-]+", name):  # it is part of a path
        return {}
    load = item("cfg", "load_config")
    path = Path(str(importlib.import_module(f"{PACKAGE}.cfg").__file__)).parent / "configs" / f"{name}.yaml"
    return dict(load(str(path))) if path.is_file() else {}


def item(module: str, name: str) -> Any:
    """Return a class or function of the package. Raises MissingDependencyError."""
    return packaged(PACKAGE, module, name, f"for Depth Anything 3: {INSTALL}")
