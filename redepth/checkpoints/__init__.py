"""Checkpoints: where they are, downloading them, and the embedded weights."""
