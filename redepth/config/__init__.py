"""Presets: the schema, YAML loading with ``extends:``, and overrides."""

from redepth.config.clip import Clip
from redepth.config.loading import DEFAULT_PRESET, PRESETS, load_preset, preset_names
from redepth.config.overrides import Overrides, merged_overrides
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
    "Clip",
    "Component",
    "EarlyStop",
    "LearningRates",
    "Optim",
    "Overrides",
    "Performance",
    "Preset",
    "Prompting",
    "Term",
    "load_preset",
    "merged_overrides",
    "preset_names",
]
