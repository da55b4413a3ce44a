"""Refinements that are spoiled on purpose, to measure whether the failure signatures show it.

Two procedural refinements (`relief`, `outdoors`) need no run; the calibration spoils real runs likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.contracts import Predicts
from redepth.data.scenes.canvas import Canvas, with_slope
from redepth.data.scenes.photographs import narrow_photograph
from redepth.data.scenes.relief import BROAD
from redepth.data.scenes.synthetic import Scenes
from redepth.metrics.diagnostics import THRESHOLDS, Measured, Signature, diagnose, measure
from redepth.ops.color import luma
from redepth.ops.filters import gaussian_blur
from redepth.ops.statistics import spread


class Case(NamedTuple):
    """A refinement as `diagnose` takes it."""

    photo: Tensor
    initial: Tensor
    members: Tensor
    sky: Tensor | None = None
    predicts: Predicts = "disparity"
    refined: Tensor | None = None

    def measure(self) -> tuple[Measured, ...]:
        return measure(
            self.photo,
            self.initial,
            self.members,
            refined=self.refined,
            predicts=self.predicts,
            sky=self.sky,
        )

    def diagnose(self, thresholds: Mapping[str, float] = THRESHOLDS) -> dict[str, Signature]:
        return diagnose(
            self.photo,
            self.initial,
            self.members,
            refined=self.refined,
            predicts=self.predicts,
            sky=self.sky,
            thresholds=thresholds,
        )

    @property
    def shorter(self) -> int:
        return min(self.initial.shape[-2:])

    @property
    def relief(self) -> float:
        return float(spread(self.initial))


# --- healthy cases on procedural scenes -----------------------------------------------------------


def relief(seed: int, members: int = 5, side: int = 140) -> Case:
    """A scene whose shading is that of its relief; the members add detail that the initial depth lacks.

    Of fractal relief: it has detail at every scale and no symmetry, so that blur takes something away
    and its mirror image is another surface.
    """
    generator = torch.Generator().manual_seed(seed)
    canvas = Canvas(1, side, side, generator)
    depth = (1 - with_slope(BROAD["fractal"](canvas), canvas.uniform(0.3, 0.7)))[:, None]
    truth = Scenes(narrow_photograph(canvas, depth), depth)
    initial = gaussian_blur(truth.disparity, 0.015 * side)
    return Case(truth.image, initial, _ensemble(0.5 * (initial + truth.disparity), members, generator))


def outdoors(seed: int = 0, members: int = 5, *, blue: bool = True) -> Case:
    """Ground, hills and a clouded sky, which is the truth in ``sky``; 140 x 196."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 140, 196
    v = torch.linspace(0, 1, height)[:, None].expand(height, width)
    u = torch.linspace(0, 1, width).expand(height, width)
    horizon = 0.45 + 0.08 * torch.sin(9 * u + seed) + 0.04 * torch.sin(23 * u)
    sky = v < horizon
    clouds = _noise(1, height, width, 6, generator)[0] * 0.02 + 0.15 * (v - 0.2)
    tint = torch.tensor([0.35, 0.55, 0.85] if blue else [0.8, 0.82, 0.85]).view(3, 1, 1)
    ground = torch.tensor([0.35, 0.33, 0.2]).view(3, 1, 1) + 0.1 * torch.randn(
        1, height, width, generator=generator
    )
    photo = torch.where(sky, tint + clouds, ground).clamp(0, 1)[None]
    disparity = torch.where(sky, 0.0, 0.8 + 6 * (v - horizon))[None, None]
    disparity = disparity + 0.1 * (~sky) * _noise(1, height, width, 20, generator)
    initial = gaussian_blur(disparity, 1.0).clamp(min=0)
    return Case(photo, initial, _ensemble(initial, members, generator).clamp(min=0), sky[None, None])


def _ensemble(mean: Tensor, members: int, generator: Generator) -> Tensor:
    """Members that differ as the embedded preset's do: smoothly, by some 3 % of the spread."""
    height, width = mean.shape[-2:]
    return mean + 0.03 * float(spread(mean)) * _noise(members, height, width, 6, generator)


def _noise(count: int, height: int, width: int, cells: int, generator: Generator) -> Tensor:
    """Smooth noise of about unit variance, (count, 1, height, width)."""
    grid = torch.randn(count, 1, cells, cells, generator=generator)
    return F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)


# --- failures, constructed ------------------------------------------------------------------------


def stamped(case: Case, amount: float) -> Case:
    """The photo's texture pressed into every member, its deviation a share of the depth's spread."""
    return case._replace(members=case.members + amount * case.relief * _texture(case))


