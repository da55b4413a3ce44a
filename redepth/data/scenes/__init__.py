"""Procedural scenes with exact geometry, for training and for measuring."""
