"""Named evaluation protocols: what a benchmark measures, where and after which alignment, as a record."""

from __future__ import annotations

from redepth.protocols.measure import ImageMetrics, Measurement
from redepth.protocols.record import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    Alignment,
    Crop,
    Protocol,
    Range,
    Region,
    Size,
    Split,
    difference,
    load_protocol,
    names_hash,
    protocol_for,
    protocol_names,
    require_same,
)
from redepth.protocols.selection import open_dataset, read_names, select

__all__ = [
    "DEFAULT_PROTOCOL",
    "PROTOCOLS",
    "Alignment",
    "Crop",
    "ImageMetrics",
    "Measurement",
    "Protocol",
    "Range",
    "Region",
    "Size",
    "Split",
    "difference",
    "load_protocol",
    "names_hash",
    "open_dataset",
    "protocol_for",
    "protocol_names",
    "read_names",
    "require_same",
    "select",
]
