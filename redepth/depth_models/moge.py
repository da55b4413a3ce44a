"""MoGe 1, 2 and 3 through the optional package moge; only its networks are used."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from redepth import checkpoints, io
from redepth.contracts import Features, Predicts
from redepth.depth_models.backbone import WEIGHTS, Backbone, Preprocessing, save_weights
from redepth.depth_models.depth_pro import camera_of
from redepth.depth_models.moge_networks import (
    PATCH,
    Decoder,
    Encoder,
    FirstDecoder,
    FirstEncoder,
    bounded,
)
from redepth.depth_models.packages import packaged
from redepth.errors import MissingDependencyError, WeightsError, brief, cut
from redepth.ops import geometry
from redepth.ops.camera import Camera
from redepth.ops.geometry import ResizeRule

log = logging.getLogger(__name__)

PACKAGE = "moge"
INSTALL = 'pip install "redepth[moge]" && pip install --no-deps dlr-moge && pip install --no-deps dlr-utils3d'
"""The package declares a web app and more; its networks need only the extra's packages and utils3d."""

INSTALL_3 = (
    'pip install "redepth[moge]" && pip install --no-deps dlr-utils3d '
    '&& pip install --no-deps "moge @ git+https://github.com/microsoft/MoGe.git" '
    '&& pip install --no-build-isolation "flex-gemm @ git+https://github.com/JeffreyXiang/FlexGEMM.git"'
)
"""No registry has MoGe-3's correction, nor the sparse convolutions that it needs."""

PUBLISHED, CONFIG = "model.pt", "config.json"

SAMPLES = (64, 64)
"""The package finds focal length and shift on so many points of the photo, by their nearest pixels."""

LEAST_SAMPLES = 41
"""Fewest of these that decide a focal length, 1 %; from a handful the package finds any."""

_BACKBONE = re.compile(r"dinov2_vit[sblg]14(_reg)?")
_CORRECTION = ("refiner", "refiner_depth_resolution")
"""The settings that MoGe-3 adds to those of MoGe-2."""


