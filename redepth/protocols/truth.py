"""The ground truth that a protocol measures: what is known, in range and in the region, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.metrics import LeftOut, beyond_gap, stored_no_hits
from redepth.protocols.schema import EvaluationProtocol, Range, Region


@dataclass(frozen=True)
class KnownTruth:
    """A ground truth under a protocol.

    Attributes:
        depth: (H, W) float64, 0 where it is unknown, masked or a no-hit value.
        left_out: what is not measured and why, at this size.
    """

    depth: Tensor
    left_out: LeftOut


def sample_label(protocol: EvaluationProtocol, sample: Sample) -> str:
    """Return how error messages name an image and its protocol."""
    return f"{sample.name} (protocol {protocol.name})"


def known_truth(protocol: EvaluationProtocol, sample: Sample) -> KnownTruth:
    """Return a sample's ground truth under a protocol.

    The range is in metres. In another unit it must not matter, or the numbers would depend on the unit.

    Raises:
        InputError: naming image and protocol: the range matters and the unit is not metres, or the truth has
            several magnitudes (`redepth.metrics.beyond_gap`).
    """
    if sample.no_hit is None and sample.kind == "depth":
        sample = replace(sample, no_hit=stored_no_hits(sample.truth))
    depth = sample.depth()
    known = depth > 0
    inside = in_range(protocol.range, depth) if sample.unit == "m" else known
    try:
        far_off = torch.from_numpy(beyond_gap(depth.numpy(), inside.numpy()))
    except InputError as error:
        raise InputError(f"{sample_label(protocol, sample)}: {error}") from None
    inside, known = inside & ~far_off, known & ~far_off
    if sample.unit != "m":
        inside = in_range(protocol.range, depth) & known
        _check_unit(protocol, sample, int(known.sum() - inside.sum()), int(known.sum()))
    no_hit = far_off.numpy() if sample.no_hit is None else far_off.numpy() | sample.no_hit
    left_out = replace(
        LeftOut.of(sample.truth, no_hit, sample.mask),
        out_of_range=int(known.sum() - inside.sum()),
        out_of_region=int((inside & ~in_region(protocol.region, *depth.shape)).sum()),
    )
    return KnownTruth(torch.where(known, depth, 0.0), left_out)


def in_range(limits: Range, depth: Tensor) -> Tensor:
    """Return where depth is known and within the range, bool of the same shape."""
    inside = depth > (0.0 if limits.near is None else limits.near)
    return inside if limits.far is None else inside & (depth < limits.far)


def in_region(region: Region | None, height: int, width: int) -> Tensor:
    """Return the mask of a region, (H, W) bool; all of it without one."""
    if region is None:
        return torch.ones(height, width, dtype=torch.bool)
    rows, columns = (1, 1) if region.unit == "pixels" else (height, width)
    whole = round if region.unit == "fraction-nearest" else int
    top, bottom = whole(region.top * rows), whole(region.bottom * rows)
    left, right = whole(region.left * columns), whole(region.right * columns)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


def check_unit(protocol: EvaluationProtocol, sample: Sample) -> None:
    """Raise InputError if no image like this can be measured: the protocol clips its depth to metres."""
    if sample.unit != "m":
        _check_unit(protocol, sample, 0, 0)


def _check_unit(protocol: EvaluationProtocol, sample: Sample, outside: int, known: int) -> None:
    """Raise InputError if a range in metres would change the numbers of a truth in an unknown unit."""
    near, far = protocol.range.near, protocol.range.far
    if near is None and far is None:
        return
    clips = protocol.alignment.clip == "range"
    if not outside and not clips:
        return
    why = "clips depth to" if clips else f"leaves out {outside} of {known} known pixels outside"
    raise InputError(
        f"{sample_label(protocol, sample)}: the protocol {why} its range, {_limit(near, 0)} to "
        f"{_limit(far, 'infinity')} m, and the unit of the ground truth is unknown; state metres (for a "
        "folder: --option unit=m, with --option scale= for other units), or use a protocol without a range"
    )


def _limit(value: float | None, none: object) -> str:
    return str(none) if value is None else f"{value:g}"
