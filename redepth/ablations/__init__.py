"""Ablations of one's own photos: every combination of some settings, in one table and one sheet.

Each combination is a variant: a preset with overrides. The results of a variant are written as
`redepth refine` writes them, to ``OUT/VARIANT/PHOTO``. What is done already is known from their records.
"""

from redepth.ablations.records import Average, Row
from redepth.ablations.run import Ablation, run_ablation
from redepth.ablations.sheet import draw_sheets
from redepth.ablations.tables import averages, headings, line, write_tables
from redepth.ablations.variants import MOST_VARIANTS, Variant, overlaps, parse_axes, short_names, variants_of

__all__ = [
    "MOST_VARIANTS",
    "Ablation",
    "Average",
    "Row",
    "Variant",
    "averages",
    "draw_sheets",
    "headings",
    "line",
    "overlaps",
    "parse_axes",
    "run_ablation",
    "short_names",
    "variants_of",
    "write_tables",
]
