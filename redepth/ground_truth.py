"""The ground truth of a photo that a refinement is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import io, protocols
from redepth.contracts import Invariance, Predicts
from redepth.data.datasets import Sample
from redepth.errors import ConfigError
from redepth.metrics import Evaluation, LeftOut, evaluate, known_map
from redepth.protocols import EvaluationProtocol, load_protocol

WHOLE_PIXELS = 25_000_000
"""Of a map with more pixels, every k-th row and column is measured."""

PHOTO_PROTOCOL = "photo"
"""The protocol that measures a result as its files hold it, at the photo's size."""

MEASURED_PIXELS = 8_000_000
"""How many pixels of such a map are measured at most: each takes about 100 bytes of memory."""

Array = NDArray[np.float32]


@cache
def _photo_protocol() -> EvaluationProtocol:
    return load_protocol(PHOTO_PROTOCOL)


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of a photo, for metrics.

    Args:
        values: (H, W), the photo's size; unknown where 0, negative, not finite or a no-hit value
            (`redepth.metrics.stored_no_hits`, `redepth.metrics.beyond_gap`).
        kind: whether the values are depth or disparity (in any unit).
        mask: (H, W) bool, where to measure; None is wherever it is known.
        hashes: what identifies it in the run record, such as the SHA-256 of its file.
        protocol: how to measure. ``photo`` measures maps of the photo's size; the others measure the
            network's output, as ``redepth bench`` does. Truth is in metres where a protocol has a range.
    """

    values: Array
    kind: Predicts = "depth"
    mask: NDArray[np.bool_] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    protocol: EvaluationProtocol = field(default_factory=_photo_protocol)

    def check(self, height: int, width: int) -> None:
        """Raise InputError unless a photo of this size can be measured against it.

        Raises:
            ConfigError: the protocol crops the photo, or needs a metric model.
        """
        for name, array in (("ground truth", self.values), ("mask", self.mask)):
            if array is not None:
                io.check_size(name, array.shape, height, width)
        # Measure the ground truth against itself, so that an unusable one fails here.
        if self.at_photo_size:
            self.measure(self.depth.numpy(), "depth")
        else:
            check_protocol(self.protocol)
            self.measure_output(self.depth, "depth", "affine")

    @property
    def at_photo_size(self) -> bool:
        """Whether it measures maps of the photo's size (`measure`), or the network's output."""
        return self.protocol == _photo_protocol()

    def measure(
        self, raw: NDArray[Any], predicts: Predicts, unknown: NDArray[np.bool_] | None = None
    ) -> Evaluation:
        """Measure a raw output, (H, W) or already every `every`-th pixel of it, by the protocol ``photo``.

        Nothing is measured where the output is ``unknown``, (H, W).
        """
        depth = self.depth
        sampled = raw if raw.shape == depth.shape else raw[:: self.every, :: self.every]
        mask = None if self.mask is None else self._sampled(self.mask)
        if unknown is not None:
            known = ~self._sampled(unknown)
            mask = known if mask is None else mask & known
            sampled = np.nan_to_num(sampled)
        evaluation = evaluate(
            torch.from_numpy(np.ascontiguousarray(sampled)),
            depth,
            None if mask is None else torch.from_numpy(mask),
            predicts=predicts,
        )
        return replace(evaluation, protocol=PHOTO_PROTOCOL)

    def measure_output(
        self,
        raw: Tensor,
        predicts: Predicts,
        invariance: Invariance,
        unknown: NDArray[np.bool_] | None = None,
    ) -> Evaluation:
        """Measure the network's output, (h, w), by another protocol than ``photo``.

        Nothing is measured where the output is ``unknown``, (H, W).
        """
        mask = self.mask
        if unknown is not None:
            mask = ~unknown if mask is None else mask & ~unknown
        limits = self.protocol.range
        sample = Sample(
            "ground truth",
            photo=np.zeros((1, 1, 3), np.float32),
            truth=np.asarray(self.values),
            kind=self.kind,
            unit="relative" if limits.near is None and limits.far is None else "m",
            mask=mask,
        )
        measured = protocols.measure(self.protocol, raw, sample, predicts=predicts, invariance=invariance)
        row = measured.row
        return Evaluation(row.metrics, measured.depth, row.clipped, self.protocol.name, measured.cautions)

    @property
    def every(self) -> int:
        """1, or of more than `WHOLE_PIXELS` pixels the distance of the rows and columns that are measured.

        At most `MEASURED_PIXELS` are left.
        """
        pixels = self.values.size
        return 1 if pixels <= WHOLE_PIXELS else math.ceil(math.sqrt(pixels / MEASURED_PIXELS))

    def reduced(self, factor: int) -> NDArray[np.float64]:
        """Return every factor-th row and column as depth, 0 where unknown."""
        return known_map(np.asarray(self.values)[::factor, ::factor], self.kind)[0]

    def _sampled(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array[:: self.every, :: self.every])

    @property
    def depth(self) -> Tensor:
        """The ground truth as depth, (H, W), of every `every`-th row and column; 0 where unknown."""
        return self._known[0]

    @property
    def left_out(self) -> LeftOut:
        """What of it is not measured, and why."""
        return self._known[1]

    @cached_property
    def _known(self) -> tuple[Tensor, LeftOut]:
        mask = None if self.mask is None else self._sampled(self.mask)
        depth, left_out = known_map(self._sampled(np.asarray(self.values)), self.kind, mask)
        return torch.from_numpy(depth), left_out


def with_offset(disparity: Array, offset: float) -> Array:
    r"""Return a stereo disparity as a multiple of inverse depth, where it is known.

    .. math:: 1 / Z \propto d + d_\text{offs}

    The principal points of two rectified cameras may differ by d_offs pixels, as in the Middlebury data set
    of 2014. Then the disparity d alone is not proportional to inverse depth.

    Args:
        disparity: (H, W), unknown where it is not finite or not positive.
        offset: d_offs in pixels.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    return np.where(known, disparity + np.float32(offset), disparity).astype(np.float32, copy=False)


def check_protocol(protocol: EvaluationProtocol) -> None:
    """Raise ConfigError unless a single refined photo can be measured by a protocol."""
    if protocol.crop is not None:
        raise ConfigError(
            f"protocol {protocol.name} crops a photo before it is refined: measure it with redepth bench"
        )
    affine = ("affine-disparity", "affine-depth", "affine-disparity-then-depth")
    for method in (protocol.alignment.disparity, protocol.alignment.depth):
        if method not in affine:
            raise ConfigError(
                f"protocol {protocol.name} aligns by '{method}', which finds no shift: measure it with "
                "redepth bench and a metric model"
            )
