"""The paper's four failure signatures, as numbers: hallucinated edges, over-smoothing, collapse, sky.

Each is 0 for a refinement that changed nothing and grows with the failure; above its threshold it is
flagged. How the thresholds were found is in ``docs/diagnostics.md``. Source of the signatures: the
limitations of Re-Depth Anything (arXiv 2512.17908); the measures are redepth's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from redepth.contracts import Predicts
from redepth.ops import geometry
from redepth.ops.color import luma
from redepth.ops.filters import dilate, gaussian_blur, gradient, length
from redepth.ops.sky import sky_mask
from redepth.ops.statistics import entropy, nearness, rank_correlation, spread

LONGEST = 256
"""Larger maps are shrunk to this longer side first, so that one threshold serves all network sizes."""

THRESHOLDS = {
    "hallucinated_edges": 0.02,
    "over_smoothing": 0.2,
    "geometry_collapse": 0.4,
    "sky_geometry": 0.12,
}

MEANINGS = {
    "hallucinated_edges": "share of the refined depth's edges that are new, lie on texture, and are backed "
    "neither by the initial depth nor by members that agree on something else than the photo's brightness",
    "over_smoothing": "share of the initial depth's fine detail that is gone, at the photo's edges or in its "
    "dark regions, whichever lost more",
    "geometry_collapse": "1 minus what is left of the initial depth's range, of its entropy or of its order, "
    "whichever lost most",
    "sky_geometry": "how near the nearest tenth of the sky is, from 0, the farthest level of the refined "
    "depth, to 1, its nearest",
}

ADVICE = {
    "hallucinated_edges": "lower optim.learning_rates or prior.guidance_scale, raise optim.members, or set "
    "optim.blend=agreement",
    "over_smoothing": "lower the weight of optim.objectives.smoothness, or optim.learning_rates",
    "geometry_collapse": "lower optim.learning_rates, or learn less: optim.parameterization=embeddings",
    "sky_geometry": "set optim.objectives.sky.weight=1, with --sky-mask if the sky is not found well",
}

_DARK = 0.2
_FEWEST = 0.01
"""Share of the photo below which a region is too small to measure."""


@dataclass(frozen=True)
class Signature:
    """One failure signature of one refinement.

    Attributes:
        name: a key of `THRESHOLDS`.
        value: >= 0, larger is worse; None where it cannot be measured, and ``note`` says why.
        threshold: above it the signature is flagged.
        parts: the numbers that the value was made of; None where one cannot be measured.
        note: what limits the value, if anything does.
    """

    name: str
    value: float | None
    threshold: float
    parts: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the value is above the threshold."""
        return self.value is not None and self.value > self.threshold

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("over_", "over-").replace("_", " ")

    @property
    def meaning(self) -> str:
        """What the value is, in a sentence."""
        return MEANINGS[self.name]

    @property
    def warning(self) -> str:
        """One line: what was found, what it means and what to do."""
        value = "not measured" if self.value is None else f"{self.value:.2g}"
        return f"{self.title}: {value}, above {self.threshold:g} ({self.meaning}); {ADVICE[self.name]}"

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        data = asdict(self)
        del data["name"]
        return {**data, "flagged": self.flagged, "meaning": self.meaning}


@dataclass(frozen=True)
class _Maps:
    """What the signatures are measured on, all (., 1, h, w); depths as `nearness`."""

    brightness: Tensor
    before: Tensor
    after: Tensor
    members: Tensor
    sky: Tensor

    def pixels(self, share: float, least: float) -> float:
        """Return a share of the shorter side in pixels."""
        return max(least, share * min(self.before.shape[-2:]))


