"""The paper's four failure signatures, as numbers: hallucinated edges, over-smoothing, collapse, sky.

Each value is 0 for a refinement that changed nothing and grows with the failure; above its threshold it is
flagged. A preset has thresholds of its own, because presets differ in how much a healthy run changes a map:
``docs/diagnostics.md`` describes how they are chosen. Source of the signatures: the limitations of Re-Depth
Anything (arXiv 2512.17908); the measures are redepth's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
"""Larger maps are shrunk to this longer side first, so that one threshold fits all network sizes."""

THRESHOLDS = {
    "hallucinated_edges": 0.046,
    "over_smoothing": 0.11,
    "collapse_range": 0.71,
    "collapse_entropy": 0.43,
    "collapse_order": 0.54,
    "sky_geometry": 0.25,
}
"""Those of a preset that sets none; the collapse has one for each of its parts."""

MEANINGS = {
    "hallucinated_edges": "share of the refined depth's edges that are new, lie on texture and are supported "
    "neither by the initial depth nor by members that agree on something other than the photo's brightness",
    "over_smoothing": "lost share of the initial depth's fine detail relative to its coarser detail, at the "
    "photo's edges or in its dark regions, whichever lost more",
    "geometry_collapse": "lost share of the initial depth's range, entropy or order, whichever is largest "
    "relative to its threshold",
    "sky_geometry": "how near the nearest tenth of the sky is, from 0 (the farthest level of the refined "
    "depth) to 1 (its nearest level)",
}

REMEDIES = {
    "hallucinated_edges": "lower prior.guidance_scale",
    "over_smoothing": "lower optim.objectives.smoothness.weight",
    "geometry_collapse": "lower optim.learning_rates",
    "sky_geometry": "set optim.objectives.sky.weight=1",
}
"""What to try first."""

ADVICE = {
    "hallucinated_edges": "lower optim.learning_rates or prior.guidance_scale, raise optim.members, or set "
    "optim.blend=agreement",
    "over_smoothing": "lower the weight of optim.objectives.smoothness, or optim.learning_rates",
    "geometry_collapse": "lower optim.learning_rates, or optimize fewer parameters: "
    "optim.parameterization=embeddings",
    "sky_geometry": "set optim.objectives.sky.weight=1, with --sky-mask if the sky is not detected well",
}
"""Everything that may help."""

_DARK = 0.2
"""Luma below which a pixel is in a dark region."""
_SMALLEST_REGION = 0.01
"""Share of the photo below which a region is too small to measure."""


@dataclass(frozen=True)
class Signature:
    """One failure signature of one refinement.

    Attributes:
        name: a key of `MEANINGS`.
        value: >= 0, larger is worse; None if it cannot be measured, and ``note`` says why.
        threshold: the signature is flagged above it.
        part: of several parts with thresholds of their own, the one that the value is of.
        parts: the numbers that the value was computed from; None for one that cannot be measured.
        note: a limitation of the value, if there is one.
        calibrated_for: the preset whose runs the thresholds were chosen on; empty if they were not.
    """

    name: str
    value: float | None
    threshold: float
    part: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""
    calibrated_for: str = ""

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
        """What the value measures."""
        return MEANINGS[self.name]

    @property
    def warning(self) -> str:
        """A short line: the value, and what to try first."""
        value = "not measured" if self.value is None else f"{self.value:.2g}"
        title = f"{self.title} ({self.part})" if self.part else self.title
        uncertain = "" if self.calibrated_for else " (not calibrated for this preset)"
        return f"{title} {value}, above {self.threshold:.2g}: {REMEDIES[self.name]}{uncertain}"

    def record(self) -> dict[str, Any]:
        """Return the signature as plain data."""
        data = asdict(self)
        del data["name"]
        return {**data, "flagged": self.flagged, "meaning": self.meaning, "advice": ADVICE[self.name]}


@dataclass(frozen=True)
class _Maps:
    """The maps that the signatures are measured on, all (., 1, h, w); depths as `nearness`."""

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
    thresholds: Mapping[str, float] = THRESHOLDS,
    calibrated_for: str = "",
) -> dict[str, Signature]:
    """Measure the four signatures of one refinement, name -> `Signature`.

    A scale and shift of all raw outputs change no value. A scale and shift of the refined output alone change
    only the collapse, which compares ranges: the renderer's scale is fixed, so a surface flattened to a tenth
    looks flat to it. Nothing here is random.

    Args:
        photo: (1, 3, h, w) sRGB in [0, 1], any size.
        initial: (1, 1, H, W) raw output of the frozen model.
        members: (M, 1, H, W) raw outputs of the members.
        refined: (1, 1, H, W) the ensemble's output; by default the mean of the members.
        predicts: what the raw outputs are.
        sky: (1, 1, H, W) bool, True where there is sky; by default it is detected (`ops.sky.sky_mask`).
        thresholds: a value for each key of `THRESHOLDS`.
        calibrated_for: the preset whose runs they were chosen on, if they were.

    Raises:
        ValueError: the shapes do not match.
    """
    measured = measure(photo, initial, members, refined=refined, predicts=predicts, sky=sky)
    return {m.name: replace(m.signature(thresholds), calibrated_for=calibrated_for) for m in measured}


@dataclass(frozen=True)
class Measured:
    """What is measured of a signature.

    Attributes:
        name: of the signature.
        values: key of `THRESHOLDS` -> value, >= 0; empty if it cannot be measured.
        parts: numbers that they were computed from.
        note: a limitation.
    """

    name: str
    values: Mapping[str, float]
    parts: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""

    def signature(self, thresholds: Mapping[str, float]) -> Signature:
        """Return the signature with the value that is largest relative to its threshold."""
        if not self.values:
            threshold = thresholds["collapse_range" if self.name == "geometry_collapse" else self.name]
            return Signature(self.name, None, threshold, parts=self.parts, note=self.note)
        key = max(self.values, key=lambda key: self.values[key] / max(thresholds[key], 1e-9))
        part = key.partition("_")[2] if key in _COLLAPSE else ""
        return Signature(self.name, self.values[key], thresholds[key], part, self.parts, self.note)

    @classmethod
    def of_record(cls, name: str, record: Mapping[str, Any]) -> Measured:
        """Return what was measured for the record of a signature (`Signature.record`), to judge it anew.

        Raises:
            LookupError: the record lacks a number; of records that were damaged, also TypeError or
                AttributeError.
        """
        value, parts = record["value"], record["parts"]
        values = {} if value is None else {name: value}
        if name == "geometry_collapse" and values:
            # Maps that are not finite have no parts: they have collapsed in each.
            values = _losses(parts) if parts else dict.fromkeys(_COLLAPSE, value)
        return cls(name, values, parts, record["note"])


def measure(
    photo: Tensor,
    initial: Tensor,
    members: Tensor,
    *,
    refined: Tensor | None = None,
    predicts: Predicts = "disparity",
    sky: Tensor | None = None,
) -> tuple[Measured, ...]:
    """Measure the four signatures without judging them; the arguments are those of `diagnose`.

    Raises:
        ValueError: the shapes do not match.
    """
    refined = members.mean(dim=0, keepdim=True) if refined is None else refined
    _check_shapes(photo, initial, members, refined, sky)
    if not all(bool(torch.isfinite(values).all()) for values in (initial, members, refined)):
        return _not_finite()
    image = geometry.resize(photo.float(), *initial.shape[-2:], antialias=True).clamp(0, 1)
    sky = sky_mask(image, initial, predicts) if sky is None else sky
    small_initial, small_refined = _shrink(initial.float()), _shrink(refined.float())
    maps = _Maps(
        brightness=luma(_shrink(image)),
        before=nearness(small_initial, predicts),
        after=nearness(small_refined, predicts),
        members=_scale_like(_shrink(members.float()), small_refined),
        sky=_shrink(sky.float()) > 0.5,
    )
    return (
        _hallucinated_edges(maps),
        _over_smoothing(maps),
        _geometry_collapse(small_initial, small_refined),
        _sky_geometry(maps),
    )


def _hallucinated_edges(maps: _Maps) -> Measured:
    r"""New edges on texture without support, over all edges of the refined depth.

    .. math:: v = \frac{\sum e \, t \, (1 - a (1 - c))}{\sum |\nabla n|}, \qquad
        e = \max(0, |\nabla n| - \max_r |\nabla n_0|), \quad t = \frac{|\nabla Y|}{|\nabla Y| + 0.02}

    for nearness n, before n_0, luma Y (its gradient in t over 1 % of the shorter side). Agreement a = |d|^2 /
    (|d|^2 + s^2), where d is the change of the gradient and s its standard deviation over the members.
    Copying c is the squared local correlation of d with the gradient of Y: where relief causes the shading,
    brightness follows the slope of the depth; where texture was mistaken for relief, it follows the depth.
    """
    fine, reach = maps.pixels(0.006, 0.5), round(maps.pixels(0.015, 1))
    before, after, texture, members = (
        gradient(gaussian_blur(values, fine))
        for values in (maps.before, maps.after, maps.brightness, maps.members)
    )
    busy = length(texture) * maps.pixels(0.01, 0)
    new = (length(after) - dilate(length(before), reach)).clamp(min=0) * busy / (busy + 0.02)
    copied = _copied(after - before, texture, maps.pixels(0.05, 1))
    single = len(members) == 1
    agreed = torch.ones_like(copied) if single else _agreed(after - before, members)
    total, total_new = float(length(after).sum()), float(new.sum())
    unsupported = float((new * (1 - agreed * (1 - copied))).sum())
    parts = {
        "new_on_texture": total_new / total if total > 0 else 0.0,
        "agreement": None if single else _share_of(new, agreed),
        "copied": _share_of(new, copied),
    }
    note = ""
    if single:
        note = "a single member has no agreement: only edges that copy the photo's brightness count"
    value = unsupported / total if total > 0 else 0.0
    return Measured("hallucinated_edges", {"hallucinated_edges": value}, parts, note)


def _share_of(edges: Tensor, share: Tensor) -> float | None:
    """Return the mean of a share over edges, weighted by their strength; None without edges."""
    total = float(edges.sum())
    return float((edges * share).sum()) / total if total > 0 else None


def _copied(change: Tensor, texture: Tensor, window: float) -> Tensor:
    """Squared local correlation of two gradient fields (1, 2, H, W), (1, 1, H, W) in [0, 1]."""
    products = [(a * b).sum(dim=1) for a, b in ((change, texture), (change, change), (texture, texture))]
    covariance, of_change, of_texture = gaussian_blur(torch.stack(products, dim=1), window).split(1, dim=1)
    return (covariance**2 / (of_change * of_texture).clamp(min=1e-20)).clamp(max=1)


def _agreed(change: Tensor, members: Tensor) -> Tensor:
    """Share of the squared change of gradients that the members have in common, (1, 1, H, W) in [0, 1]."""
    squared = (change**2).sum(dim=1, keepdim=True)
    variance = ((members - members.mean(dim=0)) ** 2).mean(dim=0).sum(dim=0)[None, None]
    return squared / (squared + variance).clamp(min=1e-20)


def _over_smoothing(maps: _Maps) -> Measured:
    r"""Lost share of fine detail in all detail, in the worse of two regions.

    .. math:: v = \max_R \max\Big(0, 1 - \frac{r_R(n)}{r_R(n_0)}\Big), \qquad
        r_R(n) = \frac{\sum_R G_{3\sigma} * |n - G_\sigma * n|}
                     {\sum_R G_{3\sigma} * |G_\sigma * n - G_{12\sigma} * n|}

    for nearness n, before n_0, and Gaussians G, sigma 0.5 % of the shorter side. A refinement that replaces
    detail by other detail, or halves the range, keeps this share; blur lowers it. The regions are the tenth
    of the photo with the strongest edges, and where its luma is below 0.2.
    """
    fine = maps.pixels(0.005, 0.5)
    before, after = (_detail(n, fine) for n in (maps.before, maps.after))
    edge = maps.pixels(0.01, 0.5) / 2
    change = length(gradient(gaussian_blur(maps.brightness, edge))) * maps.pixels(0.01, 0)
    strong = change.flatten().kthvalue(max(1, round(0.9 * change.numel()))).values
    regions = {"edges": (change >= strong) & (change > 0.005), "dark": maps.brightness < _DARK}
    parts = {name: _lost(before, after, region) for name, region in regions.items()}
    losses = [loss for loss in parts.values() if loss is not None]
    if not losses:
        note = "the initial depth has no fine detail at image edges or in dark regions"
        return Measured("over_smoothing", {}, parts, note)
    return Measured("over_smoothing", {"over_smoothing": max(losses)}, parts)


def _detail(near: Tensor, fine: float) -> tuple[Tensor, Tensor]:
    """Return the local strength of the fine and of the coarser detail."""
    smooth, coarse = gaussian_blur(near, fine), gaussian_blur(near, 12 * fine)
    return gaussian_blur((near - smooth).abs(), 3 * fine), gaussian_blur((smooth - coarse).abs(), 3 * fine)


def _lost(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], region: Tensor) -> float | None:
    """Return the lost share of fine detail in a region; None if the region or its detail is too small."""
    if float(region.float().mean()) < _SMALLEST_REGION or float(before[0][region].mean()) < 1e-5:
        return None
    fine, coarse, fine_after, coarse_after = (float(x[region].sum()) for x in (*before, *after))
    return max(0.0, 1 - fine_after * coarse / (coarse_after * fine)) if coarse_after > 0 else 1.0


_COLLAPSE = {
    "collapse_range": "range",
    "collapse_entropy": "entropy",
    "collapse_order": "rank_correlation",
}
"""The thresholds of the collapse, each with the part of the measurement that it judges."""


def _geometry_collapse(before: Tensor, after: Tensor) -> Measured:
    """Loss of range (`spread`), of `entropy` and of order (`rank_correlation`) of the raw output."""
    width = float(spread(before))
    if width == 0:
        return Measured("geometry_collapse", {}, note="the initial depth is constant and cannot collapse")
    parts = {
        "range": float(spread(after)) / width,
        "entropy": entropy(after) / entropy(before),
        "rank_correlation": rank_correlation(before, after),
    }
    return Measured("geometry_collapse", _losses(parts), dict(parts))


def _losses(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the lost share of each part of the collapse, by its threshold."""
    return {key: min(1.0, max(0.0, 1 - parts[part])) for key, part in _COLLAPSE.items()}


