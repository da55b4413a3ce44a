"""What is known after each frame of a clip: its result, its tie to the last frame, the figures so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from redepth.refinement import Refinement


@dataclass(frozen=True)
class Link:
    """How a frame is tied to the one before.

    Attributes:
        tied: whether it is. Else it starts a chain: it is refined as a photo is.
        reason: why it is not tied, such as ``first frame``; empty if it is.
        valid: share of the frame's pixels that the last frame shows too, in [0, 1]; 0 for a first frame.
        scale: a of ``a D + b``, which brings the frame's prediction D to the scale of the clip.
        shift: b of it.
        steps: that each member took.
    """

    tied: bool
    reason: str = ""
    valid: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class FrameFlicker:
    """The change from the last frame to this one that motion does not explain (`metrics.flicker.flicker`).

    It is measured along the motion by which the results are tied, where both pictures match along it.

    Attributes:
        initial: of the depth model's predictions as they are.
        refined: of the results.
        aligned: of the predictions in the scale of the clip: what scale and shift alone bring.
        share: of the frame's pixels that it is measured over, in (0, 1].
    """

    initial: float
    refined: float
    aligned: float
    share: float


@dataclass(frozen=True)
class FrameResult:
    """One frame of a clip.

    Attributes:
        index: 0-based.
        refinement: as of a photo. Its maps of all frames of a chain share one scale and shift.
        link: to the last frame.
        flicker: from the last frame to this one; None where a chain starts, or no pixel matches.
    """

    index: int
    refinement: Refinement
    link: Link
    flicker: FrameFlicker | None = None


@dataclass(frozen=True)
class ClipSummary:
    """The figures of the frames that are done.

    Attributes:
        frames: number of them.
        starts: indices of the frames that start a chain; the first one is 0, every other one follows a cut.
        steps: of each member, frame by frame.
        flicker_initial: mean over the measured frames; None without any.
        flicker_refined: likewise.
        seconds: of the optimisations of all frames.
        measured: number of frames whose flicker is measured.
        flicker_aligned: mean over them, of the predictions in the scale of the clip.
        measured_share: mean share of the pixels that flicker is measured over.
    """

    frames: int = 0
    starts: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    flicker_initial: float | None = None
    flicker_refined: float | None = None
    seconds: float = 0.0
    measured: int = 0
    flicker_aligned: float | None = None
    measured_share: float | None = None

    def with_frame(self, result: FrameResult) -> ClipSummary:
        """Return the figures with those of one more frame."""
        summary = replace(
            self,
            frames=self.frames + 1,
            starts=self.starts if result.link.tied else (*self.starts, result.index),
            steps=(*self.steps, result.link.steps),
            seconds=self.seconds + result.refinement.outcome.seconds,
        )
        change = result.flicker
        if change is None:
            return summary
        return replace(
            summary,
            measured=self.measured + 1,
            flicker_initial=_mean(self.flicker_initial, self.measured, change.initial),
            flicker_refined=_mean(self.flicker_refined, self.measured, change.refined),
            flicker_aligned=_mean(self.flicker_aligned, self.measured, change.aligned),
            measured_share=_mean(self.measured_share, self.measured, change.share),
        )

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON-compatible data."""
        return {
            "frames": self.frames,
            "starts": list(self.starts),
            "steps": list(self.steps),
            "flicker": {"initial": self.flicker_initial, "refined": self.flicker_refined},
            "seconds": self.seconds,
        }


def _mean(mean: float | None, count: int, value: float) -> float:
    """Return the mean of so many values with one more."""
    return value if mean is None else mean + (value - mean) / (count + 1)
