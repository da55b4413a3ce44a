"""What is known of a photo besides its pixels: the typed channel through which objectives get their data."""

from redepth.guidance.anchors import Anchors, AnchorTargets
from redepth.guidance.channel import (
    NOTHING,
    UNGUIDED,
    Frame,
    Given,
    Guidance,
    PhotoData,
    SkyMask,
)
from redepth.guidance.previous import Adjustment, Previous
from redepth.guidance.surfaces import NormalMap, Planes, Region

__all__ = [
    "NOTHING",
    "UNGUIDED",
    "Adjustment",
    "AnchorTargets",
    "Anchors",
    "Frame",
    "Given",
    "Guidance",
    "NormalMap",
    "PhotoData",
    "Planes",
    "Previous",
    "Region",
    "SkyMask",
]
