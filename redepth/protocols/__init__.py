"""Evaluation protocols: named records of what a benchmark measures, where, and after which alignment."""

from __future__ import annotations

from redepth.protocols.comparison import difference, require_same
from redepth.protocols.loading import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    load_protocol,
    protocol_for,
    protocol_names,
)
from redepth.protocols.measurement import (
    ImageMetrics,
    Measurement,
    average,
    evaluate,
    finite_numbers,
    measure,
)
from redepth.protocols.preparation import prepare
from redepth.protocols.schema import (
    Alignment,
    Crop,
    EvaluationProtocol,
    Range,
    Region,
    Size,
    Split,
    names_hash,
)
from redepth.protocols.selection import open_dataset, read_names, select
from redepth.protocols.truth import check_unit

__all__ = [
    "DEFAULT_PROTOCOL",
    "PROTOCOLS",
    "Alignment",
    "Crop",
    "EvaluationProtocol",
    "ImageMetrics",
    "Measurement",
    "Range",
    "Region",
    "Size",
    "Split",
    "average",
    "check_unit",
    "difference",
    "evaluate",
    "finite_numbers",
    "load_protocol",
    "measure",
    "names_hash",
    "open_dataset",
    "prepare",
    "protocol_for",
    "protocol_names",
    "read_names",
    "require_same",
    "select",
]
