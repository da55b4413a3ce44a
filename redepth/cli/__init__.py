"""The command line: refine, compare, bench, experiment, new, list, show, doctor."""

from redepth.cli.application import app, main

__all__ = ["app", "main"]
