"""Adapt a depth model to photos: check, refine, train, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth import io
from redepth.adaptation.record import Adapted, OnEvent
from redepth.config import Overrides, Preset


def adapt(
    photos: Sequence[str | Path],
    preset: str | Path | Mapping[str, Any] | Preset,
    out: str | Path,
    *,
    keep: Sequence[str | Path] = (),
    refined: str | Path | None = None,
    overrides: Overrides = (),
    seed: int = 0,
    device: str = "auto",
    budget: str | None = None,
    vram: str | None = None,
    max_pixels: int = io.MAX_PIXELS,
    fresh: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Adapted:
    """Adapt the depth model of a preset to photos without labels, and write the result.

    The same call continues an adaptation that was ended; a finished one is returned as it is.

    Args:
        photos: files, folders or patterns.
        preset: name, YAML file, mapping or `Preset`; its section ``adapt`` says how.
        out: folder of the result: ``checkpoint/``, ``report.html`` and `record.Adapted` as ``summary.json``.
        keep: photos on which the model shall stay as it is: files, folders or patterns.
        refined: folder of the refined photos, which adaptations may share; by default ``out``.
        overrides: of the preset, as for `redepth.refine`.
        seed: the same seed gives the same result.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        budget: limit of the time of this call, such as ``30m``; the result is then the best so far, and a
            further call continues.
        vram: limit of the GPU memory, such as ``8GB``.
        max_pixels: refuse photos with more pixels.
        fresh: forget what the folder holds.
        on_event: called as work advances.

    Raises:
        RedepthError: ConfigError, InputError or WeightsError, each with what to do about it.
        KeyboardInterrupt: after Ctrl-C; what is done is kept.
    """
    raise NotImplementedError
