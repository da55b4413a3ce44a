"""What the frame before says about a frame of a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

from redepth.guidance.channel import Frame
from redepth.literals import Predicts
from redepth.ops import panorama
from redepth.ops.align import errors_in_both

OUTLIER, ROUNDS = 4.0, 5
"""Residuals beyond so many standard deviations do not count for the scale and shift, and rounds of this.

The cut is far out: a tighter one takes errors of one sign from either end, which bends the slope of a chain.
"""

RANGE = 2.0
"""The scale of a frame lies within this factor of the clip's."""

FEWEST = 16
"""Fewer common pixels determine no scale and shift."""

LOWEST = 1e-3
"""Depth in the scale of the clip is at least this share of its median."""


@dataclass(frozen=True)
class Adjustment:
    """The scale and shift that bring a frame's raw outputs to those of its clip.

    Attributes:
        scale: a > 0.
        shift: b, in the photo's unit.
        lowest: of the results.
    """

    scale: float
    shift: float
    lowest: float = 0.0

    def __call__(self, raw: Tensor) -> Tensor:
        """Return ``a raw + b``, not below `lowest`."""
        return (self.scale * raw + self.shift).clamp(min=self.lowest)


@dataclass(frozen=True, eq=False)
class Previous:
    r"""The last frame's maps, carried to this frame along the motion between them.

    The frames of a clip share one scale and shift. A model of affine-invariant outputs predicts each frame up
    to its own: `prepared` fits the frame's prediction to the mean of the frames before it.

    With n frames that showed a pixel before, the frame's own share of the answer there is

    .. math:: k = \max\Big(\frac{1}{n + 1}, k_0\Big)

    and 1 where the last frame does not show it: the mean of all frames so far, and a fading one later.

    Attributes:
        answer: (1,1,h,w) the last frame's answer, raw output in the model's unit.
        reference: (1,1,h,w) the mean of the last frames' predictions, likewise.
        count: (1,1,h,w) n >= 0, as far as it matters.
        valid: (1,1,h,w) bool, where the last frame shows the same.
        unit: of the clip's raw outputs.
        least_share: k_0 in (0, 1].
        share: (1,1,H,W) k, which `prepared` computes, like the next two.
        adjustment: of this frame; None for metric outputs.
        spread: standard deviation of the answer.
        prediction: (1,1,H,W) of this frame, as the model gives it, in the photo's unit; `prepared` keeps it.
    """

    answer: Tensor
    reference: Tensor
    count: Tensor
    valid: Tensor
    unit: float
    least_share: float
    share: Tensor | None = None
    adjustment: Adjustment | None = None
    spread: float = 1.0
    prediction: Tensor | None = None

    def prepared(self, frame: Frame) -> Self:
        """Return the maps at network size and in the photo's unit, with all that is computed of them."""
        initial, margin = frame.initial, frame.camera.margin
        height, width = initial.shape[-2:]

        def sized(values: Tensor) -> Tensor:
            values = values.to(initial)
            same = values.shape == initial.shape
            return values if same else panorama.fit(values, height, width, margin)

        answer, reference = (sized(values) / frame.unit for values in (self.answer, self.reference))
        valid, count = sized(self.valid.float()) >= 0.5, sized(self.count)
        own = torch.where(valid, (1 / (count + 1)).clamp(min=self.least_share), 1.0)
        noise = self._noise(count[valid])
        adjustment = None if frame.metric else self._fit(initial, reference, valid, noise, frame.predicts)
        spread = float(answer[valid].std(correction=0)) if bool(valid.any()) else 0.0
        return replace(
            self,
            answer=answer,
            reference=reference,
            count=count,
            valid=valid,
            share=own,
            adjustment=adjustment,
            spread=spread or 1.0,
            prediction=initial,
        )

    def _noise(self, count: Tensor) -> float:
        """Return the variance of the reference's errors over that of one prediction's.

        A mean of n frames has 1 / n of it, a fading one with the share k_0 of each new frame k_0 / (2 - k_0).
        """
        frames = max(float(count.mean()), 1.0) if count.numel() else 1.0
        return max(1 / frames, self.least_share / (2 - self.least_share))

    @staticmethod
    def _fit(
        initial: Tensor, reference: Tensor, valid: Tensor, noise: float, predicts: Predicts
    ) -> Adjustment | None:
        """Fit a prediction to the reference, a mean of several, whose errors have less variance."""
        if int(valid.sum()) < FEWEST:
            return None
        scale, shift = robust_fit(initial, reference, valid, noise)
        if not 1 / RANGE <= scale <= RANGE:
            scale = min(max(scale, 1 / RANGE), RANGE)
            shift = float((reference - scale * initial)[valid].median())
        lowest = 0.0 if predicts == "disparity" else LOWEST * float(reference.median())
        return Adjustment(scale, shift, lowest)


def robust_fit(initial: Tensor, reference: Tensor, valid: Tensor, noise: float) -> tuple[float, float]:
    """Return scale and shift from a prediction to a mean of earlier ones; both have errors.

    It starts from quartiles and leaves out what is far off.

    Args:
        initial: (1, 1, H, W) of the frame.
        reference: (1, 1, H, W) the mean.
        valid: (1, 1, H, W) bool, the pixels that count.
        noise: variance of the mean's errors over that of one prediction's.
    """
    quartiles = initial.new_tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = torch.quantile(initial[valid].double(), quartiles)
    low_reference, middle_reference, high_reference = torch.quantile(reference[valid].double(), quartiles)
    scale = (high_reference - low_reference) / (high - low) if high > low else torch.ones_like(low)
    shift = middle_reference - scale * middle
    for _ in range(ROUNDS):
        residual = (scale * initial.double() + shift - reference.double()).abs()
        # 1.4826 times the median deviation is the standard deviation of Gaussian errors.
        limit = OUTLIER * 1.4826 * residual[valid].median()
        scale, shift = errors_in_both(initial, reference, valid & (residual <= limit), noise)
    return float(scale), float(shift)