def stamped_in_part(case: Case, amount: float) -> Case:
    """The same in the left third of the photo alone."""
    left = torch.arange(case.initial.shape[-1]) < case.initial.shape[-1] // 3
    return case._replace(members=case.members + amount * case.relief * _texture(case) * left)


def stamped_by_each(case: Case, amount: float) -> Case:
    """The texture pressed into each member by another amount, inwards or outwards."""
    strength = torch.linspace(-1, 1, len(case.members)).view(-1, 1, 1, 1)
    return case._replace(members=case.members + amount * case.relief * strength * _texture(case))


def _texture(case: Case) -> Tensor:
    bright = luma(F.interpolate(case.photo, case.initial.shape[-2:], mode="bilinear", antialias=True))
    fine = bright - gaussian_blur(bright, 0.03 * case.shorter)
    return fine / fine.std().clamp(min=1e-6)


def blurred(case: Case, amount: float) -> Case:
    """Every member blurred by a share of the shorter side."""
    return case._replace(members=gaussian_blur(case.members, amount * case.shorter))


def blurred_in_the_dark(case: Case, amount: float) -> Case:
    """The same where the photo is dark alone, without a step at the border of the dark."""
    bright = luma(F.interpolate(case.photo, case.initial.shape[-2:], mode="bilinear", antialias=True))
    dark = gaussian_blur((bright < 0.2).float(), 0.03 * case.shorter)
    return case._replace(members=torch.lerp(case.members, blurred(case, amount).members, dark))


def flattened(case: Case, amount: float) -> Case:
    """The range reduced to a share."""
    mean = case.members.mean(dim=(1, 2, 3), keepdim=True)
    return case._replace(members=mean + amount * (case.members - mean))


def two_planes(case: Case, _: float) -> Case:
    """Near and far only."""
    middle = case.members.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    low, high = case.members.amin(dim=(1, 2, 3), keepdim=True), case.members.amax(dim=(1, 2, 3), keepdim=True)
    return case._replace(members=torch.where(case.members > middle, high, low))


def mirrored(case: Case, _: float) -> Case:
    """Another surface of the same range: the depth upside down."""
    return case._replace(members=case.members.flip(-2))


def bumps_in_the_sky(case: Case, amount: float) -> Case:
    """A bump of a share of the spread in the middle of the sky, a sixth of the shorter side wide."""
    assert case.sky is not None
    rows, columns = case.initial.shape[-2:]
    inside = case.sky[0, 0].nonzero()
    row, column = inside[len(inside) // 2].tolist()
    y, x = torch.arange(rows)[:, None] - row, torch.arange(columns) - column
    bump = torch.exp(-0.5 * (x**2 + y**2) / (0.15 * case.shorter) ** 2)
    return case._replace(members=case.members + amount * case.relief * bump)


class Failure(NamedTuple):
    """A way to spoil a refinement, how much, and the signature that has to show it.

    Attributes:
        key: the threshold that it has to exceed.
        spoil: spoils the members of a case.
        amount: how much.
    """

    key: str
    spoil: Callable[[Case, float], Case]
    amount: float = 0.0

    @property
    def shows(self) -> str:
        """The signature."""
        return "geometry_collapse" if self.key.startswith("collapse_") else self.key

    def fits(self, case: Case) -> bool:
        """Return whether a case can be spoiled so: bumps need a sky."""
        return self.key != "sky_geometry" or (case.sky is not None and bool(case.sky.any()))

    def of(self, case: Case) -> Case:
        """Spoil the members and the joint output of a case alike."""
        spoiled = self.spoil(case, self.amount)
        if case.refined is None:
            return spoiled
        joint = self.spoil(case._replace(members=case.refined), self.amount)
        return spoiled._replace(refined=joint.members)

    @property
    def name(self) -> str:
        amount = f" {100 * self.amount:g} %" if self.amount else ""
        return self.spoil.__name__.replace("_", " ") + amount


FAILURES = (
    Failure("hallucinated_edges", stamped, 0.05),
    Failure("hallucinated_edges", stamped, 0.1),
    Failure("hallucinated_edges", stamped_in_part, 0.1),
    Failure("over_smoothing", blurred, 0.02),
    Failure("over_smoothing", blurred, 0.04),
    Failure("collapse_range", flattened, 0.2),
    Failure("collapse_entropy", two_planes),
    Failure("collapse_order", mirrored),
    Failure("sky_geometry", bumps_in_the_sky, 0.2),
    Failure("sky_geometry", bumps_in_the_sky, 0.4),
)
