"""The base class of the sections of a preset."""

from __future__ import annotations

from pydantic import ConfigDict

from redepth.registry import Checked


class Section(Checked):
    """Settings that are checked, and that do not change; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
