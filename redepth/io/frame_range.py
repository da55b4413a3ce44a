"""Which frames of a clip are taken: ``START:STOP:STEP``, as Python slices a list."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redepth.errors import ConfigError, cut

_WRITTEN = re.compile(r"\s*(\d{0,9})\s*:\s*(\d{0,9})\s*(?::\s*(\d{0,9})\s*)?")


@dataclass(frozen=True)
class FrameRange:
    """Frames from ``start`` to before ``stop``, every ``step``-th, counted from 0.

    Attributes:
        start: the first one.
        stop: the first one that is not taken any more; None: the clip's end.
        step: 1 or more.
    """

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.step < 1 or (self.stop is not None and self.stop <= self.start):
            raise ConfigError(
                f"--frames {self}: START counts from 0, STOP is larger than START, STEP is 1 or more"
            )

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}:{self.step}"

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int) or index < self.start or self.ended(index):
            return False
        return (index - self.start) % self.step == 0

    @property
    def whole(self) -> bool:
        """Whether every frame is taken."""
        return self == ALL_FRAMES

    def until(self, stop: int) -> str:
        """Return in the option's words the same frames before another ``stop``."""
        return f"{self.start}:{stop}" + (f":{self.step}" if self.step > 1 else "")

    def ended(self, index: int) -> bool:
        """Return whether neither this frame nor a later one is taken."""
        return self.stop is not None and index >= self.stop


ALL_FRAMES = FrameRange()
"""The whole clip."""


def parse_frame_range(text: str) -> FrameRange:
    """Return the frames of ``START:STOP:STEP``; each part may be left out, and so may the last colon.

    Raises:
        ConfigError: the text is something else, or no frame can be in it.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--frames '{cut(text)}': give START:STOP or START:STOP:STEP, counted from 0, such as 0:100:2"
        )
    start, stop, step = (int(part) if part else None for part in match.groups())
    return FrameRange(start or 0, stop, 1 if step is None else step)
