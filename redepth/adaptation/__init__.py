"""Adapt a depth model to many photos without labels: one training, then feed-forward."""
