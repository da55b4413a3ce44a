"""Checkpoints: embedded with the package, in a local folder, or on the Hugging Face hub."""

from redepth.checkpoints.embedded import EMBEDDED, WEIGHTS
from redepth.checkpoints.guard import one_line
from redepth.checkpoints.hub_api import hub_reachable
from redepth.checkpoints.loading import fill
from redepth.checkpoints.lookup import ensure_available, locate
from redepth.checkpoints.names import resolve_name
from redepth.checkpoints.progress import Watcher, size_text, watched
from redepth.checkpoints.source import Source

__all__ = [
    "EMBEDDED",
    "WEIGHTS",
    "Source",
    "Watcher",
    "ensure_available",
    "fill",
    "hub_reachable",
    "locate",
    "one_line",
    "resolve_name",
    "size_text",
    "watched",
]
