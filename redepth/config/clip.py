"""The section of a preset about clips."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from redepth.config.section import Section


class Clip(Section):
    """How the frames of a clip are refined; the first frame is refined as a photo is.

    Attributes:
        steps: share of ``optim.steps`` that each frame after the first one takes.
        rates: factor of the learning rates of these frames, whose members have learned before.
        least_share: smallest share that a frame's own result has in its answer; the rest is the last frame's
            answer. 1 leaves the last answer out.
        cut: share of the pixels that the last frame has to show too; below it a frame starts anew.
    """

    steps: Annotated[float, Field(ge=0.001, le=1)] = 0.5
    rates: Annotated[float, Field(ge=0, le=10)] = 0.5
    least_share: Annotated[float, Field(ge=0.01, le=1)] = 0.3
    cut: Annotated[float, Field(ge=0, le=1)] = 0.3
