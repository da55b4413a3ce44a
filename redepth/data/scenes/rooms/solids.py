"""Where rays enter convex solids, in closed form.

A solid is the unit solid of its kind in its own coordinates; rays are given there, p = o + t d, so t is the
same in the world. Each function takes o (N, K, 3, P or 1) and d (N, K, 3, P) and returns the interval of t
inside, two (N, K, P); it is empty (near > far) where the ray misses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-9


def box(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interval inside |x|, |y|, |z| <= 1."""
    inverse = 1 / torch.where(d.abs() < TINY, TINY, d)
    middle, half = -o * inverse, inverse.abs()
    near, far = middle - half, middle + half
    return _largest(near), -_largest(-far)


def _largest(values: Tensor) -> Tensor:
    """Return the largest of the three components; faster than a reduction over so short an axis."""
    x, y, z = values.unbind(2)
    return torch.maximum(torch.maximum(x, y), z)


def ball(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interval inside |p| <= 1."""
    return _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)


def cylinder(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interval inside x^2 + z^2 <= 1, |y| <= 1."""
    (ox, oy, oz), (dx, dy, dz) = o.unbind(2), d.unbind(2)
    near, far = _roots(dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 1)
    low, high = _slab(oy, dy)
    return torch.maximum(near, low), torch.minimum(far, high)


def cone(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interval inside sqrt(x^2 + z^2) <= (1 - y) / 2, |y| <= 1: the tip is up."""
    (ox, oy, oz), (dx, dy, dz) = o.unbind(2), d.unbind(2)
    top, fall = (1 - oy) / 2, -dy / 2
    a = dx * dx + dz * dz - fall * fall
    b = ox * dx + oz * dz - top * fall
    c = ox * ox + oz * oz - top * top
    low, high = _slab(oy, dy)
    a = torch.where(a.abs() < TINY, TINY, a)
    # A steep ray leaves one half of the double cone for the other: the lower half is past its later root
    # if it goes down, before its earlier root if it goes up.
    root = (b * b - a * c).clamp(min=0).sqrt()
    first, last = (
        torch.minimum((-b - root) / a, (-b + root) / a),
        torch.maximum((-b - root) / a, (-b + root) / a),
    )
    missed = (a > 0) & (b * b < a * c)
    near = torch.where(a > 0, first, torch.where(dy < 0, last, -torch.inf))
    far = torch.where(a > 0, last, torch.where(dy < 0, torch.inf, first))
    near = torch.where(missed, torch.inf, near)
    return torch.maximum(near, low), torch.minimum(far, high)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Return unit vectors; `vector_norm` is far slower over so short an axis."""
    return vectors * (vectors * vectors).sum(dim=dim, keepdim=True).clamp(min=1e-20).rsqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(2), b.unbind(2)
    return ax * bx + ay * by + az * bz


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roots of a t^2 + 2 b t + c, a >= 0; infinity and its negative if there are none."""
    square = b * b - a * c
    root, scale = square.clamp(min=0).sqrt(), 1 / a.clamp(min=TINY)
    near = torch.where(square > 0, (-b - root) * scale, torch.inf)
    return near, (root - b) * scale


def _slab(oy: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interval with |y| <= 1."""
    inverse = 1 / torch.where(dy.abs() < TINY, TINY, dy)
    middle, half = -oy * inverse, inverse.abs()
    return middle - half, middle + half


# --- outward normals at points of the surface, in the solid's own coordinates, (M, 3) -------------------


def box_normal(p: Tensor) -> Tensor:
    """Return the axis of the face that the point is on."""
    face = p.abs().argmax(dim=-1, keepdim=True)
    return torch.zeros_like(p).scatter(-1, face, p.gather(-1, face).sign())


def ball_normal(p: Tensor) -> Tensor:
    """Return the point itself."""
    return p


def cylinder_normal(p: Tensor) -> Tensor:
    """Return the normal of the side or of a cap."""
    x, y, z = p.unbind(-1)
    cap = y.abs() > x * x + z * z
    zero = torch.zeros_like(y)
    return torch.where(cap[..., None], torch.stack([zero, y.sign(), zero], -1), torch.stack([x, zero, z], -1))


def cone_normal(p: Tensor) -> Tensor:
    """Return the normal of the side or of the base."""
    x, y, z = p.unbind(-1)
    side = torch.stack([x, (1 - y) / 4, z], -1)
    on_side = (x * x + z * z - ((1 - y) / 2) ** 2).abs() < 2 * (y + 1).abs()
    return torch.where(on_side[..., None], side, p.new_tensor([0.0, -1.0, 0.0]))


Interval = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SOLIDS: dict[str, Interval] = {"box": box, "ball": ball, "cylinder": cylinder, "cone": cone}
NORMALS: dict[str, Callable[[Tensor], Tensor]] = {
    "box": box_normal,
    "shell": box_normal,
    "ball": ball_normal,
    "cylinder": cylinder_normal,
    "cone": cone_normal,
}
