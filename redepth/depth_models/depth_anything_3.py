"""Depth Anything 3 through the optional package depth-anything-3; only its networks are used."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from redepth import checkpoints
from redepth.contracts import Features, Predicts
from redepth.depth_models import depth_anything_3_network as network
from redepth.depth_models.backbone import WEIGHTS, Backbone, Rule, save_weights
from redepth.depth_models.depth_pro import NARROWEST, WIDEST
from redepth.errors import MissingDependencyError, WeightsError, cut
from redepth.io import save_json
from redepth.ops.camera import Camera

log = logging.getLogger(__name__)

CANONICAL_FOCAL = 300.0
"""The metric network predicts the depth that a camera of this focal length in pixels would have."""

_COMPONENTS = {"mono": "depth-anything-3-mono", "any-view": "depth-anything-3-small"}
"""Kind of network -> depth_model.name that loads it."""


@dataclass(kw_only=True, eq=False)
class DepthAnything3(Backbone):
    """Depth Anything 3 Mono: affine-invariant depth, DINOv2 encoder and DPT head.

    The head's sky mask is not used, as in the paper's implementation: the sky has the depth that the depth
    head predicts. The options are those of `Backbone`; the paper's settings are in the preset da3-mono-large.

    Source: Lin et al., arXiv 2511.10647.
    """

    optional_files: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "mono"
    wanted: ClassVar[str] = "a monocular one (DA3MONO)"
    """The checkpoints that the class loads, in words."""

    checkpoint: str = "depth-anything/DA3MONO-LARGE"
    longer_side: Annotated[int, Field(ge=28, le=4096)] = 504
    resize_rule: Rule = "upper_bound"
    antialias: bool = False
    predicts: Predicts = field(init=False, default="depth")

    def ensure_available(self) -> None:
        """Raise MissingDependencyError or WeightsError if the package or the weights are unavailable."""
        network.ensure_installed()
        super().ensure_available()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config: dict[str, Any] = {}
        self._read: checkpoints.Source | None = None

    def inspect(self, config: Mapping[str, Any]) -> None:
        """Check the kind of network in a ``config.json``. Raises WeightsError."""
        kind = network.kind_of(_graph(config))
        if kind != self.kind:
            other = _COMPONENTS.get(kind)
            hint = f"choose depth_model.name={other}" if other else "it cannot be refined"
            raise WeightsError(f"'{self.checkpoint}' is {_name(config)}, not {self.wanted}: {hint}")

    def _load(self, device: torch.device) -> None:
        source = self._source()
        self._config = source.json("config.json")
        self.inspect(self._config)
        try:
            parts = network.build(self.kind, _graph(self._config))
        except MissingDependencyError:
            raise
        except Exception as error:  # of the package's own code, for values of any type and size
            raise WeightsError(
                f"'{self.checkpoint}': config.json builds no network: {cut(str(error))}"
            ) from error
        path = source.file(WEIGHTS)
        self._commit, self._read = source.commit, source
        stored = source.tensors(WEIGHTS)
        for part, module in parts.items():
            name = network.STORED_AS.get(part, part)
            checkpoints.fill(module, path, stored, prefixes=(f"model.{name}.", f"{name}."))
        self.use(parts.eval().requires_grad_(False).to(device), device)

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Wrap the package's encoder and head."""
        parts = dict(model.items())
        patch = int(parts["head"].patch_size)
        encoder = network.Encoder(parts["net"], patch, parts.get("cam_dec"))
        return encoder, network.Decoder(parts["head"], patch)

    def save_checkpoint(self, folder: Path) -> None:
        """Write the weights as published, with the configuration they were loaded with. Raises OSError."""
        # The parts that are not loaded, such as the head for rays, stay as they are in the checkpoint.
        stored = self._read.tensors(WEIGHTS) if self._read is not None else {}
        weights = {f"model.{name.removeprefix('model.')}": values for name, values in stored.items()}
        for part, module in self._model.items():
            name = network.STORED_AS.get(part, part)
            weights |= {f"model.{name}.{key}": values for key, values in module.state_dict().items()}
        save_weights(weights, folder / WEIGHTS)
        save_json(folder / "config.json", self._config)


