"""docs/adapt.md: its Python block runs as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from redepth import io
from redepth.config import load_preset
from tests.support.adaptations import SETTINGS, write_photos
from tests.support.small_photos import write_photo

PAGE = Path(__file__).parents[2] / "docs" / "adapt.md"


@pytest.mark.slow
def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    write_photo(tmp_path / "other-photos" / "a.png", 9)
    write_photo(tmp_path / "photo.jpg", 8)
    # A preset of a few steps in place of the page's.
    preset = load_preset("smoke", [*SETTINGS, "adapt.steps=2", "adapt.anchor.keep_photos=1"])
    io.save_text(tmp_path / "quick.yaml", preset.to_yaml())
    block = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert '"embedded"' in block
    found: dict[str, object] = {}
    exec(block.replace('"embedded"', '"quick.yaml"'), found)
    assert (tmp_path / "out" / "adapt" / "summary.json").is_file()
    assert found["result"].keep == 1
