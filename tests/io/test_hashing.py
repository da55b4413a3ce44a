"""Hashes of files, and what was written compared with what is there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from redepth import io
from redepth.io import hashing


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one" * 10**6)
    assert io.sha256_of(path) == hashlib.sha256(b"one" * 10**6).hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", None)
        io.sha256_of(path)
    path.write_bytes(b"two" * 10**6)
    os.utime(path, ns=(0, 0))
    assert io.sha256_of(path) == hashlib.sha256(b"two" * 10**6).hexdigest()
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path / "none", tmp_path, tmp_path / ("x" * 300)):
        assert io.sha256_of(other) == "missing"


def test_several_files_have_one_hash_of_names_and_contents(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("2")
    first = io.sha256_of_files([a, b])
    assert first == io.sha256_of_files([b, a])
    b.write_text("3")
    assert io.sha256_of_files([a, b]) != first
    assert io.sha256_of_files([a]) == io.sha256_of(a)


def test_damage_names_the_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 3)
    stored = io.manifest(tmp_path.iterdir())
    assert set(stored) == {"a", "b"}
    assert io.damage(tmp_path, stored) == ""
    (tmp_path / "b").write_text("bbc")
    assert io.damage(tmp_path, stored) == "b was changed"
    (tmp_path / "a").write_text("")
    assert io.damage(tmp_path, stored) == "a was changed"
    (tmp_path / "a").unlink()
    assert io.damage(tmp_path, stored) == "a is missing"
    assert hashing.damage(tmp_path, {}) == ""
