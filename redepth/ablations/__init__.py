"""Ablations of one's own photos: every combination of some settings, in one table and one sheet."""