def diagnose(
    photo: Tensor,
    initial: Tensor,
    members: Tensor,
    *,
    refined: Tensor | None = None,
    predicts: Predicts = "disparity",
    sky: Tensor | None = None,
) -> dict[str, Signature]:
    """Measure the four signatures of one refinement, name -> `Signature`.

    Scale and shift that all raw outputs share change nothing. Those of the refined output alone change
    nothing either but for the collapse, which compares ranges: a surface flattened to a tenth is flat to the
    renderer, whose scale is fixed. Nothing here is random.

    Args:
        photo: (1, 3, h, w) sRGB in [0, 1], any size.
        initial: (1, 1, H, W) raw output of the frozen model.
        members: (M, 1, H, W) raw outputs of the members.
        refined: (1, 1, H, W) the ensemble's answer; their mean without it.
        predicts: what the raw outputs are.
        sky: (1, 1, H, W) bool, True where there is sky; None looks for it (`ops.sky.sky_mask`).

    Raises:
        ValueError: if shapes do not fit.
    """
    refined = members.mean(dim=0, keepdim=True) if refined is None else refined
    _check_shapes(photo, initial, members, refined, sky)
    if not all(bool(torch.isfinite(values).all()) for values in (initial, members, refined)):
        return _not_finite()
    image = geometry.resize(photo.float(), *initial.shape[-2:], antialias=True).clamp(0, 1)
    sky = sky_mask(image, initial, predicts) if sky is None else sky
    raw, answer, rows = (_shrunk(values.float()) for values in (initial, refined, members))
    maps = _Maps(
        luma(_shrunk(image)),
        nearness(raw, predicts),
        nearness(answer, predicts),
        _like(rows, answer),
        _shrunk(sky.float()) > 0.5,
    )
    found = (
        _hallucinated_edges(maps),
        _over_smoothing(maps),
        _geometry_collapse(raw, answer),
        _sky_geometry(maps),
    )
    return {signature.name: signature for signature in found}


def _hallucinated_edges(maps: _Maps) -> Signature:
    r"""New edges on texture without support, over all edges of the refined depth.

    .. math:: v = \frac{\sum e \, t \, (1 - a (1 - c))}{\sum |\nabla n|}, \qquad
        e = \max(0, |\nabla n| - \max_r |\nabla n_0|), \quad t = \frac{|\nabla Y|}{|\nabla Y| + 0.02}

    for nearness n, before n_0, luma Y (its gradient in t over 1 % of the shorter side). Agreement a = |d|^2 /
    (|d|^2 + s^2), where d is the change of the gradient and s its standard deviation over the members.
    Copying c is the squared local correlation of d with the gradient of Y: brightness follows the slope of
    the depth where relief makes the shading, and the depth itself where texture was taken for relief.
    """
    fine, reach = maps.pixels(0.006, 0.5), round(maps.pixels(0.015, 1))
    before, after, texture, members = (
        gradient(gaussian_blur(values, fine))
        for values in (maps.before, maps.after, maps.brightness, maps.members)
    )
    busy = length(texture) * maps.pixels(0.01, 0)
    new = (length(after) - dilate(length(before), reach)).clamp(min=0) * busy / (busy + 0.02)
    copied = _copied(after - before, texture, maps.pixels(0.05, 1))
    alone = len(members) == 1
    agreed = torch.ones_like(copied) if alone else _agreed(after - before, members)
    total = float(length(after).sum())
    unsupported = float((new * (1 - agreed * (1 - copied))).sum())
    parts = {
        "new_on_texture": _ratio(float(new.sum()), total) or 0.0,
        "agreement": None if alone else _ratio(float((new * agreed).sum()), float(new.sum())),
        "copied": _ratio(float((new * copied).sum()), float(new.sum())),
    }
    note = "a single member has no agreement: only edges that copy the photo's brightness count" * alone
    return _signature("hallucinated_edges", _ratio(unsupported, total) or 0.0, parts, note)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _copied(change: Tensor, texture: Tensor, window: float) -> Tensor:
    """Squared local correlation of two gradient fields (1, 2, H, W), (1, 1, H, W) in [0, 1]."""
    products = [(a * b).sum(dim=1) for a, b in ((change, texture), (change, change), (texture, texture))]
    cross, own, other = gaussian_blur(torch.stack(products, dim=1), window).split(1, dim=1)
    return (cross**2 / (own * other).clamp(min=1e-20)).clamp(max=1)


def _agreed(change: Tensor, members: Tensor) -> Tensor:
    """Share of the squared change of gradients that the members have in common, (1, 1, H, W) in [0, 1]."""
    squared = (change**2).sum(dim=1, keepdim=True)
    variance = ((members - members.mean(dim=0)) ** 2).mean(dim=0).sum(dim=0)[None, None]
    return squared / (squared + variance).clamp(min=1e-20)


