"""What is known after each frame of a clip: its result, its tie to the last frame, the figures so far."""

from __future__ import annotations

from dataclasses import dataclass
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

    Attributes:
        initial: of the depth model's predictions as they are.
        refined: of the results.
    """

    initial: float
    refined: float


@dataclass(frozen=True)
class FrameResult:
    """One frame of a clip.

    Attributes:
        index: 0-based.
        refinement: as of a photo. Its maps of all frames of a chain share one scale and shift.
        link: to the last frame.
        flicker: from the last frame to this one; None where a chain starts.
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
        flicker_initial: mean over the tied frames; None without any.
        flicker_refined: likewise.
        seconds: of the optimisations of all frames.
    """

    frames: int = 0
    starts: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    flicker_initial: float | None = None
    flicker_refined: float | None = None
    seconds: float = 0.0

    def with_frame(self, result: FrameResult) -> ClipSummary:
        """Return the figures with those of one more frame."""
        tied = self.frames - len(self.starts)
        change = result.flicker
        initial = None if change is None else change.initial
        refined = None if change is None else change.refined
        return ClipSummary(
            frames=self.frames + 1,
            starts=self.starts if result.link.tied else (*self.starts, result.index),
            steps=(*self.steps, result.link.steps),
            flicker_initial=_mean(self.flicker_initial, tied, initial),
            flicker_refined=_mean(self.flicker_refined, tied, refined),
            seconds=self.seconds + result.refinement.outcome.seconds,
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


def _mean(mean: float | None, count: int, value: float | None) -> float | None:
    """Return the mean of so many values with one more."""
    if mean is None or value is None:
        return mean if value is None else value
    return mean + (value - mean) / (count + 1)
