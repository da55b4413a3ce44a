"""The notebook of the examples runs from its first cell to its last, and says what its stored outputs say.

``python -m tests.test_notebook`` runs it and stores the outputs.
"""

from __future__ import annotations

import base64
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from tests.support.notebook_run import ROOT, execute

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, and their text without what depends on the machine.

    Another processor rounds otherwise, which changes numbers, and may raise or lower a flag.
    """
    told = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        told += sorted(output.get("data", {}))
        text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
        text = re.sub(r"\d+(\.\d+|%)", "#", text)
        told.append(re.sub(r"flagged=\[.*?\]", "flagged", text))
    return told


def pictures(notebook: Any) -> list[Image.Image]:
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            coded = [text for kind, text in data.items() if kind.startswith("image/")]
            coded += re.findall(r'src="data:image/jpeg;base64,([^"]+)"', data.get("text/html", ""))
            found += [Image.open(io.BytesIO(base64.b64decode(text))) for text in coded]
    return found


def record() -> None:
    """Run the notebook and store its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(NOTEBOOK, Path(folder))
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)


def test_the_stored_outputs_are_small_and_whole() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    # The card, the comparison, the losses and the renderers.
    shown = pictures(notebook)
    assert len(shown) == 4
    assert all(picture.width >= 600 for picture in shown)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
def test_the_notebook_runs_and_says_the_same(tmp_path: Path) -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = execute(NOTEBOOK, tmp_path)
    assert [said(cell) for cell in code_cells(again)] == [said(cell) for cell in code_cells(stored)]
    assert [picture.size for picture in pictures(again)] == [picture.size for picture in pictures(stored)]
    assert (tmp_path / "work" / "out" / "coins" / "run.json").is_file()


if __name__ == "__main__":
    record()
