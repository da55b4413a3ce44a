"""The ground truth of a photo that a refinement is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import io
from redepth.contracts import Predicts
from redepth.metrics import Evaluation, LeftOut, evaluate, known_map

WHOLE_PIXELS = 25_000_000
"""Of a map with more pixels, every k-th row and column is measured."""

MEASURED_PIXELS = 8_000_000
"""How many pixels of such a map are measured at most: each takes about 100 bytes of memory."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of a photo, for metrics.

    Args:
        values: (H, W), the photo's size; unknown where 0, negative, not finite or a no-hit value
            (`redepth.metrics.stored_no_hits`, `redepth.metrics.beyond_gap`).
        kind: whether the values are depth or disparity (in any unit).
        mask: (H, W) bool, where to measure; None is wherever it is known.
        hashes: what identifies it in the run record, such as the SHA-256 of its file.
    """

    values: Array
    kind: Predicts = "depth"
    mask: NDArray[np.bool_] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def check(self, height: int, width: int) -> None:
        """Raise InputError unless a photo of this size can be measured against it."""
        for name, array in (("ground truth", self.values), ("mask", self.mask)):
            if array is not None:
                io.check_size(name, array.shape, height, width)
        # Measure the ground truth against itself, so that an unusable one fails here.
        self.measure(self.depth.numpy(), "depth")

    def measure(
        self, raw: NDArray[Any], predicts: Predicts, unknown: NDArray[np.bool_] | None = None
    ) -> Evaluation:
        """Measure a raw output, (H, W) or already every `every`-th pixel of it, by the paper's protocol.

        Nothing is measured where the output is ``unknown``, (H, W).
        """
        depth = self.depth
        sampled = raw if raw.shape == depth.shape else raw[:: self.every, :: self.every]
        mask = None if self.mask is None else self._sampled(self.mask)
        if unknown is not None:
            known = ~self._sampled(unknown)
            mask = known if mask is None else mask & known
            sampled = np.nan_to_num(sampled)
        return evaluate(
            torch.from_numpy(np.ascontiguousarray(sampled)),
            depth,
            None if mask is None else torch.from_numpy(mask),
            predicts=predicts,
        )

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
