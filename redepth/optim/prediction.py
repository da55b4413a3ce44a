"""The prediction of a frozen depth model for one photo, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth.contracts import DepthModel, Features, FollowsCamera, FollowsPhoto, TakesMap
from redepth.errors import ConfigError, RedepthError, cut
from redepth.ops.camera import Camera
from redepth.optim import component_checks as checks
from redepth.runtime.device import is_out_of_memory


def tell_photo(model: DepthModel, source: Path | None, depth: NDArray[Any] | None = None) -> None:
    """Tell a depth model which photo comes next, and its map.

    Args:
        model: the depth model.
        source: the photo's file, by whose name a model finds other files; None if it has none.
        depth: (h, w), a finished map of the photo; None if there is none, or an option names its file.

    Raises:
        ConfigError: the model takes no map.
        InputError: the model finds no file of the photo, or no map.
    """
    if isinstance(model, FollowsPhoto):
        model.next_photo(source)
    if isinstance(model, TakesMap):
        model.take_map(depth)
    elif depth is not None:
        raise ConfigError(
            f"{checks.title('depth model', model)} predicts the depth and takes no map; refine one with "
            "redepth.refine(depth=..., predicts=...)"
        )


def tell_camera(model: DepthModel, camera: Camera | None, height: int, width: int) -> None:
    """Tell a depth model whose metres need it the camera of a photo of this size; None: it is not known."""
    if isinstance(model, FollowsCamera):
        model.next_camera(None if camera is None else camera.of_picture(height, width))


@torch.no_grad()
def predict(model: DepthModel, photo: Tensor, device: torch.device) -> tuple[Tensor, Features, Tensor]:
    """Run a frozen model: the photo at network size, its features, the raw output (1,1,H,W).

    Args:
        model: loaded to the device.
        photo: (1,3,H,W) sRGB in [0, 1], any size.
        device: where the model is.

    Raises:
        RedepthError: if the depth model fails, or its prediction is not finite.
        ValueError: if ``photo`` is not (1, 3, H, W).
    """
    if photo.dim() != 4 or photo.shape[:2] != (1, 3):
        raise ValueError(f"photo must be (1, 3, H, W), got {tuple(photo.shape)}")
    who = checks.title("depth model", model)
    try:
        image = model.prepare(photo.to(device, torch.float32))
        checks.check_image(who, image)
        features = model.encode(image)
        checks.check_features(who, features)
        raw = model.decode(features)
        checks.check_prediction(who, raw, image)
    except RedepthError:
        raise
    except Exception as error:  # of a network that its checkpoint builds, and that does not fit together
        if is_out_of_memory(error):
            raise
        raise RedepthError(
            f"{who} fails on this photo "
            f"({type(error).__name__}: {cut(str(error), 200)}): check its checkpoint"
        ) from error
    if not bool(torch.isfinite(raw).all()):
        raise RedepthError(f"the prediction of {who} is not finite: check its weights")
    return image, features, raw