def _sky_geometry(maps: _Maps) -> Measured:
    """Mean nearness of the nearest tenth of the sky, without its border, where depth is blurred."""
    border = round(maps.pixels(0.02, 1))
    inside = dilate((~maps.sky).float(), border) == 0
    parts: dict[str, float | None] = {"share": float(maps.sky.float().mean()), "before": None}
    if float(inside.float().mean()) < _SMALLEST_REGION:
        note = "no sky, or too little of it: give a mask if there is sky"
        return Measured("sky_geometry", {}, parts, note)
    parts["before"] = _nearest(maps.before[inside])
    return Measured("sky_geometry", {"sky_geometry": _nearest(maps.after[inside])}, parts)


def _nearest(near: Tensor) -> float:
    return max(0.0, float(near.topk(max(1, near.numel() // 10)).values.mean()))


def _scale_like(members: Tensor, refined: Tensor) -> Tensor:
    """Scale the members as `nearness` scales the refined map; sign and shift do not affect agreement."""
    width = spread(refined)
    return members / torch.where(width > 0, width, 1.0)


def _shrink(values: Tensor) -> Tensor:
    height, width = values.shape[-2:]
    factor = LONGEST / max(height, width)
    if factor >= 1:
        return values
    size = (max(1, round(factor * height)), max(1, round(factor * width)))
    return geometry.resize(values, *size, antialias=True)


def _not_finite() -> tuple[Measured, ...]:
    """Return the signatures of a depth map with NaN or infinities: it has collapsed, the rest is unknown."""
    note = "a depth map is not finite"
    collapsed = dict.fromkeys(_COLLAPSE, 1.0)
    return tuple(
        Measured(name, collapsed if name == "geometry_collapse" else {}, note=note) for name in MEANINGS
    )


def _check_shapes(
    photo: Tensor, initial: Tensor, members: Tensor, refined: Tensor, sky: Tensor | None
) -> None:
    if photo.dim() != 4 or photo.shape[:2] != (1, 3):
        raise ValueError(f"photo must be (1, 3, H, W), got {tuple(photo.shape)}")
    if initial.dim() != 4 or initial.shape[:2] != (1, 1):
        raise ValueError(f"initial must be (1, 1, H, W), got {tuple(initial.shape)}")
    maps = {"members": members[:1], "refined": refined, "sky": initial if sky is None else sky}
    for name, values in maps.items():
        if values.shape != initial.shape:
            raise ValueError(f"{name} must be of size {tuple(initial.shape)}, got {tuple(values.shape)}")
