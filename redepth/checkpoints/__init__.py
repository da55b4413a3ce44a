"""Checkpoints: embedded with the package, in a local folder, or on the Hugging Face hub."""

from redepth.checkpoints.embedded import EMBEDDED, WEIGHTS
from redepth.checkpoints.fetching import Pending, fetch, free_space, pending, sources_of
from redepth.checkpoints.guard import one_line
from redepth.checkpoints.hub_api import hub_reachable, this_machine_only, unreachable
from redepth.checkpoints.loading import fill
from redepth.checkpoints.lookup import ensure_available, locate
from redepth.checkpoints.names import resolve_name
from redepth.checkpoints.pickled import read_pickled
from redepth.checkpoints.progress import Watcher, size_text, watched
from redepth.checkpoints.source import Source

__all__ = [
    "EMBEDDED",
    "WEIGHTS",
    "Pending",
    "Source",
    "Watcher",
    "ensure_available",
    "fetch",
    "fill",
    "free_space",
    "hub_reachable",
    "locate",
    "one_line",
    "pending",
    "read_pickled",
    "resolve_name",
    "size_text",
    "sources_of",
    "this_machine_only",
    "unreachable",
    "watched",
]
