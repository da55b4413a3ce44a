"""Depth backbones: a frozen encoder and a decoder over its intermediate embeddings."""

from __future__ import annotations

from redepth.contracts import DepthModel
from redepth.registry import Registry

REGISTRY = Registry("depth_model", "redepth.depth_models", DepthModel)
REGISTRY.add(
    "depth-anything",
    "redepth.depth_models.depth_anything:DepthAnything",
    "Depth Anything V1, V2: relative checkpoints of that class (transformers)",
)

register = REGISTRY.register
