"""Metrics against ground truth: depth, surface and boundaries; alignment before them, statistics after them.

`align` is a separate step: it brings a prediction to the ground truth's units and reports what it clipped.
The metrics take aligned depth and never align by themselves. All of them take one image (H, W) or a batch
(..., H, W), with ground truth for each image or one for all; they measure where a mask is true, accumulate in
float64, and return a tensor of one value per image. `redepth.protocols` defines the alignment, the range and
the mask of each benchmark. `redepth.metrics.diagnostics` needs no ground truth.
"""

from redepth.metrics.alignment import Aligned, Method, align
from redepth.metrics.batch import known_depth
from redepth.metrics.bootstrap import Interval, bootstrap_interval, paired_difference, win_rate
from redepth.metrics.boundaries import EDGE_RATIOS, boundary_metrics, has_edges
from redepth.metrics.curvature import curvature_metrics, has_curvature
from redepth.metrics.depth import depth_means, depth_metrics, metrics_of, pooled
from redepth.metrics.evaluation import Evaluation, evaluate
from redepth.metrics.left_out import LARGE_SHARE, LeftOut, clip_warnings, known_map, runaway_warnings
from redepth.metrics.no_hits import beyond_gap, stored_no_hits
from redepth.metrics.normals import NORMAL_ANGLES, normal_metrics
from redepth.metrics.relative_normals import has_pairs, relative_normal_metrics

__all__ = [
    "EDGE_RATIOS",
    "LARGE_SHARE",
    "NORMAL_ANGLES",
    "Aligned",
    "Evaluation",
    "Interval",
    "LeftOut",
    "Method",
    "align",
    "beyond_gap",
    "bootstrap_interval",
    "boundary_metrics",
    "clip_warnings",
    "curvature_metrics",
    "depth_means",
    "depth_metrics",
    "evaluate",
    "has_curvature",
    "has_edges",
    "has_pairs",
    "known_depth",
    "known_map",
    "metrics_of",
    "normal_metrics",
    "paired_difference",
    "pooled",
    "relative_normal_metrics",
    "runaway_warnings",
    "stored_no_hits",
    "win_rate",
]
