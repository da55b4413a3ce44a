"""Relative depth, point maps, normals and the resize rule of the depth networks."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops.camera import ORTHOGRAPHIC, Camera, axis, ray_frames
from redepth.ops.constants import constant

ResizeRule = Literal["upper_bound", "lower_bound", "minimal"]

AUTO_SCALE = 7.0
"""The scale s that goes with `auto_unit`, the published one."""

TRUE_SLOPE_DEPTH = 1 / math.tan(math.radians(55.0) / 2)
"""Relative depth at which the orthographic surface, 2 high, has the slopes seen by a camera with a vertical
field of view of 55 degrees: a picture plane at distance z is 2 z tan(55 / 2) high."""

EPSILON = 1e-8
"""Beside the length of an orthographic normal, as in the released code of arXiv 2512.17908."""

NEAR_SHARE = 0.25
"""The share of pixels that `auto_unit` counts as near."""


def relative_depth(
    raw: Tensor,
    *,
    predicts: Literal["disparity", "depth"] = "disparity",
    scale: float = 7.0,
    margin: float = 0.1,
    offset: Tensor | float = 0.0,
) -> Tensor:
    r"""Turn a network's raw output into relative depth z, larger is farther.

    .. math:: z = (s + \tanh o) / (D + m) \quad\text{or}\quad z = (s + \tanh o) \, D

    for disparity D and for depth D. Relative depth is depth up to an unknown scale. The scale s sets how
    steep the surface is for a renderer with an orthographic camera.

    Args:
        raw: (B, 1, H, W), the disparity or depth, >= 0.
        predicts: what ``raw`` is.
        scale: s.
        margin: m, keeps the farthest points (D = 0) finite; unused for depth.
        offset: o, learnable, one scalar or (B, 1, 1, 1).

    Returns:
        (B, 1, H, W), positive wherever ``raw`` is a valid output.

    Source: Re-Depth Anything (arXiv 2512.17908), released settings s = 7, m = 0.1.

    >>> relative_depth(torch.full((1, 1, 1, 1), 6.9)).item()
    1.0
    """
    factor = scale + torch.tanh(torch.as_tensor(offset, dtype=raw.dtype, device=raw.device))
    return factor / (raw + margin) if predicts == "disparity" else factor * raw


def auto_unit(
    raw: Tensor, *, predicts: Literal["disparity", "depth"] = "disparity", margin: float = 0.1
) -> float:
    r"""Return the unit k of a raw output: D / k has the range that the published constants are made for.

    .. math:: k = \frac{Q_{3/4}(D)}{s / z_0 - m} \;\text{(disparity)}, \qquad
        k = \frac{s \, Q_{1/4}(D)}{z_0} \;\text{(depth)}

    with quantiles Q over the finite and positive pixels (disparity 0, such as sky, has no scale),
    s = `AUTO_SCALE` and z_0 = `TRUE_SLOPE_DEPTH`. The relative depth of D / k is z_0 at the edge of their
    nearest quarter, so its slopes are true there; with s = 7 and m = 0.1 this is the relative depth of
    D = 3.54 under the published constants. A factor on ``raw`` is a factor on k.

    Args:
        raw: (1, 1, H, W), the first prediction, >= 0.
        predicts: what ``raw`` is.
        margin: m of `relative_depth`.

    Raises:
        ValueError: if no value is finite and positive.
    """
    values = raw.detach()[valid_depth(raw)].float()
    if not values.numel():
        raise ValueError("no value is finite and positive")
    if predicts == "disparity":
        return float(torch.quantile(values, 1 - NEAR_SHARE)) / (AUTO_SCALE / TRUE_SLOPE_DEPTH - margin)
    return float(torch.quantile(values, NEAR_SHARE)) * AUTO_SCALE / TRUE_SLOPE_DEPTH


def point_map(depth: Tensor, camera: Camera = ORTHOGRAPHIC) -> Tensor:
    """Return the points (B, 3, H, W) of a depth map (B, 1, H, W): x right, y up, z away from the camera."""
    batch, _, height, width = depth.shape
    if camera.spherical:
        return ray_frames(camera, height, width, like=depth)[2] * depth
    u, v = camera.axes(height, width, dtype=depth.dtype, device=depth.device)
    grid = torch.stack([u.expand(height, width), v[:, None].expand(height, width)])
    plane = grid.expand(batch, 2, height, width)
    return torch.cat([plane * depth if camera.pinhole else plane, depth], dim=1)


def valid_depth(depth: Tensor) -> Tensor:
    """Return where a depth is usable: finite and positive (bool, same shape)."""
    return torch.isfinite(depth) & (depth > 0)


def difference(values: Tensor, dim: int) -> Tensor:
    """Central differences inside, one-sided at the borders, unit spacing; 0 along a side of length 1."""
    size = values.shape[dim]
    if size == 1:
        return values * 0.0
    first = values.narrow(dim, 1, 1) - values.narrow(dim, 0, 1)
    last = values.narrow(dim, size - 1, 1) - values.narrow(dim, size - 2, 1)
    if size == 2:
        return torch.cat([first, last], dim)
    inner = (values.narrow(dim, 2, size - 2) - values.narrow(dim, 0, size - 2)) / 2
    return torch.cat([first, inner, last], dim)


def normals_from_depth(depth: Tensor, camera: Camera = ORTHOGRAPHIC) -> Tensor:
    r"""Return the unit normals of a relative depth map: x right, y up, z towards the viewer.

    .. math:: n = \frac{c}{\lVert c \rVert + \epsilon}, \qquad
        c = (-\delta_v z_{col},\; -\delta_u z_{row},\; -\delta_u \delta_v)
        \;\text{(orthographic)}, \qquad
        c = (-\delta_v z_{col},\; -\delta_u z_{row},\;
            -(z \delta_u \delta_v + u \delta_v z_{col} + v \delta_u z_{row})) \;\text{(pinhole)}

    .. math:: c = \Big(\frac{r_{col}}{\cos v \, \delta_u},\; \frac{r_{row}}{\delta_v},\; r\Big)
        \;\text{(spherical)}

    which has the direction of the cross product of the surface's derivatives along columns and rows, with
    `difference` as the derivative of z and the camera's pixel pitch delta (delta_v < 0, as rows run
    downwards). The orthographic camera has the paper's epsilon of 1e-8. The others have none: their c is as
    small as the product of the pitches, and n would be shorter than 1. Light directions and view vectors are
    in the same frame.

    The normals of a spherical camera are in the frame of each ray: x along the row, y along the column, z
    along the ray towards the viewer. So each pixel is lit as if the picture were taken of it head on.
    `facing_centre` turns them to one frame. The left and the right edge of a whole turn are neighbours.

    Args:
        depth: (B, 1, H, W) relative depth, or distance r of a spherical camera. Where it is not finite or
            not positive, the normal is (0, 0, -1). A pixel that is not finite also counts as flat (its
            neighbour's own depth) in its neighbours' differences: one NaN does not spread.
        camera: the camera of the depth map.

    Returns:
        (B, 3, H, W) unit vectors. Along a side of length 1 the surface counts as flat.

    Raises:
        ValueError: if ``depth`` is not (B, 1, H, W).
    """
    if depth.dim() != 4 or depth.shape[1] != 1:
        raise ValueError(f"depth must be (B, 1, H, W), got {tuple(depth.shape)}")
    finite = torch.isfinite(depth)
    surface = torch.where(finite, depth, torch.zeros_like(depth))
    u, v = camera.axes(*depth.shape[-2:], dtype=depth.dtype, device=depth.device)
    du, dv = _pitch(camera, u, v)
    z_col, z_row = _slopes(surface, finite, closed=camera.closed)
    if camera.spherical:
        # Per radian: the products of pitches of the other two would vanish near the poles.
        cross = torch.cat([z_col / du, z_row / dv, surface], dim=1)
    else:
        x, y = -dv * z_col, -du * z_row
        area = -dv * du
        facing = surface * area + u * x + v[:, None] * y if camera.pinhole else area.expand_as(depth)
        cross = torch.cat([x, y, facing], dim=1)
    # vector_norm is far slower over so short an axis on a CPU. The bound keeps the root's gradient finite
    # where a vector is 0.
    squares = (cross * cross).sum(dim=1, keepdim=True)
    norm = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
    backwards = -axis(2, cross)
    epsilon = EPSILON if camera.kind == "orthographic" else 0.0
    return torch.where(valid_depth(depth), cross / (norm + epsilon), backwards)


def facing_centre(normals: Tensor, camera: Camera) -> Tensor:
    """Return normals in one frame for the whole picture: x right, y up, z towards the viewer at its centre.

    Those of a spherical camera are turned from the frame of each ray; all others are in that frame already.

    Args:
        normals: (B, 3, H, W) as `normals_from_depth` returns them.
        camera: their camera.
    """
    if not camera.spherical:
        return normals
    right, up, away = ray_frames(camera, *normals.shape[-2:], like=normals)
    x, y, z = normals.split(1, dim=1)
    turned = x * right + y * up - z * away
    return turned * constant((1.0, 1.0, -1.0), turned).view(1, 3, 1, 1)


def _pitch(camera: Camera, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixel pitch along columns and rows, which broadcast to (H, W), of a camera's axes."""
    if camera.spherical:
        turn = 2 * math.pi * (1 + 2 * camera.margin)
        return v.cos()[:, None] * (turn / len(u)), torch.full_like(v, -math.pi / len(v))[:, None]
    # A side of length 1 has no pitch; with any positive one its zero slope is flat.
    du = difference(u, 0) if len(u) > 1 else torch.ones_like(u)
    dv = difference(v, 0) if len(v) > 1 else -torch.ones_like(v)
    return du, dv[:, None]


def _slopes(surface: Tensor, finite: Tensor, *, closed: bool) -> tuple[Tensor, Tensor]:
    """Return the differences along columns and rows; ``closed``: the first and last column are neighbours."""
    # Only eager code on a CPU may look at the data: it would break a compiled graph and stall a GPU. The
    # differences for finite and non-finite pixels alike are right everywhere, and slower.
    may_look = surface.device.type == "cpu" and not torch.compiler.is_compiling()
    clean = may_look and bool(finite.all())
    along_row = difference(surface, -2) if clean else _finite_difference(finite, surface, -2)
    if not closed:
        return difference(surface, -1) if clean else _finite_difference(finite, surface, -1), along_row
    ring, known = (torch.cat([x[..., -1:], x, x[..., :1]], dim=-1) for x in (surface, finite))
    around = difference(ring, -1) if clean else _finite_difference(known, ring, -1)
    return around[..., 1:-1], along_row


def half_turn(vectors: Tensor, dim: int = -1) -> Tensor:
    """Turn vectors by 180 degrees about the viewing axis: (x, y, z) to (-x, -y, z).

    This leads to and from the frame of the authors' implementation (x left, y down, z towards the viewer),
    which arrays recorded from it and the embedded checkpoints are in.

    Args:
        vectors: with three entries along ``dim``.
        dim: the axis of x, y and z.
    """
    shape = [1] * vectors.dim()
    shape[dim] = 3
    return vectors * constant((-1.0, -1.0, 1.0), vectors).view(shape)


def network_size(
    height: int,
    width: int,
    *,
    target: int | tuple[int, int],
    multiple: int,
    rule: ResizeRule = "upper_bound",
) -> tuple[int, int]:
    """Return the (height, width) a depth network resizes a photo to, aspect ratio kept.

    ``upper_bound``: the longer side becomes ``target``; ``lower_bound``: the shorter one does;
    ``minimal``: the side whose scale is nearer to 1. Sides are rounded to the nearest multiple,
    rounded down if that would exceed an upper bound, up if it would fall below a lower one, and are at least
    one multiple. A pair has separate targets for height and width; the rule chooses between their scales.
    """
    target_h, target_w = (target, target) if isinstance(target, int) else target
    scale_h, scale_w = target_h / height, target_w / width
    if rule == "upper_bound":
        scale = min(scale_h, scale_w)
    elif rule == "lower_bound":
        scale = max(scale_h, scale_w)
    else:
        scale = min(scale_h, scale_w, key=lambda s: abs(1 - s))

    def snap(side: int, bound: int) -> int:
        exact = scale * side
        snapped = round(exact / multiple) * multiple
        if rule == "upper_bound" and snapped > bound:
            snapped = int(exact // multiple) * multiple
        if rule == "lower_bound" and snapped < bound:
            snapped = -int(-exact // multiple) * multiple
        return max(snapped, multiple)

    return snap(height, target_h), snap(width, target_w)


def resize(
    image: Tensor, height: int, width: int, *, align_corners: bool = False, antialias: bool = False
) -> Tensor:
    """Resize (B, C, H, W) bilinearly; the depth networks' own preprocessing is not antialiased."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    return F.interpolate(
        image, size=(height, width), mode="bilinear", align_corners=align_corners, antialias=antialias
    )


def resize_into(target: Tensor, image: Tensor) -> None:
    """Write ``resize(image, ..., align_corners=True)`` to a tensor of the wanted size, on the same device."""
    if target.shape == image.shape:
        target.copy_(image)
        return
    torch.ops.aten.upsample_bilinear2d.out(image, list(target.shape[-2:]), True, None, None, out=target)


def _finite_difference(finite: Tensor, surface: Tensor, dim: int) -> Tensor:
    """Difference along ``dim`` that replaces a non-finite neighbour by the pixel itself."""
    size = surface.shape[dim]
    if size == 1:
        return difference(surface, dim)
    step = surface.narrow(dim, 1, size - 1) - surface.narrow(dim, 0, size - 1)
    both = finite.narrow(dim, 1, size - 1) & finite.narrow(dim, 0, size - 1)
    step = torch.where(both, step, torch.zeros_like(step))
    edge = torch.zeros_like(surface.narrow(dim, 0, 1))
    before, after = torch.cat([edge, step], dim), torch.cat([step, edge], dim)
    weight = torch.full_like(surface, 0.5)
    weight.narrow(dim, 0, 1).fill_(1.0)
    weight.narrow(dim, size - 1, 1).fill_(1.0)
    return (before + after) * weight