@dataclass(kw_only=True, eq=False)
class DepthAnything3Metric(DepthAnything3):
    r"""Depth Anything 3 Metric: depth in metres where the camera of the photo is known.

    The network predicts canonical depth C, and

    .. math:: D = C \, \frac{f_x + f_y}{2 \cdot 300}

    in metres, with the focal lengths in pixels of the network's input. They are those of the photo's camera
    (`next_camera`). Without a pinhole camera the result is C, of unknown scale, and a warning says so. The
    options are those of `DepthAnything3`.

    Source: Lin et al., arXiv 2511.10647; the rule is in the repository's README ("Monocular Metric Depth").
    """

    wanted: ClassVar[str] = "a metric one (DA3METRIC)"

    checkpoint: str = "depth-anything/DA3METRIC-LARGE"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._camera: Camera | None = None
        self._warned = False

    def inspect(self, config: Mapping[str, Any]) -> None:
        """Check that a ``config.json`` is of a metric network. Raises WeightsError."""
        super().inspect(config)
        # The monocular networks have the same parts, but no unit.
        if "metric" not in _name(config).lower():
            raise WeightsError(
                f"'{self.checkpoint}' is {_name(config)}, not {self.wanted}: choose "
                f"depth_model.name={_COMPONENTS['mono']}"
            )

    def next_camera(self, camera: Camera | None) -> None:
        """Set the camera of the next photo, whose focal length gives metres; None: it is not known."""
        self._camera = camera if camera is not None and camera.pinhole else None
        self.invariance = "affine" if self._camera is None else "metric"
        if self._camera is None and not self._warned:
            self._warned = True
            log.warning(
                "depth-anything-3-metric: without a focal length the depth has no unit; for metres give "
                "--fov, --intrinsics or --camera exif"
            )

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1]; ``parameters`` replace its own."""
        features = super().encode(image, parameters)
        factor = 1.0
        if self._camera is not None:
            height, width = image.shape[-2:]
            fx, fy, _, _ = self._camera.normalized_intrinsics(height, width)
            factor = (fx * width + fy * height) / 2 / CANONICAL_FOCAL
        return replace(features, constants=(image.new_full((len(image), 1, 1, 1), factor),))

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the depth (B,1,H,W), in metres if the camera was known."""
        return super().decode(features, parameters) * features.constants[0]


@dataclass(kw_only=True, eq=False)
class DepthAnything3AnyView(DepthAnything3):
    """Depth Anything 3 for any number of views, with one: affine-invariant depth and the field of view.

    One photo is one view. The head for rays and the encoder of given poses are not loaded, because the depth
    does not depend on them. The camera decoder estimates the horizontal and the vertical field of view with
    the axis at the centre (`predicted_camera`). The options are those of `DepthAnything3`.

    Source: Lin et al., arXiv 2511.10647.
    """

    kind: ClassVar[str] = "any-view"
    wanted: ClassVar[str] = "one for any number of views (DA3-SMALL, DA3-BASE, ...)"

    checkpoint: str = "depth-anything/DA3-SMALL"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._predicted: Camera | None = None

    @property
    def predicted_camera(self) -> Camera | None:
        """The camera that was estimated for the last photo; None for angles that no lens has."""
        return self._predicted

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1]; ``parameters`` replace its own."""
        features = super().encode(image, parameters)
        if parameters is None:
            vertical, horizontal = features.constants[0][0].tolist()
            self._predicted = _camera_of(horizontal, vertical)
        return replace(features, constants=())


def _camera_of(horizontal: float, vertical: float) -> Camera | None:
    """Return the pinhole with these fields of view in radians; None if they are none of a lens."""
    if not all(NARROWEST <= math.degrees(angle) <= WIDEST for angle in (horizontal, vertical)):
        return None
    fx, fy = (0.5 / math.tan(angle / 2) for angle in (horizontal, vertical))
    return Camera(intrinsics=(fx, fy, 0.5, 0.5))


def _name(config: Mapping[str, Any]) -> str:
    """Return the name of the network in a ``config.json``."""
    return cut(str(config.get("model_name", "of another kind")))


def _graph(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the network and their options, from a ``config.json`` or the package."""
    graph = config.get("config") or network.shipped(_name(config))
    return dict(graph) if isinstance(graph, Mapping) else {}
