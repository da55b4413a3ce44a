"""Objectives without ground truth, added to the prior's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from redepth.contracts import Objective, Surface
from redepth.guidance import Anchors, NormalMap, Planes, Previous
from redepth.ops.color import luma, srgb_to_linear
from redepth.ops.constants import constant
from redepth.ops.geometry import normals_from_depth
from redepth.registry import Registry

REGISTRY = Registry("objective", "redepth.objectives", Objective)
REGISTRY.add(
    "smoothness",
    "redepth.optim.objectives:Smoothness",
    "mean |Laplacian| of the min-max normalised raw output (the paper's)",
)
REGISTRY.add(
    "sky",
    "redepth.optim.objectives:Sky",
    "mean nearness inside the sky: keeps it far (not the paper's)",
)

REGISTRY.add(
    "dark-smoothness",
    "redepth.optim.objectives:DarkSmoothness",
    "smoothness where the photo is too dark to show shading (not the paper's)",
)
REGISTRY.add(
    "anchors",
    "redepth.optim.objectives:KnownPoints",
    "robust relative distance to known points, edges and hidden points aside (not the paper's)",
)

REGISTRY.add(
    "normals",
    "redepth.optim.objectives:KnownNormals",
    "1 - cosine to a map of normals (not the paper's)",
)
REGISTRY.add(
    "planes",
    "redepth.optim.objectives:KnownPlanes",
    "relative distance of given regions to their planes (not the paper's)",
)

REGISTRY.add(
    "temporal",
    "redepth.optim.objectives:Temporal",
    "distance to the last frame's answer, carried along the motion; for clips (not the paper's)",
)

MANY_POINTS = 10.0
"""The number of known points that pull half as much as very many."""

register = REGISTRY.register

GUIDE_WEIGHTS = {"anchors": 1.0, "normals": 1.0, "planes": 10.0, "temporal": 0.001}
"""The weights of the objectives of given data where the preset does not set them."""


def laplacian(values: Tensor) -> Tensor:
    """5-point Laplacian of (B, 1, H, W), zero padding, unit spacing."""
    kernel = constant((0.0, 1.0, 0.0, 1.0, -4.0, 1.0, 0.0, 1.0, 0.0), values)
    return F.conv2d(values, kernel.view(1, 1, 3, 3), padding=1)


def normalize_range(values: Tensor) -> Tensor:
    """Map each row to [0, 1] by its own detached minimum and maximum; a constant row becomes 0."""
    flat = values.detach().flatten(1)
    low = flat.amin(dim=1).view(-1, 1, 1, 1)
    span = flat.amax(dim=1).view(-1, 1, 1, 1) - low
    return torch.where(span > 0, (values - low) / torch.where(span > 0, span, 1.0), 0.0)


@dataclass(kw_only=True, eq=False)
class Smoothness:
    r"""Mean absolute Laplacian of the raw output D.

    .. math:: \mathcal{L} = \frac{1}{HW} \sum \left| \nabla^2 \frac{D - \min D}{\max D - \min D} \right|

    with detached minimum and maximum and zero padding (so the border counts, as in the paper's
    implementation). 0 for a constant D. Source: arXiv 2512.17908.
    """

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        return laplacian(normalize_range(surface.raw)).abs().mean(dim=(1, 2, 3))


@dataclass(kw_only=True, eq=False)
class DarkSmoothness:
    r"""Mean absolute Laplacian of the raw output D where the photo is dark.

    .. math:: \mathcal{L} = \frac{1}{HW} \sum e^{-Y / \tau}
        \left| \nabla^2 \frac{D - \min D}{\max D - \min D} \right|

    over the pixels inside the border, with the luma Y of the linear photo. Re-lit black stays black, whatever
    the surface: there the prior gives no gradient, and the decoder, which learns from the bright parts, draws
    patterns of its own. This term makes dark parts smooth. It looks at the photo, so it suits a renderer that
    lights the photo's own colours. 0 for an affine D.

    Args:
        darkness: tau, the luma at which a pixel's weight is 1 / e.
    """

    darkness: Annotated[float, Field(ge=1e-4, le=10)] = 0.05

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        dark = torch.exp(-luma(srgb_to_linear(surface.image)) / self.darkness)
        # Beyond the border nothing is known: zeros there would pull a dark border to the farthest level.
        bends = (dark * laplacian(normalize_range(surface.raw)).abs())[..., 1:-1, 1:-1]
        return bends.sum(dim=(1, 2, 3)) / surface.raw[0].numel()


@dataclass(kw_only=True, eq=False)
class Sky:
    r"""Mean nearness inside the sky, above a tolerance.

    .. math:: \mathcal{L} = \frac{1}{|S|} \sum_S \max(0, n - \tau), \qquad
        n = \frac{D - \min D}{\max D - \min D}

    over the sky S, for a disparity D; a depth is negated first. Minimum and maximum are detached: the sky
    moves to the farthest level, the rest gets no gradient. 0 without sky and for a constant D. The paper does
    not say how to keep geometry out of the sky; this term is an addition of redepth.

    Args:
        tolerance: tau, the nearness without cost, in [0, 1).
    """

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        if surface.sky is None:
            return surface.raw.new_zeros(len(surface.raw))
        near = normalize_range(surface.raw if surface.predicts == "disparity" else -surface.raw)
        excess = (near - self.tolerance).clamp(min=0) * surface.sky
        return excess.sum(dim=(1, 2, 3)) / surface.sky.sum().clamp(min=1)


@dataclass(kw_only=True, eq=False)
class KnownPoints:
    r"""Mean robust distance of the surface to known points, such as of LiDAR.

    .. math:: \mathcal{L} = \frac{\sum_i w_i \ln(1 + (e_i / \tau)^2)}{10 + \sum_i w_i}

    Cauchy's loss of the relative depth errors e_i under the scale and shift that fit the frozen prediction to
    the points. On a depth edge a point may match either side; a point behind a nearer one, which may hide it,
    counts a tenth; outliers of the fit do not count, and all count less if it is poor (`guidance.Anchors`).
    Few points, whose noise nothing averages, pull less: 10 points half as much as very many. 0 without
    points.

    Args:
        tolerance: tau, the relative error beyond which a point pulls less.
    """

    tolerance: Annotated[float, Field(ge=1e-4, le=10)] = 0.05

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        anchors = surface.guidance.get(Anchors)
        if anchors is None or anchors.targets is None:
            return surface.raw.new_zeros(len(surface.raw))
        targets = anchors.targets
        errors = targets.errors(surface.raw) / self.tolerance
        return (targets.weight * torch.log1p(errors**2)).sum(dim=1) / (MANY_POINTS + targets.weight.sum())


@dataclass(kw_only=True, eq=False)
class KnownNormals:
    r"""Mean of 1 - cosine between the surface's normals and given ones (`guidance.NormalMap`).

    .. math:: \mathcal{L} = \frac{1}{|K|} \sum_K (1 - n \cdot n^\star)

    over the pixels K whose normal is given; n are those of the relative depth under the photo's camera. 0
    without given normals.

    Args:
        source: ``file``: the normals that are given with the photo; ``marigold``: where none are, a diffusion
            model estimates them from the photo, before the first step.
        checkpoint: of ``marigold``: hub id or local folder of a diffusers ``MarigoldNormalsPipeline``.
        revision: commit, tag or branch of the hub repository.
        steps: number of diffusion steps; None is the checkpoint's default.
        ensemble: number of estimates that are merged.
    """

    source: Literal["file", "marigold"] = "file"
    checkpoint: str = "prs-eth/marigold-normals-v1-1"
    revision: str | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        given = surface.guidance.get(NormalMap)
        if given is None:
            return surface.raw.new_zeros(len(surface.raw))
        normals = normals_from_depth(surface.depth, given.camera)
        missed = (1 - (normals * given.normals).sum(dim=1, keepdim=True)) * given.known
        return missed.sum(dim=(1, 2, 3)) / given.known.sum().clamp(min=1)


@dataclass(kw_only=True, eq=False)
class KnownPlanes:
    r"""Mean relative distance of given regions to their least-squares planes (`guidance.Planes`).

    .. math:: \mathcal{L} = \frac{1}{|P|} \sum_{p \in P} \frac{|v - \Pi_p v|_1}{|v|_1}

    On a plane the inverse depth is affine in the picture's coordinates under a pinhole camera, the depth
    under an orthographic one: v is this quantity in a region p, and :math:`\Pi_p` projects it onto the affine
    functions. The slope of the plane is free. 0 without planes.
    """

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        planes = surface.guidance.get(Planes)
        if planes is None or not planes.regions:
            return surface.raw.new_zeros(len(surface.raw))
        values = (1 / surface.depth if planes.pinhole else surface.depth).flatten(1)
        total = values.new_zeros(len(values))
        for region in planes.regions:
            inside = values[:, region.pixels]
            rest = inside - (inside @ region.basis) @ region.basis.T
            total = total + rest.abs().sum(dim=1) / inside.abs().sum(dim=1).clamp(min=1e-12)
        return total / len(planes.regions)


@dataclass(kw_only=True, eq=False)
class Temporal:
    r"""Mean distance to the last frame's answer (`guidance.Previous`).

    .. math:: \mathcal{L} = \frac{1}{S |V|} \sum_V |D - W D_{-1}|

    over the pixels V that the last frame shows too, with the answer W D_{-1} carried along the motion between
    the frames, and its standard deviation S there. 0 without a last frame.
    """

    def __call__(self, surface: Surface) -> Tensor:
        """Return one value per member, (B,)."""
        previous = surface.guidance.get(Previous)
        if previous is None:
            return surface.raw.new_zeros(len(surface.raw))
        missed = (surface.raw - previous.answer).abs() * previous.valid
        return missed.sum(dim=(1, 2, 3)) / (previous.spread * previous.valid.sum().clamp(min=1))
