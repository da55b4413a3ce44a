"""Depth models: a frozen encoder with a decoder over its intermediate embeddings, or a finished map."""

from __future__ import annotations

from redepth.depth_models.catalog import CATALOG
from redepth.registry import Registry

REGISTRY = Registry("depth_model", "redepth.depth_models", "redepth.contracts:DepthModel")
for _row in CATALOG:
    REGISTRY.add(
        _row.name,
        f"{__name__}.{_row.target}",
        _row.summary,
        licence=_row.licence,
        defaults=_row.defaults,
    )

register = REGISTRY.register
