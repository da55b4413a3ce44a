"""Benchmarks: presets measured on a data set under an evaluation protocol, resumable, by any executor."""

from __future__ import annotations

from redepth.bench.comparison import compare
from redepth.bench.identity import identify, identities
from redepth.bench.losses import losses
from redepth.bench.records import Comparison, Result, Run, Summary
from redepth.bench.run import (
    captions,
    differences,
    finished_rows,
    known_part,
    measure_both,
    run_benchmark,
)
from redepth.bench.tables import summarize, write_tables

__all__ = [
    "Comparison",
    "Result",
    "Run",
    "Summary",
    "captions",
    "compare",
    "differences",
    "finished_rows",
    "identify",
    "identities",
    "known_part",
    "losses",
    "measure_both",
    "run_benchmark",
    "summarize",
    "write_tables",
]
