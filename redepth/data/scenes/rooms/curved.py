"""Curved things without a closed form: tori, superquadrics and blobs, by sphere tracing (Hart 1996).

Each is given in its own coordinates by a function f of points (M, 3) and parameters (M, F) that is 0 on the
surface, positive outside, and at most the distance to it: so a ray may go on by f without passing it. Only
rays that meet a thing's bounding ball are traced.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDS, STEPS = 12, 4
"""Rays that have met the surface or left the ball are sorted out after each round of some steps."""

CLOSE = 2e-4
"""A ray has met the surface when f is below this."""

BOUND = 1.6
"""Radius of the bounding ball: that of a superquadric of powers up to 8 is 1.51."""


def torus(p: Tensor, form: Tensor) -> Tensor:
    """Return the distance to a ring around the y axis that reaches to 1; ``form`` is its tube's radius."""
    tube = form[:, 0]
    return torch.hypot(torch.hypot(p[:, 0], p[:, 2]) - (1 - tube), p[:, 1]) - tube


def torus_normal(p: Tensor, form: Tensor) -> Tensor:
    """Return the direction away from the middle of the tube."""
    x, y, z = p.unbind(-1)
    shrink = 1 - (1 - form[:, 0]) / torch.hypot(x, z).clamp(min=1e-6)
    return torch.stack([x * shrink, y, z * shrink], -1)


def superquadric(p: Tensor, form: Tensor) -> Tensor:
    """Return g - 1 with g = (m^b + |y|^b)^(1/b), m = (|x|^a + |z|^a)^(1/a), over its Lipschitz bound.

    ``form`` is a and b, both > 1; both 2 is a ball, large is a box (Barr 1981).
    """
    a, b = form[:, 0], form[:, 1]
    return (_norm(_norm(p[:, 0], p[:, 2], a), p[:, 1], b) - 1) / _lipschitz(a) / _lipschitz(b)


def _norm(x: Tensor, y: Tensor, power: Tensor) -> Tensor:
    x, y = x.abs().clamp(min=1e-6), y.abs().clamp(min=1e-6)
    return (x**power + y**power) ** (1 / power)


def _lipschitz(power: Tensor) -> Tensor:
    return 2 ** (1 / power - 0.5).clamp(min=0)


def superquadric_normal(p: Tensor, form: Tensor) -> Tensor:
    """Return the gradient of g, up to a positive factor."""
    a, b = form[:, 0], form[:, 1]
    x, y, z = p.unbind(-1)
    m = _norm(x, z, a)
    ring = m ** (b - a)
    parts = [
        x.sign() * x.abs() ** (a - 1) * ring,
        y.sign() * y.abs() ** (b - 1),
        z.sign() * z.abs() ** (a - 1) * ring,
    ]
    return torch.stack(parts, -1)


BALLS, SOFT = 4, 0.12


def blob(p: Tensor, form: Tensor) -> Tensor:
    """Return -k log sum exp(-d_i / k) of the distances d_i to four balls; ``form`` has (x, y, z, r) each."""
    return -SOFT * torch.logsumexp(-_to_balls(p, form)[1] / SOFT, dim=-1)


def blob_normal(p: Tensor, form: Tensor) -> Tensor:
    """Return the gradient of `blob`."""
    away, distance = _to_balls(p, form)
    weights = torch.softmax(-distance / SOFT, dim=-1)
    return (weights[..., None] * torch.nn.functional.normalize(away, dim=-1)).sum(dim=1)


def _to_balls(p: Tensor, form: Tensor) -> tuple[Tensor, Tensor]:
    balls = form.view(-1, BALLS, 4)
    away = p[:, None] - balls[..., :3]
    return away, away.square().sum(dim=-1).clamp(min=1e-12).sqrt() - balls[..., 3]


Shape = Callable[[Tensor, Tensor], Tensor]
CURVED: dict[str, tuple[Shape, Shape]] = {
    "torus": (torus, torus_normal),
    "superquadric": (superquadric, superquadric_normal),
    "blob": (blob, blob_normal),
}


def trace(shape: Shape, o: Tensor, d: Tensor, form: Tensor, limit: Tensor, low: float) -> Tensor:
    """Return t (M,) of the first point of the surface on rays o + t d, (M, 3) each; else infinity.

    Args:
        shape: f, at most the distance.
        o: origins in the thing's coordinates.
        d: directions there, of any length.
        form: (M, F) parameters.
        limit: (M,) t from which on nothing is looked for.
        low: t before which nothing is looked for.
    """
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - BOUND**2
    square = b * b - a * c
    root = square.clamp(min=0).sqrt()
    start, end = ((-b - root) / a).clamp(min=low), torch.minimum((root - b) / a, limit)
    found = torch.full_like(start, torch.inf)
    rows = torch.nonzero((square > 0) & (end > start))[:, 0]
    t, end, o, d, form, slow = (v[rows] for v in (start, end, o, d, form, a.rsqrt()))
    for _ in range(ROUNDS):
        if len(rows) == 0:
            break
        for _ in range(STEPS):
            gap = shape(torch.addcmul(o, t[:, None], d), form)
            t = t + gap * slow
        close = (gap < CLOSE) & (t < end)
        found[rows[close]] = t[close]
        keep = torch.nonzero((gap >= CLOSE) & (t < end))[:, 0]
        rows, t, end, o, d, form, slow = (v[keep] for v in (rows, t, end, o, d, form, slow))
    return found
