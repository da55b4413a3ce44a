"""Data sets with ground truth, and procedural scenes."""
