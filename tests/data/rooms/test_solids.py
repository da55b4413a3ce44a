from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from redepth.data.scenes.rooms import curved, field, solids
from tests.support.helpers import seeded

EXACT = torch.float64


def inside(kind: str, p: Tensor) -> Tensor:
    """Whether points (..., 3) are inside of the unit solid, from its definition."""
    x, y, z = p.unbind(-1)
    ring = torch.hypot(x, z)
    return {
        "box": p.abs().amax(-1) <= 1,
        "ball": p.norm(dim=-1) <= 1,
        "cylinder": (ring <= 1) & (y.abs() <= 1),
        "cone": (ring <= (1 - y) / 2) & (y.abs() <= 1),
    }[kind]


def rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from a ball of radius 3 to points near the origin, (count, 3) each, not of unit length."""
    generator = seeded(seed)
    start = torch.randn(count, 3, generator=generator, dtype=EXACT)
    start = 3 * start / start.norm(dim=-1, keepdim=True)
    towards = torch.rand(count, 3, generator=generator, dtype=EXACT) * 2.4 - 1.2
    return start, (towards - start) * (0.2 + torch.rand(count, 1, generator=generator, dtype=EXACT))


def interval(kind: str, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    near, far = solids.SOLIDS[kind](o.T[None, None], d.T[None, None])
    return near[0, 0], far[0, 0]


@pytest.mark.parametrize("kind", solids.SOLIDS)
def test_rays_are_inside_between_the_two_ends_and_nowhere_else(kind: str) -> None:
    o, d = rays(400)
    near, far = interval(kind, o, d)
    t = torch.linspace(0, 30, 6001, dtype=EXACT)
    points = o[:, None] + t[:, None] * d[:, None]
    expected = inside(kind, points)
    found = (t >= near[:, None]) & (t <= far[:, None])
    # Samples next to an end may fall on either side of it by rounding.
    at_an_end = ((t - near[:, None]).abs() < 1e-6) | ((t - far[:, None]).abs() < 1e-6)
    assert torch.equal(found | at_an_end, expected | at_an_end)
    assert 0.2 < expected.any(dim=1).double().mean() < 1


@pytest.mark.parametrize("kind", solids.SOLIDS)
def test_normals_face_outwards_at_right_angles_to_the_surface(kind: str) -> None:
    o, d = rays(300, seed=1)
    near, far = interval(kind, o, d)
    hit = near < far - 1e-3
    p = (o + near[:, None] * d)[hit]
    n = solids.NORMALS[kind](p)
    n = n / n.norm(dim=-1, keepdim=True)
    assert inside(kind, p - 1e-4 * n).double().mean() > 0.98
    assert not inside(kind, p + 1e-4 * n).any()
    # Around the point, the surface is in the plane that the normal says: two rays nearby end in it.
    for axis in torch.eye(3, dtype=EXACT):
        nearby, _ = interval(kind, o[hit] + 1e-6 * axis, d[hit])
        step = (o[hit] + 1e-6 * axis + nearby[:, None] * d[hit] - p) / 1e-6
        flat = (step * n).sum(-1).abs() < 1e-3
        assert flat.double().mean() > 0.98


FORMS: dict[str, Callable[[int], Tensor]] = {
    "torus": lambda count: 0.15 + 0.3 * torch.rand(count, 1, generator=seeded(2), dtype=EXACT),
    "superquadric": lambda count: 1.2 + 6 * torch.rand(count, 2, generator=seeded(3), dtype=EXACT),
    "blob": lambda count: torch.rand(count, 16, generator=seeded(4), dtype=EXACT) * 0.4 + 0.1,
}


@pytest.mark.parametrize("kind", curved.CURVED)
def test_traced_points_are_on_the_surface_and_nothing_is_before_them(kind: str) -> None:
    shape, _ = curved.CURVED[kind]
    o, d = rays(300, seed=5)
    form = FORMS[kind](len(o))
    t = curved.trace(shape, o, d, form, torch.full((len(o),), torch.inf, dtype=EXACT), 0.0)
    hit = torch.isfinite(t)
    assert 0.2 < hit.double().mean() < 1
    assert shape(o[hit] + t[hit, None] * d[hit], form[hit]).abs().max() < 5e-4
    for share in torch.linspace(0, 0.995, 60, dtype=EXACT):
        assert (shape(o[hit] + share * t[hit, None] * d[hit], form[hit]) > -1e-6).all()


@pytest.mark.parametrize("kind", curved.CURVED)
def test_what_is_missed_is_nowhere_inside(kind: str) -> None:
    shape, _ = curved.CURVED[kind]
    o, d = rays(300, seed=6)
    form = FORMS[kind](len(o))
    t = curved.trace(shape, o, d, form, torch.full((len(o),), torch.inf, dtype=EXACT), 0.0)
    missed = torch.isinf(t)
    least = torch.full_like(t, torch.inf)
    for step in torch.linspace(0, 20, 2000, dtype=EXACT):
        least = torch.minimum(least, shape(o + step * d, form))
    # A ray that grazes the surface may need more steps than there are.
    assert (least[missed] < -2e-2).double().mean() < 0.01


@pytest.mark.parametrize("kind", curved.CURVED)
def test_normals_of_curved_things_are_the_gradient(kind: str) -> None:
    shape, normal = curved.CURVED[kind]
    p = (torch.rand(200, 3, generator=seeded(7), dtype=EXACT) * 2 - 1).requires_grad_(True)
    form = FORMS[kind](200)
    (gradient,) = torch.autograd.grad(shape(p, form).sum(), p)
    cosine = torch.nn.functional.cosine_similarity(gradient, normal(p.detach(), form))
    assert cosine.min() > 1 - 1e-6


def test_a_limit_ends_the_search() -> None:
    o, d = torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    form = torch.tensor([[2.0, 2.0]])
    for limit, expected in ((1.9, torch.inf), (2.1, 2.0)):
        found = curved.trace(curved.superquadric, o, d, form, torch.tensor([limit]), 0.0)
        assert found.item() == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def waves() -> field.Field:
    generator = seeded(8)
    return field.Field(
        torch.tensor([0.1, -0.3], dtype=EXACT),
        0.3 * torch.rand(2, 4, generator=generator, dtype=EXACT),
        4 * torch.rand(2, 4, 2, generator=generator, dtype=EXACT) - 2,
        6 * torch.rand(2, 4, generator=generator, dtype=EXACT),
    )


def test_rays_meet_the_field_where_its_height_is(waves: field.Field) -> None:
    d = torch.rand(2, 3, 500, generator=seeded(9), dtype=EXACT) - 0.5
    d[:, 1] = -0.05 - d[:, 1].abs()
    o = torch.tensor([0.0, 3.0, 0.0], dtype=EXACT).view(1, 3, 1).expand_as(d)
    t = field.meet(waves, o, d, torch.full((2, 500), torch.inf, dtype=EXACT), 0.0, 28)
    assert torch.isfinite(t).all()
    assert waves.above(o + t[:, None] * d).abs().max() < 1e-5
    for share in (0.5, 0.8, 0.95):
        assert (waves.above(o + share * t[:, None] * d) > 0).double().mean() > 0.97


def test_normals_of_a_field_are_its_gradient(waves: field.Field) -> None:
    p = torch.rand(2, 3, 50, generator=seeded(10), dtype=EXACT).requires_grad_(True)
    (gradient,) = torch.autograd.grad(waves.above(p).sum(), p)
    assert torch.allclose(waves.normals(p.detach()), gradient)