def _over_smoothing(maps: _Maps) -> Signature:
    r"""Fine detail that is gone, over what was there, in the worse of two regions.

    .. math:: v = \max_R \frac{\sum_R \max(0, h_0 - h)}{\sum_R h_0}, \qquad
        h = G_{3\sigma} * |n - G_\sigma * n|

    for nearness n and Gaussians G, sigma 1 % of the shorter side. The regions are the tenth of the photo with
    the strongest edges, and where its luma is below 0.2.
    """
    fine = maps.pixels(0.01, 0.5)
    before, after = (_detail(n, fine) for n in (maps.before, maps.after))
    change = length(gradient(gaussian_blur(maps.brightness, fine / 2))) * maps.pixels(0.01, 0)
    strong = change.flatten().kthvalue(max(1, round(0.9 * change.numel()))).values
    regions = {"edges": (change >= strong) & (change > 0.005), "dark": maps.brightness < _DARK}
    parts = {name: _lost(before, after, region) for name, region in regions.items()}
    losses = [loss for loss in parts.values() if loss is not None]
    if not losses:
        note = "the initial depth has no fine detail at image edges or in dark regions"
        return _signature("over_smoothing", None, parts, note)
    return _signature("over_smoothing", max(losses), parts)


def _detail(near: Tensor, fine: float) -> Tensor:
    return gaussian_blur((near - gaussian_blur(near, fine)).abs(), 3 * fine)


def _lost(before: Tensor, after: Tensor, region: Tensor) -> float | None:
    """Share of the detail in a region that is gone; None where there is too little of either."""
    if float(region.float().mean()) < _FEWEST or float(before[region].mean()) < 1e-4:
        return None
    return float((before - after)[region].clamp(min=0).sum() / before[region].sum())


def _geometry_collapse(before: Tensor, after: Tensor) -> Signature:
    """What is left of range (`spread`), `entropy` and order (`rank_correlation`) of the raw output."""
    width = float(spread(before))
    if width == 0:
        return _signature("geometry_collapse", None, {}, "the initial depth is constant: nothing to lose")
    parts = {
        "range": float(spread(after)) / width,
        "entropy": entropy(after) / entropy(before),
        "rank_correlation": rank_correlation(before, after),
    }
    return _signature("geometry_collapse", 1 - min(1.0, max(0.0, min(parts.values()))), dict(parts))


def _sky_geometry(maps: _Maps) -> Signature:
    """Mean nearness of the nearest tenth of the sky; its border, where depth is blurred, is left out."""
    border = round(maps.pixels(0.02, 1))
    inside = dilate((~maps.sky).float(), border) == 0
    parts: dict[str, float | None] = {"share": float(maps.sky.float().mean()), "before": None}
    if float(inside.float().mean()) < _FEWEST:
        note = "no sky, or too little of it: give a mask if there is some"
        return _signature("sky_geometry", None, parts, note)
    parts["before"] = _nearest(maps.before[inside])
    return _signature("sky_geometry", _nearest(maps.after[inside]), parts)


def _nearest(near: Tensor) -> float:
    return max(0.0, float(near.topk(max(1, near.numel() // 10)).values.mean()))


def _like(members: Tensor, refined: Tensor) -> Tensor:
    """Scale the members as `nearness` scales the refined map; sign and shift change nothing in agreement."""
    width = spread(refined)
    return members / torch.where(width > 0, width, 1.0)


def _shrunk(values: Tensor) -> Tensor:
    height, width = values.shape[-2:]
    factor = LONGEST / max(height, width)
    if factor >= 1:
        return values
    size = (max(1, round(factor * height)), max(1, round(factor * width)))
    return geometry.resize(values, *size, antialias=True)


def _signature(
    name: str, value: float | None, parts: Mapping[str, float | None], note: str = ""
) -> Signature:
    return Signature(name, value, THRESHOLDS[name], dict(parts), note)


def _not_finite() -> dict[str, Signature]:
    note = "a depth map is not finite"
    return {
        name: _signature(name, 1.0 if name == "geometry_collapse" else None, {}, note) for name in MEANINGS
    }


def _check_shapes(
    photo: Tensor, initial: Tensor, members: Tensor, refined: Tensor, sky: Tensor | None
) -> None:
    if photo.dim() != 4 or photo.shape[:2] != (1, 3):
        raise ValueError(f"photo must be (1, 3, H, W), got {tuple(photo.shape)}")
    if initial.dim() != 4 or initial.shape[:2] != (1, 1):
        raise ValueError(f"initial must be (1, 1, H, W), got {tuple(initial.shape)}")
    given = {"members": members[:1], "refined": refined, "sky": initial if sky is None else sky}
    for name, values in given.items():
        if values.shape != initial.shape:
            raise ValueError(f"{name} must be of size {tuple(initial.shape)}, got {tuple(values.shape)}")
