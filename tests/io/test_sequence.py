from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError


def folder_of(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "shot"
    folder.mkdir()
    for name in names:
        Image.new("RGB", (32, 24)).save(folder / name)
    return folder


def found(folder: Path) -> tuple[list[str], list[str]]:
    warnings: list[str] = []
    return [path.name for path in io.find_sequence(folder, warn=warnings.append)], warnings


def test_the_last_number_gives_the_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "take2_10.png", "take2_9.png", "take2_8.png", "take2_011.jpg")
    (folder / "notes.txt").write_text("no photo")
    assert found(folder) == (["take2_8.png", "take2_9.png", "take2_10.png", "take2_011.jpg"], [])


def test_decimal_numbers_are_ordered_as_such(tmp_path: Path) -> None:
    """Times in seconds, as TUM RGB-D names its photos."""
    names = ["1305031102.875363.png", "1305031102.911185.png", "1305031103.043227.png"]
    assert found(folder_of(tmp_path, *reversed(names))) == (names, [])


def test_all_numbers_decide_the_order(tmp_path: Path) -> None:
    names = ["20240101_235959.png", "20240102_000004.png"]
    order, (warning,) = found(folder_of(tmp_path, *names))
    assert order == names
    assert "the first number that differs decides, and not the last one" in warning


def test_an_order_that_could_be_another_is_said(tmp_path: Path) -> None:
    order, (warning,) = found(folder_of(tmp_path, "r2.9.png", "r2.10.png"))
    assert order == ["r2.10.png", "r2.9.png"]
    assert "r2.10.png comes before r2.9.png, because a number with a point is taken as a decimal" in warning


def test_missing_numbers_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(f"{number}.png" for number in (1, 2, 4, 5, 9)))
    names, warnings = found(folder)
    assert names == ["1.png", "2.png", "4.png", "5.png", "9.png"]
    assert warnings == [f"{folder}: frames are missing: 3, 6 to 8; the clip goes on over the gap"]


def test_every_tenth_number_is_no_gap(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(f"f{number:04d}.png" for number in (0, 10, 20, 40)))
    assert found(folder)[1] == [f"{folder}: frames are missing: 30; the clip goes on over the gap"]


def test_many_gaps_are_cut(tmp_path: Path) -> None:
    numbers = [1, 2, 3, *range(5, 40, 5)]
    numbers += [n + 1 for n in range(5, 40, 5)]
    folder = folder_of(tmp_path, *(f"{number}.png" for number in numbers))
    (warning,) = found(folder)[1]
    assert warning.endswith(
        "4, 7 to 9, 12 to 14, 17 to 19, 22 to 24 and 2 more gaps; the clip goes on over the gap"
    )


def test_what_is_no_sequence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "1.png", "two.png")
    with pytest.raises(InputError, match=r"two\.png: has no number"):
        found(folder)
    (folder / "two.png").rename(folder / "01.png")
    with pytest.raises(InputError, match=r"has the number 1, and so has 01.png; keep one"):
        found(folder)
    with pytest.raises(InputError, match="--sequence reads a folder"):
        found(folder / "1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photo"):
        found(tmp_path / "empty")
