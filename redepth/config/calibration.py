"""Whether two presets make the same runs, so that thresholds chosen on runs of one hold for the other."""

from __future__ import annotations

from typing import Any

from redepth.config.schema import Preset

DECIDES: set[str] = {"depth_model", "renderer", "prior", "optim"}
"""The sections that decide how much a run changes a map."""
COMPUTES: dict[str, Any] = {"optim": {"performance", "members_per_batch", "budget", "vram"}}
"""Settings in them that decide how a run is computed, and limits. Whether a limit made a run shorter is
known after the run alone (`Refinement.diagnostics`)."""


def same_runs(a: Preset, b: Preset) -> bool:
    """Return whether two resolved presets refine in the same way, whatever they are called and write."""
    first, second = (preset.model_dump(include=DECIDES, exclude=COMPUTES) for preset in (a, b))
    return first == second
