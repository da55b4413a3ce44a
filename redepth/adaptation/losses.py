"""The losses of the method ``distil``: to a refined map, and to the start by its low frequencies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redepth.adaptation.targets import Target
from redepth.contracts import DepthModel
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.filters import gradient, wide_gaussian_blur
from redepth.ops.geometry import normals_from_depth
from redepth.optim.refiner import relative_depth_of

RelativeDepth = Callable[[Tensor], Tensor]
"""Turns a photo's raw output, in the depth model's own unit, into its relative depth."""

FLOOR = 0.01
"""Least `deviation` of a map, as a share of its mean absolute value."""


def relative_depth_in(model: DepthModel, unit: float) -> RelativeDepth:
    """Return the function to relative depth, with a depth model's constants and a photo's unit.

    Args:
        model: loaded.
        unit: `Target.unit`, or `optim.refiner.unit_of` the starting model's prediction.
    """
    return lambda raw: relative_depth_of(model, raw / unit)


def deviation(raw: Tensor) -> Tensor:
    r"""Return the scale that changes of a map are measured by, a positive scalar.

    .. math:: \max(\mathrm{std}(D),\; 0.01 \, \mathrm{mean} |D|)

    over all pixels. The second one bounds the loss of a nearly constant map; it is rare that it counts. It is
    1 for a map that is 0 everywhere. A factor on the map is a factor on its deviation.
    """
    scale = torch.maximum(raw.std(correction=0), FLOOR * raw.abs().mean())
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def distil_loss(raw: Tensor, target: Target, relative_depth: RelativeDepth) -> Tensor:
    r"""Return the distance of a raw output to a refined one, a scalar.

    .. math:: \mathrm{mean}\; w \Big( |e| + \tfrac{1}{2} (|\partial_x e| + |\partial_y e|)
        + 1 - n \cdot n^* \Big), \qquad e = \frac{D - D^*}{\mathrm{std}(D^*)}

    with the refined output D*, the trust w, derivatives per pixel (`ops.filters.gradient`), `deviation` for
    std, and the unit normals n and n* of both relative depths. The first term compares the forms, the second
    one their edges, and the third one the surface as it is lit. A factor on both raw outputs changes nothing
    if the unit follows it. Pixels of little trust count less, and so do photos with many of them.

    Args:
        raw: (1,1,H,W) of the model that learns; half precision is upcast.
        target: on the same device, of the same size; its camera gives the normals.
        relative_depth: of this photo (`relative_depth_in`).

    Raises:
        ValueError: the sizes differ.
    """
    goal = target.refined
    values = _like(raw, goal)
    error = (values - goal) / deviation(goal)
    normals, wanted = (normals_from_depth(relative_depth(map_), target.camera) for map_ in (values, goal))
    turn = 1 - (normals * wanted).sum(dim=1, keepdim=True)
    edges = gradient(error).abs().mean(dim=1, keepdim=True)
    return (target.trust * (error.abs() + edges + turn)).mean()


def keep_loss(
    raw: Tensor, initial: Tensor, relative_depth: RelativeDepth, camera: Camera = ORTHOGRAPHIC
) -> Tensor:
    """Return `distil_loss` to the starting model's output: the model shall stay as it is on this photo."""
    stay = Target(initial, initial, torch.ones_like(initial), camera=camera)
    return distil_loss(raw, stay, relative_depth)


def drift(raw: Tensor, initial: Tensor, scale: float) -> Tensor:
    r"""Return how far the low frequencies went from the starting model's output, a scalar.

    .. math:: \mathrm{mean} \Big( \frac{G_\sigma * (D - D_0)}{\mathrm{std}(D_0)} \Big)^2

    with `ops.filters.wide_gaussian_blur` for the Gaussian and `deviation` for std. Detail finer than sigma is
    free.

    Args:
        raw: (1,1,H,W) of the model that learns; half precision is upcast.
        initial: (1,1,H,W) of the starting model.
        scale: sigma as a share of the shorter side.

    Raises:
        ValueError: the sizes differ.
    """
    change = (_like(raw, initial) - initial) / deviation(initial)
    return wide_gaussian_blur(change, scale * min(initial.shape[-2:])).square().mean()


def _like(raw: Tensor, other: Tensor) -> Tensor:
    """Return a raw output in the precision of another one of its size."""
    if raw.shape != other.shape:
        raise ValueError(f"the raw outputs must have one shape, got {tuple(raw.shape)}, {tuple(other.shape)}")
    return raw.to(other.dtype)
