"""Text files: what is read, and that whatever else is named is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\nb\n", "a\nb\n"),
        ("\ufeffa\r\nb\rc".encode(), "a\nb\nc"),
        ("\u00e9 \u4e2d".encode(), "\u00e9 \u4e2d"),
        (b"", ""),
        (b"\xef\xbb\xbf", ""),
    ],
)
def test_a_text_is_read_without_its_byte_order_mark(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert io.read_text(tmp_path / "a.txt") == text
    assert io.read_text(str(tmp_path / "a.txt"), limit=len(content)) == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1".encode("utf-16"), ("UTF-16", "UTF-8")),
        ("a: 1".encode("utf-32"), ("UTF-32", "UTF-8")),
        ("a: 1".encode("utf-16-le"), ("zero byte",)),
        ("caf\u00e9".encode("latin-1"), ("byte 4", "UTF-8")),
        (b"\xed\xa0\x80", ("byte 1", "UTF-8")),
        (b"x" * 101, ("longer than 100 bytes",)),
    ],
)
def test_other_encodings_and_lengths_are_refused(
    tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError) as error:
        io.read_text(tmp_path / "a.txt", limit=100)
    assert_one_line(error, tmp_path / "a.txt", *words)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, word in (
        (tmp_path / "pipe", "regular file"),
        (Path("/dev/zero"), "regular file"),
        (tmp_path, "folder"),
        (tmp_path / "gone", "no such file"),
        (tmp_path / ("x" * 300), "too long"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(InputError) as error:
            io.read_text(path)
        assert_one_line(error, path, word)
