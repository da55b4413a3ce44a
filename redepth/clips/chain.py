"""The chain of frames that are tied to one another: what the next frame needs of the last one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redepth.clips.flow import Track
from redepth.clips.state import FrameFlicker
from redepth.config import Clip
from redepth.guidance import Previous
from redepth.metrics.flicker import flicker
from redepth.ops.warp import warp
from redepth.optim.outcome import Outcome
from redepth.optim.plan import Plan
from redepth.optim.warm import WarmStart


@dataclass(frozen=True, eq=False)
class Chain:
    """The last frame of a chain, all maps (1,1,H,W) raw outputs on the CPU.

    Attributes:
        image: (1,3,H,W) the picture, sRGB, at the size of the maps.
        prediction: of the depth model as it is, in its own scale.
        adjustment: (2,) float64, the scale and shift that bring it to the scale of the clip.
        reference: mean of the predictions of the last frames, in the scale of the clip.
        answer: refined, in the scale of the clip.
        count: frames that showed each pixel, this one included.
        unit: of the raw outputs.
        start: what the next frame starts from.
        prompt: of the chain.
    """

    image: Tensor
    prediction: Tensor
    adjustment: Tensor
    reference: Tensor
    answer: Tensor
    count: Tensor
    unit: float
    start: WarmStart
    prompt: str

    @classmethod
    def first(cls, image: Tensor, outcome: Outcome, plan: Plan, rates: float, prompt: str) -> Chain:
        """Start a chain with a frame that was refined as a photo is.

        Args:
            image: of the frame.
            outcome: of a run with a warm start, which kept what it learned.
            plan: of the frames that follow.
            rates: factor of their learning rates.
            prompt: of the chain.
        """
        return cls(
            image=image,
            prediction=outcome.initial,
            adjustment=_adjustment(1.0, 0.0),
            reference=outcome.initial,
            answer=outcome.refined,
            count=torch.ones_like(outcome.initial),
            unit=outcome.unit,
            start=WarmStart(outcome.learned, plan, rates),
            prompt=prompt,
        )

    def previous(self, track: Track, clip: Clip) -> Previous:
        """Return the maps carried to the next frame."""
        return Previous(
            answer=track.carry(self.answer),
            reference=track.carry(self.reference),
            count=self._counted(track),
            valid=track.valid,
            unit=self.unit,
            least_share=clip.least_share,
        )

    def next(self, image: Tensor, outcome: Outcome, track: Track) -> Chain:
        """Return the chain with one more frame."""
        tie, plan = outcome.tie, self.start.plan
        assert tie is not None
        assert plan is not None
        # Where memory ran out, the frames that follow must not run out of it again.
        plan = replace(plan, members_per_batch=outcome.members_per_batch)
        carried = track.carry(self.reference)
        return Chain(
            image=image,
            prediction=tie.prediction,
            adjustment=_adjustment(tie.scale, tie.shift),
            reference=carried + tie.share * (outcome.initial - carried),
            answer=outcome.refined,
            count=self._counted(track) + 1,
            unit=self.unit,
            start=replace(self.start, learned=outcome.learned, plan=plan),
            prompt=self.prompt,
        )

    def flicker(self, outcome: Outcome, track: Track, measured: Tensor) -> FrameFlicker | None:
        """Return the flicker from the chain's last frame to the next one; None without a measured pixel.

        Args:
            outcome: of the next frame.
            track: to it.
            measured: (1,1,H,W) bool, where both pictures match along the track.
        """
        tie = outcome.tie
        assert tie is not None
        if not bool(measured.any()):
            return None
        scale, shift = self.adjustment.tolist()
        # A camera that comes nearer changes lengths, which only maps in the scale of the clip have.
        aligned = track.carry(scale * self.prediction + shift)
        return FrameFlicker(
            initial=flicker(tie.prediction, (aligned - shift) / scale, measured),
            refined=flicker(outcome.refined, track.carry(self.answer), measured),
            aligned=flicker(outcome.initial, aligned, measured),
            share=float(measured.float().mean()),
        )

    def _counted(self, track: Track) -> Tensor:
        return torch.where(track.valid, warp(self.count, track.back), 0.0)


def _adjustment(scale: float, shift: float) -> Tensor:
    return torch.tensor([scale, shift], dtype=torch.float64)
