"""The section of a preset about clips."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from redepth.config.section import Section


class Clip(Section):
    """How the frames of a clip are refined; the first frame is refined as a photo is.

    Attributes:
        steps: share of ``optim.steps`` that each frame after the first one takes.
    """

    steps: Annotated[float, Field(ge=0.001, le=1)] = 0.4
