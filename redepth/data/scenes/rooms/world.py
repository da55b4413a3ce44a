"""A finished stage as arrays, and what rays meet in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.data.scenes.rooms.curved import CURVED, trace
from redepth.data.scenes.rooms.field import meet
from redepth.data.scenes.rooms.solids import NORMALS, SOLIDS, unit
from redepth.data.scenes.rooms.stage import Stage, Thing

FIELD_STEPS, ROUGH_FIELD_STEPS = 28, 10
"""Steps along the camera's rays, and along rays that only look for shadows."""


@dataclass(frozen=True)
class Group:
    """Things of one kind: their numbers, and their coordinates as (N, K, 3, 3), (N, K, 3), (N, K, F)."""

    kind: str
    numbers: Tensor
    inward: Tensor
    centre: Tensor
    form: Tensor


class World:
    """Things of N scenes, in groups of one kind."""

    def __init__(self, stage: Stage) -> None:
        self.things, self.field = stage.things, stage.field
        kinds = dict.fromkeys(thing.kind for thing in stage.things)
        self.groups = [_group(kind, stage.things) for kind in kinds]
        every = _group(None, stage.things)
        self.inward, self.centre, self.form = every.inward, every.centre, [t.form for t in stage.things]

    def nearest(
        self, o: Tensor, d: Tensor, low: float, limit: float, *, walls: bool = True, rough: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return t and the number of the first thing on rays o + t d, (N, 3, P or 1) and (N, 3, P).

        Args:
            o: origins.
            d: directions of any length.
            low: t before which nothing is met.
            limit: t from which on nothing is met.
            walls: whether shells are met.
            rough: whether a field may be missed where it is thin.

        Returns:
            t (N, P), infinity where there is nothing, and the number of the thing (N, P), -1 there.
        """
        best = d.new_full((len(d), d.shape[-1]), limit)
        which = torch.full_like(best, -1, dtype=torch.long)
        for group in self.groups:
            if group.kind == "shell" and not walls:
                continue
            t, place = self._meet(group, o, d, best, low, rough)
            closer = t < best
            best = torch.where(closer, t, best)
            which = torch.where(closer, group.numbers[place], which)
        return torch.where(which < 0, torch.inf, best), which

    def _meet(
        self, group: Group, o: Tensor, d: Tensor, best: Tensor, low: float, rough: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the smallest t of a group and the place of its thing in it."""
        if group.kind == "field":
            t = meet(self.field, o.expand_as(d), d, best, low, ROUGH_FIELD_STEPS if rough else FIELD_STEPS)
            return t, torch.zeros_like(t, dtype=torch.long)
        if group.kind == "ground":
            t = -o[:, 1] / torch.where(d[:, 1].abs() < 1e-9, 1e-9, d[:, 1])
            return torch.where(t > low, t, torch.inf), torch.zeros_like(t, dtype=torch.long)
        inward = group.inward.flatten(1, 2)
        shape = (group.inward.shape[1], 3)
        shift = torch.einsum("nkij,nkj->nki", group.inward, group.centre)[..., None]
        start = (inward @ o).unflatten(1, shape) - shift
        along = (inward @ d).unflatten(1, shape)
        if group.kind in CURVED:
            t = _trace(group, start, along, best, low)
        else:
            near, far = SOLIDS["box" if group.kind == "shell" else group.kind](start, along)
            if group.kind == "shell":
                t = torch.where((far > low) & (far >= near), far, torch.inf)
            else:
                t = torch.where((near > low) & (near <= far), near, torch.inf)
        return t.min(dim=1)

    def normals(self, p: Tensor, which: Tensor) -> Tensor:
        """Return the unit normals (N, 3, P) of things at points of them; (0, 1, 0) where there is none."""
        flat = which.flatten()
        rows = torch.arange(len(which)).repeat_interleave(which.shape[1])
        points = p.transpose(1, 2).reshape(-1, 3)
        found = torch.zeros_like(points)
        found[:, 1] = 1.0
        for group in self.groups:
            if group.kind == "ground":
                continue
            if group.kind == "field":
                outward = self.field.normals(p).transpose(1, 2).reshape(-1, 3)
                found = torch.where((flat == group.numbers[0])[:, None], outward, found)
                continue
            of_kind = torch.zeros(len(self.things) + 1, dtype=torch.bool)
            of_kind[group.numbers] = True
            at = torch.nonzero(of_kind[flat] & (flat >= 0))[:, 0]
            if len(at) == 0:
                continue
            inward = self.inward[rows[at], flat[at]]
            local = torch.einsum("mij,mj->mi", inward, points[at] - self.centre[rows[at], flat[at]])
            if group.kind in CURVED:
                place = torch.searchsorted(group.numbers, flat[at])
                outward = CURVED[group.kind][1](local, group.form[rows[at], place])
            else:
                outward = NORMALS[group.kind](local)
            if group.kind == "shell":
                outward = -outward
            # Normals go to the world by the inverse transpose of the map there: by that of `inward` itself.
            found[at] = torch.einsum("mij,mi->mj", inward, outward)
        return unit(found, dim=-1).view(len(which), -1, 3).transpose(1, 2)


def _group(kind: str | None, things: list[Thing]) -> Group:
    """Stack the things of a kind, or all of them."""
    numbers = [i for i, thing in enumerate(things) if kind in (None, thing.kind)]
    chosen = [things[i] for i in numbers]
    half = torch.stack([t.half for t in chosen], dim=1)
    inward = torch.stack([t.turn for t in chosen], dim=1).mT / half[..., None]
    centre = torch.stack([t.centre for t in chosen], dim=1)
    form = torch.stack([t.form for t in chosen], dim=1) if kind in CURVED else half[..., :0]
    return Group(kind or "", torch.tensor(numbers), inward, centre, form)


def _trace(group: Group, o: Tensor, d: Tensor, best: Tensor, low: float) -> Tensor:
    """Return t (N, K, P) of curved things."""
    count, k, _, pixels = d.shape
    rays = (count, k, pixels, 3)
    origin, along = (v.transpose(2, 3).expand(rays).reshape(-1, 3) for v in (o, d))
    form = group.form[:, :, None].expand(count, k, pixels, -1).reshape(len(along), -1)
    limit = best[:, None].expand(count, k, pixels).reshape(-1)
    return trace(CURVED[group.kind][0], origin, along, form, limit, low).view(count, k, pixels)
