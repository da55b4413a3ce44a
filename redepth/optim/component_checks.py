"""Check what components return, so that an error names the component and what is expected of it.

Layout, type and gradient are known without the tensors' values: checking them waits for no device. Values are
read once, after the first step of a group (`check_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from redepth.contracts import Condition, Draw, Features, Objective, Surface
from redepth.errors import RedepthError, brief

_GRADIENT = "compute it in torch, without torch.no_grad(), detach(), .item() or numpy"


def title(family: str, component: object) -> str:
    """Return how messages name a component, such as ``the prior StableDiffusion``."""
    return f"the {family} {type(component).__name__}"


def objective_title(name: str, objective: Objective) -> str:
    """Return how messages name an objective: by its name in the preset, and by its class."""
    return f"the objective '{name}' ({type(objective).__name__})"


def check_image(who: str, image: Any) -> None:
    """Check what ``DepthModel.prepare`` returns: (1, 3, H, W), in floating point.

    Raises:
        RedepthError: naming ``who``; so do all checks.
    """
    expected = "prepare must return the photo at network size, (1, 3, H, W) in floating point"
    _check_tensor(who, image, expected)
    if image.dim() != 4 or image.shape[:2] != (1, 3) or not image.is_floating_point():
        raise RedepthError(f"{who} returned {_layout(image)}: {expected}")


def check_features(who: str, features: Any) -> None:
    """Check what ``DepthModel.encode`` returns."""
    if not isinstance(features, Features):
        raise RedepthError(f"{who} returned {brief(features)}: encode must return Features")


def check_prediction(who: str, raw: Any, image: Tensor) -> None:
    """Check the first output of ``DepthModel.decode``: (1, 1, H, W) of the prepared picture."""
    _check_layout(who, raw, (1, 1, *image.shape[-2:]), "a raw output of the prepared picture's size", image)


def check_raw(who: str, raw: Any, members: int, image: Tensor) -> None:
    """Check an output of ``DepthModel.decode`` in a step: (members, 1, H, W) with a gradient."""
    _check_layout(who, raw, (members, 1, *image.shape[-2:]), "(members, 1, H, W)", image)
    _check_gradient(who, raw, "decode must depend on what is optimized")


def check_condition(who: str, condition: Any) -> None:
    """Check what ``Prior.condition`` returns."""
    if not isinstance(condition, Condition):
        raise RedepthError(f"{who} returned {brief(condition)}: condition must return a Condition")


def check_draw(who: str, drawn: Any, kind: type[Draw], leading: Sequence[int]) -> None:
    """Check what ``draw`` returns: a record of tensors with the leading shape, on the CPU."""
    expected = f"draw must return {kind.__name__} with tensors {_shape(leading, '...')}"
    if not isinstance(drawn, kind):
        raise RedepthError(f"{who} returned {brief(drawn)}: {expected}")
    tensors: Mapping[str, object] = drawn.tensors
    for name, values in tensors.items():
        if not isinstance(values, Tensor) or tuple(values.shape[: len(leading)]) != tuple(leading):
            got = _layout(values) if isinstance(values, Tensor) else brief(values)
            raise RedepthError(f"{who} drew {got} for '{name}': {expected}")


def check_relit(who: str, relit: Any, lights: int, depth: Tensor) -> None:
    """Check the re-lit pictures of a step: (members, lights, 3, H, W) with a gradient."""
    members, _, height, width = depth.shape
    expected = (members, lights, 3, height, width)
    _check_layout(who, relit, expected, "(members, lights, 3, H, W) in sRGB", depth)
    _check_gradient(who, relit, "the picture must depend on the depth")


def check_loss(who: str, loss: Any, count: int, each: str, like: Tensor, *, gradient: bool) -> None:
    """Check a loss of a step: a value for each picture or member; with a gradient, if that is demanded."""
    expected = f"one loss per {each}, ({count},)"
    _check_tensor(who, loss, expected)
    if tuple(loss.shape) != (count,) or not loss.is_floating_point() or loss.device != like.device:
        raise RedepthError(f"{who} returned {_layout(loss)}: expected {expected} on {like.device}")
    if gradient:
        _check_gradient(who, loss, "the loss must depend on the picture")


def check_values(
    renderer: str,
    relit: Tensor,
    surface: Surface,
    losses: Mapping[str, Tensor],
    objectives: Mapping[str, str],
) -> None:
    """Check the values of a first step; it waits for the device.

    Losses that are not finite are found by the loss log, which names them.

    Args:
        renderer: how messages name it.
        relit: its pictures.
        surface: that they show.
        losses: name -> (members,), with ``total``.
        objectives: name -> how messages name it.

    Raises:
        RedepthError: pictures of a finite surface are not finite, an objective that is not 0 has no
            gradient, or no loss has one.
    """
    if bool(torch.isfinite(surface.depth).all()) and not bool(torch.isfinite(relit).all()):
        raise RedepthError(
            f"{renderer} returned a picture that is not finite for a finite depth, at step 1: look for a "
            "division, a root or a normalization at 0"
        )
    for name, who in objectives.items():
        # A term without its data, as the sky where there is none, is a constant 0.
        if not losses[name].requires_grad and bool(losses[name].any()):
            _check_gradient(who, losses[name], "the loss must depend on the surface")
    if not losses["total"].requires_grad:
        raise RedepthError(
            "no loss depends on the depth: set optim.prior_weight, or the weight of an objective whose data "
            "are there"
        )


def _check_tensor(who: str, values: Any, expected: str) -> None:
    if not isinstance(values, Tensor):
        raise RedepthError(f"{who} returned {brief(values)}: {expected}")


def _check_layout(who: str, values: Any, shape: Sequence[int], meaning: str, like: Tensor) -> None:
    expected = f"expected {_shape(shape)}, {meaning}, as {_type(like)} on {like.device}"
    _check_tensor(who, values, expected)
    same = values.dtype == like.dtype and values.device == like.device
    if tuple(values.shape) != tuple(shape) or not same:
        raise RedepthError(f"{who} returned {_layout(values)}: {expected}")


def _check_gradient(who: str, values: Tensor, demand: str) -> None:
    if torch.is_grad_enabled() and not values.requires_grad:
        raise RedepthError(f"{who} returned values without a gradient: {demand}; {_GRADIENT}")


def _layout(values: Tensor) -> str:
    return f"{_shape(values.shape)} as {_type(values)} on {values.device}"


def _shape(shape: Sequence[int], *more: str) -> str:
    return (
        f"({', '.join([*(str(size) for size in shape), *more])}{',' if len(shape) + len(more) == 1 else ''})"
    )


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
