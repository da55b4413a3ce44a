"""The command line: refine, bench, experiment, list, show, doctor."""

from redepth.cli.application import app, main

__all__ = ["app", "main"]
