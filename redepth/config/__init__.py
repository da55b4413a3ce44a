"""Presets: the schema, YAML loading with ``extends:``, and dotted overrides."""

from redepth.config.loading import DEFAULT_PRESET, PRESETS, load_preset, preset_names
from redepth.config.schema import (
    Blend,
    CaptionFallback,
    CaptionPrecision,
    Component,
    EarlyStop,
    LearningRates,
    Optim,
    Performance,
    Preset,
    Prompting,
    Term,
)

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "Blend",
    "CaptionFallback",
    "CaptionPrecision",
    "Component",
    "EarlyStop",
    "LearningRates",
    "Optim",
    "Performance",
    "Preset",
    "Prompting",
    "Term",
    "load_preset",
    "preset_names",
]
