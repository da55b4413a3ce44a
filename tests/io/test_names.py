"""Names of files that are made from a user's names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redepth import io

UNSAFE = ["", ".", "..", "...", ".hidden", "a.", "a ", "a/b", "a\\b", "a\nb", "a\x1b[31m", "CON", "nul.txt"]
UNSAFE += ["Com1", "x" * 256, "\u6f22" * 86]
SAFE = ["coins", "b.c", "gravel [1]", "caf\u00e9", "\u6f22" * 85, "x" * 255, "console", "a-2", "COM", "100%"]


@pytest.mark.parametrize("name", SAFE)
def test_a_safe_name_stays(name: str) -> None:
    assert io.is_safe_name(name)
    assert not io.is_safe_name(name, len(os.fsencode(name)) - 1)


@pytest.mark.parametrize("name", UNSAFE)
def test_any_name_becomes_a_safe_one(name: str, tmp_path: Path) -> None:
    assert not io.is_safe_name(name)
    made = io.hashed_name(name)
    assert io.is_safe_name(made)
    assert len(os.fsencode(made)) <= 137
    (tmp_path / made).touch()
    assert [path.name for path in tmp_path.iterdir()] == [made]


def test_two_names_are_never_one() -> None:
    names = [*UNSAFE, *SAFE, "a", "A", "caf\u0065\u0301", "x" * 257, "\u6f22" * 87, os.fsdecode(b"bad\xff")]
    made = [io.hashed_name(name) for name in names]
    assert len({name.casefold() for name in made}) == len(names)
    assert io.hashed_name("\u0444\u043e\u0442\u043e 1").startswith("\u0444\u043e\u0442\u043e 1=")


def test_a_name_is_the_same_under_every_locale() -> None:
    # Under an ASCII locale Python makes surrogates of the bytes of a letter.
    ascii_locale = "caf\u00e9".encode().decode("ascii", "surrogateescape")
    assert io.as_text(ascii_locale) == io.as_text("caf\u00e9") == "caf\u00e9"
    assert io.hashed_name(ascii_locale) == io.hashed_name("caf\u00e9")
    assert io.displayed(ascii_locale) == "caf\u00e9"
    assert io.displayed(os.fsdecode(b"bad\xff")) == "bad\ufffd"


def test_a_record_may_name_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff")
    io.save_json(tmp_path / "a.json", {"name": name, "other": "\u00e9"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": name, "other": "\u00e9"}
