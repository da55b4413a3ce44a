import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.app import examples
from redepth.app.examples import make_examples


def test_the_examples_are_photos_where_scikit_image_is_installed(
    tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    made = make_examples(tmp_path)
    assert [example.title for example in made] == ["Brick", "Coins", "Gravel", "Moon", "Motorcycle"]
    assert made[1].path.read_bytes() == real_photos["coins"].read_bytes()
    assert all(example.path.parent == tmp_path for example in made)
    for example in made:
        with Image.open(example.thumbnail) as small:
            assert max(small.size) <= examples.THUMBNAIL_SIDE


def test_without_scikit_image_scenes_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(examples, "HEIGHT", 24)
    monkeypatch.setattr(examples, "WIDTH", 32)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    made, again = map(make_examples, folders)
    assert [example.title for example in made] == ["Folds", "Rods", "Domes", "Cracks", "Cones"]
    photos = [io.load_photo(example.path) for example in made]
    assert all(photo.shape == (24, 32, 3) and np.ptp(photo) > 0.1 for photo in photos)
    assert [e.path.read_bytes() for e in made] == [e.path.read_bytes() for e in again]
