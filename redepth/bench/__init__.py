"""Benchmarks: presets measured on a data set under an evaluation protocol, resumable, by any executor."""

from __future__ import annotations

from redepth.bench.answers import known_part, measure_both
from redepth.bench.comparison import compare
from redepth.bench.identity import identify, identities
from redepth.bench.losses import losses
from redepth.bench.records import Comparison, Result, Row, Run, Summary
from redepth.bench.run import captions, differences, finished_rows, run_benchmark
from redepth.bench.tables import of_protocol, results_of, side_by_side, summarize, write_tables
from redepth.bench.together import (
    load_protocols,
    open_together,
    preparations_line,
    select_together,
    with_shared_options,
)

__all__ = [
    "Comparison",
    "Result",
    "Row",
    "Run",
    "Summary",
    "captions",
    "compare",
    "differences",
    "finished_rows",
    "identify",
    "identities",
    "known_part",
    "load_protocols",
    "losses",
    "measure_both",
    "of_protocol",
    "open_together",
    "preparations_line",
    "results_of",
    "run_benchmark",
    "select_together",
    "side_by_side",
    "summarize",
    "with_shared_options",
    "write_tables",
]
