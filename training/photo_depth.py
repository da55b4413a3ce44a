"""The depth model of the pair for photos: its network, its training steps, its validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from redepth.data.scenes.path_traced import path_traced
from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import Scenes, benchmark_scenes
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import RedepthError
from redepth.metrics import align, depth_metrics
from training.depth_losses import photo_depth_loss
from training.mixture import CAMERA, mixture
from training.networks import depth_network
from training.stored_scenes import StoredScenes

DEPTH_NAME = "photo-depth"
BATCH = 16
SMALL_STEPS, SMALL_SHAPES = 3000, ((0.4, 64, 80, 32), (0.8, 80, 64, 32), (1.0, 64, 64, 32))
SHAPES = (
    (0.06, 144, 192, 8),
    (0.14, 160, 160, 8),
    (0.28, 128, 128, 8),
    (0.40, 96, 128, 12),
    (0.48, 128, 96, 12),
    (1.0, 96, 96, BATCH),
)
"""Cumulative share of the training steps, height, width and pictures of a batch; `SMALL_SHAPES` at first."""

VALIDATION_SEED, VALIDATION_SCENES = 5_000, 24
PHOTO_SIDE = 192


def build_photo_depth(seed: int) -> Any:
    """Return a ``DepthAnythingForDepthEstimation`` of 3.6 M parameters with fresh weights."""
    model = depth_network(seed, width=192, heads=6, states=[2, 4, 6, 7], size=128)
    _spread_out(model)
    return model


def _spread_out(model: Any) -> None:
    """Initialise the decoder's convolutions such that they keep the spread of their input.

    With the library's standard deviation of 0.02 the first predictions are nearly constant, and the network
    needs hundreds of steps to reach the spread of a room's disparity.
    """
    for part in (model.neck, model.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    for layer in model.neck.fusion_stage.layers:
        for unit in (layer.residual_layer1, layer.residual_layer2):
            # Each of them adds to what it gets.
            nn.init.zeros_(unit.convolution2.weight)


def encoder_matrices(model: Any) -> list[nn.Parameter]:
    """Return the matrices of the transformer's layers."""
    return [p for p in model.backbone.encoder.parameters() if p.ndim == 2]


def draw_photos(rooms: StoredScenes, step: int, generator: Generator) -> Scenes:
    """Draw the batch of a step, of one of the shapes."""
    kind = float(torch.rand((), generator=generator))
    shapes = SMALL_SHAPES if step < SMALL_STEPS else SHAPES
    height, width, count = next(shape for share, *shape in shapes if kind < share)
    return mixture(count, generator, rooms, height=height, width=width)


def photo_depth_steps(model: Any, batches: Iterator[Scenes], device: torch.device) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    depth_model = DepthAnything()
    depth_model.use(model, device)
    model.requires_grad_(True)
    # On the CPU the backward pass of torch's fused attention takes a third of a step in bfloat16.
    model.set_attn_implementation("eager")

    def step() -> Tensor:
        drawn = next(batches).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = depth_model.encode(drawn.image)
        # The decoder stays in float32: 8 bits of mantissa would quantise the normals.
        features = features.with_maps([w.float() for w in features.maps])
        return photo_depth_loss(depth_model.decode(features), drawn, CAMERA)

    return step


@cache
def validation_sets() -> dict[str, Scenes]:
    """Return scenes that are not trained on, and fresh ones of the families that are (``rooms``)."""

    def generator() -> Generator:
        return Generator().manual_seed(VALIDATION_SEED)

    known = room_scenes(VALIDATION_SCENES, generator(), height=128, width=128)
    unseen = room_scenes(VALIDATION_SCENES, generator(), height=128, width=128, families=UNSEEN)
    return {
        "rooms": Scenes(known.image, known.depth, known.sky),
        "unseen rooms": Scenes(unseen.image, unseen.depth, unseen.sky),
        "relief": benchmark_scenes(VALIDATION_SCENES, "relief", generator()),
        "shapes": benchmark_scenes(VALIDATION_SCENES, "shapes", generator()),
        "path-traced": path_traced(),
    }


@torch.no_grad()
def validate_photo_depth(model: Any, device: torch.device) -> dict[str, Any]:
    """Measure the mean SI-log after the paper's affine alignment, by set of scenes, and on motorcycle."""
    found = {name: silog_of(model, drawn, device) for name, drawn in validation_sets().items()}
    motorcycle = motorcycle_silog(model, device)
    return found if motorcycle is None else found | {"motorcycle": motorcycle}


def silog_of(model: Any, drawn: Scenes, device: torch.device) -> float:
    """Return the mean SI-log over scenes at their own size."""
    depth_model = DepthAnything(longer_side=drawn.image.shape[-1])
    depth_model.use(model, device)
    errors = []
    for image, depth in zip(drawn.image.split(8), drawn.depth.split(8), strict=True):
        raw = depth_model.decode(depth_model.encode(image.to(device)))[:, 0].cpu()
        aligned = align(raw, depth[:, 0], None, "affine-disparity-then-depth")
        errors.append(depth_metrics(aligned.depth, depth[:, 0])["silog"])
    return float(torch.cat(errors).mean())


def motorcycle_silog(model: Any, device: torch.device) -> float | None:
    """Return SI-log on the motorcycle by its protocol; None without scikit-image."""
    from redepth.data.datasets.middlebury import Motorcycle
    from redepth.protocols import load_protocol, measure, prepare

    data = Motorcycle()
    if data.check():
        return None
    depth_model = DepthAnything(longer_side=PHOTO_SIDE, antialias=True)
    depth_model.use(model, device)
    protocol = load_protocol("motorcycle")
    sample = prepare(protocol, data.load("motorcycle"))
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None].float().to(device)
    raw = depth_model.decode(depth_model.encode(depth_model.prepare(photo)))
    raw = F.interpolate(raw, sample.truth.shape, mode="bilinear", align_corners=True)
    try:
        return measure(protocol, raw[0, 0].cpu(), sample).row.metrics["silog"]
    except RedepthError:
        # An untrained network may predict one disparity everywhere.
        return None
