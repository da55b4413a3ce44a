"""Execute a notebook in a kernel of this Python, which reads no settings of the user."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.support.command import ENVIRONMENT

ROOT = Path(__file__).parents[2]
NAME = "redepth-tests"


def execute(path: Path, folder: Path, timeout: int = 240) -> Any:
    """Return a notebook with the outputs of a new kernel that ran it in a folder.

    Raises:
        CellExecutionError: a cell failed.
    """
    specs = folder / "kernels"
    spec = specs / NAME / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": NAME, "language": "python"}))
    finder = KernelSpecManager(kernel_dirs=[str(specs)], ensure_native_kernel=False)
    manager = AsyncKernelManager(kernel_name=NAME, kernel_spec_manager=finder)
    notebook = nbformat.read(path, as_version=4)
    work = folder / "work"
    work.mkdir()
    places = {name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    environment = {**ENVIRONMENT, **places, "PYTHONPATH": str(ROOT)}
    with mock.patch.dict(os.environ, environment):
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=timeout,
            resources={"metadata": {"path": str(work)}},
            coalesce_streams=True,
        )
        return client.execute()
