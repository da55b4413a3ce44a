"""What the app shows of a run in progress: now and then a picture of the surface, the loss, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redepth import io, viz
from redepth.config.units import duration
from redepth.ops import geometry
from redepth.optim.outcome import StepReport

Picture = NDArray[np.uint8]
Clock = Callable[[], float]

EVERY = 0.7
"""Seconds between two pictures, at least: a browser shows no more, and each takes time from the run."""

LONGEST = 640
"""Longer side of a picture in pixels, at most."""


@dataclass(frozen=True)
class Progress:
    """A step that is shown.

    Attributes:
        step: 1-based.
        steps: of each member.
        members: first and last of those that advance together, 1-based.
        of_members: of the ensemble.
        loss: mean total loss of these members.
        share: of all steps of all members that are done, in [0, 1].
        seconds_left: at the pace so far; None before there is one.
        normals: of the surface, the mean of these members.
        relit: the first member's surface under the light of this step.
    """

    step: int
    steps: int
    members: tuple[int, int]
    of_members: int
    loss: float
    share: float
    seconds_left: float | None
    normals: Picture
    relit: Picture

    @property
    def line(self) -> str:
        """The step in words."""
        first, last = self.members
        parts = [f"step {self.step} of {self.steps}"]
        if self.of_members > 1:
            parts.append(f"members {first} to {last} of {self.of_members}")
        parts.append(f"loss {self.loss:.3g}")
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        return ", ".join(parts)


class Pace:
    """Chooses the steps that are shown: the first, the last, and between them one each `EVERY` seconds.

    Args:
        clock: reads the time in seconds.
        every: seconds between two steps that are shown.
    """

    def __init__(self, clock: Clock = time.monotonic, every: float = EVERY) -> None:
        self._clock, self._every = clock, every
        self._first: tuple[float, float] | None = None
        self._shown = 0.0

    def progress(self, report: StepReport) -> Progress | None:
        """Return what is shown of a step, or None if nothing is. Reads the losses of those that are shown."""
        now = self._clock()
        share = done_share(report)
        if self._first is None:
            self._first = (now, share)
        elif share < 1 and now - self._shown < self._every:
            return None
        self._shown = now
        began, at_first = self._first
        pace = (now - began) / (share - at_first) if share > at_first else None
        return Progress(
            step=report.step,
            steps=report.steps,
            members=(report.members.start + 1, report.members.stop),
            of_members=report.of_members,
            loss=float(report.losses["total"].mean()),
            share=share,
            seconds_left=None if pace is None else pace * (1 - share),
            normals=normals_of(report),
            relit=relit_of(report),
        )


def done_share(report: StepReport) -> float:
    """Return the share of all steps of all members that are done after a step."""
    done = report.members.start * report.steps + report.step * len(report.members)
    return done / (report.steps * report.of_members)


def normals_of(report: StepReport) -> Picture:
    """Draw the normals of the surface at a step, the mean of its members."""
    depth = report.depth.float().mean(dim=0, keepdim=True)
    normals = geometry.normals_from_depth(depth)[0].permute(1, 2, 0)
    return _small(viz.normals_to_rgb(normals.cpu().numpy()))


def relit_of(report: StepReport) -> Picture:
    """Draw the first member's surface under the first light of a step."""
    return _small(io.to_uint8(report.relit[0, 0].float().permute(1, 2, 0).cpu().numpy()))


def _small(picture: Picture) -> Picture:
    """Return every k-th pixel of a picture."""
    every = -(-max(picture.shape[:2]) // LONGEST)
    return picture[::every, ::every]
