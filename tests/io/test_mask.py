"""Masks: every format, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line


def test_masks(tmp_path: Path) -> None:
    mask = np.zeros((16, 24), bool)
    mask[4:12, 8:16] = True
    np.save(tmp_path / "a.npy", np.where(mask, 2.0, np.where(np.eye(16, 24) > 0, np.nan, 0)))
    Image.fromarray(mask).save(tmp_path / "bits.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray((mask * 255).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([mask * 255] * 3, -1).astype(np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "lossy.jpg")
    palette = Image.fromarray(mask.astype(np.uint8))
    palette.putpalette([0, 0, 0, 3, 0, 0])
    palette.save(tmp_path / "palette.png")
    for path in sorted(tmp_path.iterdir()):
        loaded = io.load_mask(path)
        assert loaded.dtype == bool
        np.testing.assert_array_equal(loaded, mask, err_msg=path.name)


def test_bad_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((4, 4)))
    np.save(tmp_path / "line.npy", np.ones(4))
    (tmp_path / "words.png").write_text("words")
    for name, word in {"empty.npy": "no pixel", "line.npy": "(4,)", "words.png": "image"}.items():
        with pytest.raises(InputError) as error:
            io.load_mask(tmp_path / name)
        assert_one_line(error, tmp_path / name, word)


def test_a_mask_may_say_that_there_is_nothing(tmp_path: Path) -> None:
    Image.new("L", (20, 10)).save(tmp_path / "black.png")
    assert not io.load_mask(tmp_path / "black.png", may_be_empty=True).any()
