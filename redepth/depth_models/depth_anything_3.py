"""Depth Anything 3 Mono through the optional package depth-anything-3; only its network is used."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth import checkpoints
from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import WEIGHTS, Backbone, Rule, save_weights
from redepth.errors import MissingDependencyError, WeightsError, cut
from redepth.io import save_json

PACKAGE = "depth_anything_3"
INSTALL = 'pip install "redepth[da3]" && pip install --no-deps depth-anything-3'
"""The package declares dozens of dependencies (numpy<2, open3d, ...); its network needs only the extra's."""


class _Encoder(nn.Module):
    def __init__(self, net: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.net = net
        self.patch = patch_size

    def forward(self, pixels: Tensor) -> Features:
        # The network's inputs and states have an axis of views after the batch; a photo is one view.
        states, _ = self.net(pixels[:, None])
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        return Features(maps=tuple(tokens[:, 0] for tokens, _ in states), constants=(), grid=grid)


class _Decoder(nn.Module):
    def __init__(self, head: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.head = head
        self.patch = patch_size

    def forward(self, features: Features) -> Tensor:
        height, width = (self.patch * n for n in features.grid)
        states = [(w[:, None],) for w in features.maps]
        return self.head(states, height, width, patch_start_idx=0)["depth"]


@dataclass(kw_only=True, eq=False)
class DepthAnything3(Backbone):
    """Depth Anything 3 Mono: affine-invariant depth, DINOv2 encoder and DPT head.

    The head's sky mask is not used, as in the paper's implementation: the sky has the depth that the depth
    head predicts. The options are those of `Backbone`; the paper's settings are in the preset da3-mono-large.

    Source: Lin et al., arXiv 2511.10647.
    """

    optional_files: ClassVar[tuple[str, ...]] = ()

    checkpoint: str = "depth-anything/DA3MONO-LARGE"
    longer_side: Annotated[int, Field(ge=28, le=4096)] = 504
    resize_rule: Rule = "upper_bound"
    antialias: bool = False
    predicts: Predicts = field(init=False, default="depth")

    def ensure_available(self) -> None:
        """Raise MissingDependencyError or WeightsError if the package or the weights are unavailable."""
        for module in (PACKAGE, "einops", "omegaconf", "addict"):
            if importlib.util.find_spec(module) is None:
                raise MissingDependencyError(f"{module} is needed for depth-anything-3-mono: {INSTALL}")
        super().ensure_available()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config: dict[str, Any] = {}

    def _load(self, device: torch.device) -> None:
        source = self._source()
        self._config = source.json("config.json")
        net, head = self._built(self._config)
        path = source.file(WEIGHTS)
        self._commit = source.commit
        for name, part in (("backbone", net), ("head", head)):
            checkpoints.fill(part, path, prefixes=(f"model.{name}.", f"{name}."))
        self.use(nn.ModuleDict({"net": net, "head": head}).eval().requires_grad_(False).to(device), device)

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Wrap the package's encoder and head."""
        patch = int(model["head"].patch_size)
        return _Encoder(model["net"], patch), _Decoder(model["head"], patch)

    def save_checkpoint(self, folder: Path) -> None:
        """Write the weights as published, with the configuration they were loaded with. Raises OSError."""
        parts = {"backbone": self._model["net"], "head": self._model["head"]}
        weights = {
            f"model.{part}.{name}": values
            for part, module in parts.items()
            for name, values in module.state_dict().items()
        }
        save_weights(weights, folder / WEIGHTS)
        save_json(folder / "config.json", self._config)

    def _built(self, config: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
        """Build backbone and head, with random weights, from a checkpoint's ``config.json``."""
        name = str(config.get("model_name", "of another kind"))
        graph = config.get("config") or _shipped(name)
        if set(graph) - {"__object__"} != {"net", "head"}:
            raise WeightsError(
                f"'{self.checkpoint}' is {name}, and of Depth Anything 3 only the monocular checkpoints "
                "(DA3MONO) can be refined"
            )
        net, head = ({k: v for k, v in graph[part].items() if k != "__object__"} for part in ("net", "head"))
        # The package prints on stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                return _item("model.dinov2.dinov2", "DinoV2")(**net), _item("model.dpt", "DPT")(**head)
            except Exception as error:  # of the package's own code, for values of any type and size
                raise WeightsError(
                    f"'{self.checkpoint}': config.json builds no network: {cut(str(error))}"
                ) from error


def _shipped(name: str) -> dict[str, Any]:
    """Return the configuration of that name that ships with the package, empty if there is none."""
    if not re.fullmatch(r"[\w-]+", name):  # it is part of a path
        return {}
    load = _item("cfg", "load_config")
    path = Path(str(importlib.import_module(f"{PACKAGE}.cfg").__file__)).parent / "configs" / f"{name}.yaml"
    return dict(load(str(path))) if path.is_file() else {}


def _item(module: str, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except ImportError as error:
        missing = error.name or PACKAGE
        raise MissingDependencyError(f"{missing} is needed for depth-anything-3-mono: {INSTALL}") from error
