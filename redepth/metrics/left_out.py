"""The pixels of a ground truth that are not measured, counted by their reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from redepth.contracts import Predicts
from redepth.metrics.no_hits import beyond_gap, stored_no_hits

LARGE_SHARE = 0.1
"""A range that leaves out more of the known truth than this, or a clip of more pixels, is warned about."""

LARGE_MASK = 0.5
"""A mask that leaves out more of the known truth than this is warned about: a mask of an object is usual."""

RUNAWAY = 10.0
"""Aligned depth beyond this times the greatest ground truth has run away: its disparity was almost 0."""


@dataclass(frozen=True)
class LeftOut:
    """How many pixels of a ground truth are not measured. A pixel counts for the first reason that holds.

    Attributes:
        pixels: all pixels of the ground truth.
        not_finite: NaN and infinities.
        negative: less than 0.
        zero: 0, which means unknown.
        no_hit: a number that means "no hit", see `stored_no_hits` and `beyond_gap`.
        masked: known, outside the mask.
        out_of_range: known, inside the mask, outside the protocol's range.
        out_of_region: the same, in the range, outside the protocol's region.
    """

    pixels: int
    not_finite: int = 0
    negative: int = 0
    zero: int = 0
    no_hit: int = 0
    masked: int = 0
    out_of_range: int = 0
    out_of_region: int = 0

    @classmethod
    def of(
        cls, values: NDArray[np.float32], no_hit: NDArray[np.bool_], mask: NDArray[np.bool_] | None
    ) -> LeftOut:
        """Count the pixels of a stored map (H, W) that no protocol is needed for."""
        finite = np.isfinite(values)
        masked = 0 if mask is None else int((finite & (values > 0) & ~no_hit & ~mask).sum())
        return cls(
            pixels=values.size,
            not_finite=values.size - int(finite.sum()),
            negative=int((finite & (values < 0)).sum()),
            zero=int((values == 0).sum()),
            no_hit=int(no_hit.sum()),
            masked=masked,
        )

    @property
    def known(self) -> int:
        """Number of pixels whose depth is known."""
        return self.pixels - self.not_finite - self.negative - self.zero - self.no_hit

    def record(self) -> dict[str, int]:
        """Return the counts as plain data."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """Return a line for each loss that may be a mistake; zeros alone are usual."""
        lines = []
        reasons = {"no-hit": self.no_hit, "not finite": self.not_finite, "negative": self.negative}
        if any(reasons.values()):
            counts = ", ".join(f"{n} {what}" for what, n in (reasons | {"zero": self.zero}).items() if n)
            lines.append(f"left out of {self.pixels} pixels of the ground truth: {counts}")
        inside = self.known - self.masked
        if self.masked > LARGE_MASK * self.known:
            lines.append(f"the mask leaves out {percent(self.masked, self.known)} of the known ground truth")
        if self.out_of_range > LARGE_SHARE * inside:
            share = percent(self.out_of_range, inside)
            lines.append(
                f"the protocol's range leaves out {share} of the known ground truth: check its unit and scale"
            )
        return lines


def known_map(
    values: NDArray[np.float32], kind: Predicts, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], LeftOut]:
    """Return a stored map (H, W) as depth, 0 where unknown or a no-hit value, and what is not measured.

    The depth is also given outside the mask.

    Raises:
        InputError: it has several magnitudes, see `beyond_gap`.
    """
    known = np.isfinite(values) & (values > 0)
    no_hit = np.zeros(known.shape, dtype=np.bool_)
    if kind == "depth":
        no_hit |= stored_no_hits(values)
    depth = np.where(known & ~no_hit, values, 1.0).astype(np.float64)
    if kind == "disparity":
        np.divide(1.0, depth, out=depth)
    no_hit |= beyond_gap(depth, known & ~no_hit)
    depth[~known | no_hit] = 0.0
    return depth, LeftOut.of(values, no_hit, mask)


def clip_warnings(clipped: float) -> list[str]:
    """Return a line if a large share of the aligned depth had to be clipped."""
    if clipped <= LARGE_SHARE:
        return []
    return [f"the aligned depth had to be clipped at {percent(clipped, 1)} of the measured pixels"]


def runaway_warnings(depth: Tensor, truth: Tensor, mask: Tensor) -> list[str]:
    """Return a line if a few pixels of one image, placed almost at infinity, decide its ``abs_rel``.

    Such a depth is beyond `RUNAWAY` times the greatest truth. Together they are warned about where they are
    more than `LARGE_SHARE` of the sum of |p - t| / t. They were not clipped, so `clip_warnings` does not see
    them.

    Args:
        depth: (H, W) aligned depth, finite inside the mask.
        truth: (H, W) true depth.
        mask: (H, W) bool, the measured pixels; at least one, with known truth.
    """
    p, t = depth[mask].double(), truth[mask].double()
    far = p > RUNAWAY * t.max()
    errors = (p - t).abs() / t
    lost, total = float(errors[far].sum()), float(errors.sum())
    if lost <= LARGE_SHARE * total:
        return []
    return [
        f"depth that ran away decides abs_rel: {int(far.sum())} of {p.numel()} measured pixels are aligned "
        f"to more than {RUNAWAY:g} times the greatest ground truth (up to {float(p.max()):.3g}) and are "
        f"{percent(lost, total)} of it; use a protocol with a cap or with clip: moge-clamp"
    ]


def percent(part: float, of: float) -> str:
    """Return a share in percent, with one digit after the point."""
    return f"{100 * part / of:.1f} %"
