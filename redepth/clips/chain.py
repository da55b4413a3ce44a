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
        reference: mean of the predictions of the last frames, in the scale of the clip.
        answer: refined, in the scale of the clip.
        count: frames that showed each pixel, this one included.
        unit: of the raw outputs.
        start: what the next frame starts from.
        prompt: of the chain.
    """

    image: Tensor
    prediction: Tensor
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

    def next(self, image: Tensor, outcome: Outcome, track: Track) -> tuple[Chain, FrameFlicker]:
        """Return the chain with one more frame, and the flicker between both frames."""
        tie = outcome.tie
        assert tie is not None
        prediction = (outcome.initial - tie.shift) / tie.scale
        carried = track.carry(self.reference)
        chain = Chain(
            image=image,
            prediction=prediction,
            reference=carried + tie.share * (outcome.initial - carried),
            answer=outcome.refined,
            count=self._counted(track) + 1,
            unit=self.unit,
            start=replace(self.start, learned=outcome.learned),
            prompt=self.prompt,
        )
        before, after = (
            flicker(now, track.carry(last), track.valid)
            for now, last in ((prediction, self.prediction), (outcome.refined, self.answer))
        )
        return chain, FrameFlicker(before, after)

    def _counted(self, track: Track) -> Tensor:
        return torch.where(track.valid, warp(self.count, track.back), 0.0)
