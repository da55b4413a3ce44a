"""Benchmarks: presets measured on a data set under an evaluation protocol, resumable, by any executor."""

from __future__ import annotations

from redepth.bench.comparison import compare
from redepth.bench.losses import losses
from redepth.bench.records import Comparison, Result, Run, Summary
from redepth.bench.run import captions, differences, measure_both, require_whole, run_benchmark
from redepth.bench.tables import summarize, write_tables

__all__ = [
    "Comparison",
    "Result",
    "Run",
    "Summary",
    "captions",
    "compare",
    "differences",
    "losses",
    "measure_both",
    "require_whole",
    "run_benchmark",
    "summarize",
    "write_tables",
]