@dataclass(kw_only=True, eq=False)
class MoGe(Backbone):
    r"""MoGe: depth in metres (MoGe-2, MoGe-3), or up to scale (MoGe-1).

    The network predicts a point map (x, y, z), known up to a scale and a shift along the axis, and a mask of
    the pixels that show a surface. For the camera's focal length f and shift b, the points of the mask
    minimise the distance between their projections and their pixels,

    .. math:: \min_{f, b} \sum_p \lVert f \, (x, y)_p / (z_p + b) - (u, v)_p \rVert^2, \qquad D = m (z + b)

    with the predicted metric scale m (1 for MoGe-1). f, b and m are found once per photo, from the frozen
    network, and are constants afterwards: only z is refined. The field of view of the photo's camera takes
    f's place where one is given (`next_camera`); as in the package its axis is taken to be centred. The
    package solves for them on 64 x 64 samples of the photo. If the mask has fewer than 41 of them (1 %),
    the shift stays unknown and 0, no camera is found, and the depth counts as affine. Outside the mask, in
    the sky for example, depth is what the network says. Predicted normals are not used.

    MoGe-3 corrects its depth in some steps of a sparse network, which has no gradient: what they change,
    z_corrected / z, is another constant.

    Args:
        resolution_level: 0 to 9; the number of tokens is that share of the way from the checkpoint's
            fewest to its most, 1200 to 3600 for MoGe-2. ``longer_side`` replaces it.
        resize_rule: which side of the photo gets ``longer_side``; upper_bound if null.
        refine_steps: steps of MoGe-3's correction; 0 leaves it out.

    The other options are those of `Backbone`.

    Sources: Wang et al., arXiv 2410.19115 and 2507.02546; Kong et al., arXiv 2607.17967.
    """

    model_type: ClassVar[str] = "moge"
    optional_files: ClassVar[tuple[str, ...]] = ()

    checkpoint: str = "Ruicheng/moge-2-vitl-normal"
    resize_rule: ResizeRule | None = None
    resolution_level: Annotated[int, Field(ge=0, le=9)] = 9
    refine_steps: Annotated[int, Field(ge=0, le=10)] = 0
    predicts: Predicts = field(init=False, default="depth")
    preprocessing: Preprocessing = field(
        init=False, default=Preprocessing((0.0,) * 3, (1.0,) * 3, multiple=PATCH, rule="upper_bound")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._version = 2
        self._settings: dict[str, Any] = {}
        self._given: Camera | None = None
        self._predicted: Camera | None = None
        self._recovered: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def ensure_available(self) -> None:
        """Raise MissingDependencyError or WeightsError if the package or the weights are unavailable."""
        modules = [(PACKAGE,), ("utils3d", "utils3d_moge"), ("cv2",), ("scipy",)]
        if self.refine_steps:
            modules += [(f"{PACKAGE}.model.v3",), ("flex_gemm",)]
        for names in modules:
            if not any(_is_installed(name) for name in names):
                raise MissingDependencyError(f"{names[0]} is needed for MoGe: {self._install}")
        super().ensure_available()

    @property
    def _install(self) -> str:
        return INSTALL_3 if self.refine_steps else INSTALL

    def _locate(self) -> checkpoints.Source:
        """Find the published file, or the two of a checkpoint that `save_checkpoint` wrote."""
        source = checkpoints.Source(self.checkpoint, self.revision)
        files = (CONFIG, WEIGHTS) if source.holds(WEIGHTS) else (PUBLISHED,)
        return checkpoints.locate(self.checkpoint, self.revision, files)

    def _load(self, device: torch.device) -> None:
        source = self._locate()
        if source.holds(WEIGHTS):
            config = source.json(CONFIG)
            self.inspect(config)
            settings: Any = config.get("model_config")
            weights: Any = source.tensors(WEIGHTS)
        else:
            content = checkpoints.read_pickled(source.file(PUBLISHED))
            settings, weights = content.get("model_config"), content.get("model")
        if not isinstance(settings, dict) or not isinstance(weights, dict):
            raise WeightsError(f"'{self.checkpoint}' holds no model_config and model: it is not of MoGe")
        self._commit = source.commit
        model = self._built(settings, sum(w.numel() for w in weights.values() if isinstance(w, Tensor)))
        _fill(model, weights, self.checkpoint)
        self.use(model.eval().requires_grad_(False).to(device), device)

    def _built(self, settings: Mapping[str, Any], stored: int) -> Any:
        """Build the package's network, with random weights, from a checkpoint's settings.

        ``stored`` is the number of weights in the checkpoint, and a bound for what the settings may build.
        """
        known = dict(settings)
        encoder = known.get("encoder")
        self._version = 1 if isinstance(encoder, str) else 3 if _CORRECTION[0] in known else 2
        if self.refine_steps and self._version != 3:
            raise WeightsError(
                f"'{self.checkpoint}' is MoGe-{self._version}, which corrects nothing: set "
                "depth_model.refine_steps=0"
            )
        if self._version == 3 and not self.refine_steps:
            # Without its correction it is MoGe-2 with another point map, and needs nothing else.
            known = {key: value for key, value in known.items() if key not in _CORRECTION}
            known["remap_output"] = "exp"
            self._version = 2
        backbone = encoder.get("backbone") if isinstance(encoder, Mapping) else encoder
        if not isinstance(backbone, str) or not _BACKBONE.fullmatch(backbone):
            raise WeightsError(f"'{self.checkpoint}' names an unknown backbone, {brief(backbone)}")
        network = self._item(f"model.v{self._version}", "MoGeModel")
        self._settings = known
        try:
            # The random weights are replaced; the generator of the process stays as it is.
            with torch.random.fork_rng(devices=[]), bounded(2 * stored), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return network(**known)
        except Exception as error:  # of the package's own code, for values of any type and size
            raise WeightsError(
                f"'{self.checkpoint}': its settings build no network: {cut(str(error))}"
            ) from error

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen ``MoGeModel`` that is already in memory."""
        self._solve = self._item("utils.geometry_torch", "recover_focal_shift")
        super().use(model, device, preprocessor)
        self._recovered = None
        self.invariance = "metric" if self._is_metric else "affine"

    @property
    def _is_metric(self) -> bool:
        return hasattr(self._model, "scale_head")

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split before the neck; MoGe-1 before the head."""
        plane = self._item("utils.geometry_torch", "normalized_view_plane_uv")
        if self._version == 1:
            return FirstEncoder(model), FirstDecoder(model, plane)
        return Encoder(model), Decoder(model, plane)

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) to the pixels of the chosen number of tokens, as the package does."""
        if self.longer_side is not None:
            return super().prepare(photo)
        height, width = photo.shape[-2:]
        fewest, most = self._model.num_tokens_range
        tokens = int(fewest + self.resolution_level / 9 * (most - fewest))
        sides = (math.sqrt(tokens * height / width), math.sqrt(tokens * width / height))
        # MoGe-1 cuts off what is no whole token.
        rows, columns = (max(1, math.floor(n) if self._version == 1 else round(n)) for n in sides)
        return geometry.resize(photo, PATCH * rows, PATCH * columns, antialias=self.antialias)

    def next_camera(self, camera: Camera | None) -> None:
        """Set the camera of the next photo, whose focal length replaces the estimate; None: the estimate."""
        self._given = camera if camera is not None and camera.pinhole else None
        self._recovered = None

    @property
    def predicted_camera(self) -> Camera | None:
        """The camera with the recovered field of view; None where too little of the photo is a surface."""
        return self._predicted

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1]; ``parameters`` never change the constants."""
        features = super().encode(image, parameters)
        known = self._recovered
        if parameters is None or known is None or known[0] is not image:
            known = self._recovered = (image, self._recover(image))
        return replace(features, constants=known[1])

    @torch.no_grad()
    def _recover(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return shift, metric scale and correction, each (B,1,1,1) or (B,1,H,W), of the network as it is."""
        height, width = image.shape[-2:]
        tokens = (height // PATCH) * (width // PATCH)
        steps = {"refine_steps": self.refine_steps} if self._version == 3 else {}
        with warnings.catch_warnings():  # the package warns of its own autocast on a CPU
            warnings.simplefilter("ignore")
            output = self._model(image, num_tokens=tokens, **steps)
        points, mask = output["points"].float(), output.get("mask")
        valid = None if mask is None else mask > getattr(self._model, "mask_threshold", 0.5)
        # In units of half the diagonal, as the package has it; f in widths is this by 2 span.
        focal, shift = self._solve(points, valid)
        span = width / math.hypot(height, width)
        seen = valid is None or _samples_of(valid) >= LEAST_SAMPLES
        self._predicted = camera_of(2 * span / focal) if seen else None
        if not seen:
            shift = torch.zeros_like(shift)
        elif self._given is not None:
            fx, _, _, _ = self._given.normalized_intrinsics(height, width)
            _, shift = self._solve(points, valid, focal=torch.full_like(focal, 2 * span * fx))
        if not seen:
            log.warning(
                "MoGe finds too little surface in the photo: its depth is known up to scale and shift"
            )
        self.invariance = "metric" if self._is_metric and seen else "affine"
        scale = output.get("metric_scale", torch.ones_like(shift))
        correction = torch.ones_like(shift)[:, None, None, None]
        if steps:
            plain = self._model(image, num_tokens=tokens, refine_steps=0)["points"].float()
            correction = (points[..., 2] / plain[..., 2])[:, None]
        return (*(values.float()[:, None, None, None] for values in (shift, scale)), correction)

    def save_checkpoint(self, folder: Path) -> None:
        """Write the weights, and the settings in ``config.json``. Raises OSError."""
        save_weights(self._model.state_dict(), folder / WEIGHTS)
        io.save_json(folder / CONFIG, {"model_type": self.model_type, "model_config": self._settings})

    def describe(self) -> dict[str, Any]:
        """Return also which network it is."""
        return super().describe() | {"network": f"MoGe v{self._version}"}

    def _item(self, module: str, name: str) -> Any:
        return packaged(PACKAGE, module, name, f"for MoGe: {self._install}")


def _samples_of(mask: Tensor) -> int:
    """Return how many of the package's samples are in a mask (B,H,W), in the picture with the fewest."""
    return int(F.interpolate(mask[:, None].float(), SAMPLES, mode="nearest").sum(dim=(1, 2, 3)).min())


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it is missing
        return False


def _fill(model: nn.Module, weights: Mapping[str, Any], checkpoint: str) -> None:
    """Load weights, all of them. Raises WeightsError if some are missing or of another shape."""
    # Masked training alone uses that token.
    own = {k: v for k, v in model.state_dict().items() if k in weights or not k.endswith(".mask_token")}
    wrong = [k for k, v in own.items() if getattr(weights.get(k), "shape", None) != v.shape]
    if wrong:
        raise WeightsError(
            f"'{checkpoint}': {len(wrong)} of its weights are missing or of another shape, such as "
            f"{wrong[0]}: the checkpoint is damaged or of another kind"
        )
    model.load_state_dict({name: weights[name] for name in own}, strict=False)
