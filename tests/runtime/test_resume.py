"""Rows of tasks: their names, and when they are measured again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from redepth import io
from redepth.runtime import resume
from redepth.runtime.resume import Identity

NOW = Identity(inputs={"the photo": "1"}, versions={"redepth": "1.0"})


class Row(BaseModel):
    value: int


def write(folder: Path, task: resume.Task, value: int = 1, identity: Identity = NOW) -> Path:
    path = resume.begin_row(folder, task)
    picture = path.with_suffix(".photo.jpg")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(str(value))
    resume.finish_row(path, {"value": value}, identity, [picture])
    return path


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (("smoke", "relief-50000"), "smoke/relief-50000.json"),
        (("mine.yaml", "2011_09_26/0002/0000000005"), "mine.yaml/2011_09_26%2F0002%2F0000000005.json"),
        (("N = 2", "relief at 0.5/relief-1"), "N %3D 2/relief at 0.5%2Frelief-1.json"),
    ],
)
def test_plain_names_are_as_they_were(task: resume.Task, path: str, tmp_path: Path) -> None:
    assert resume.row_path(tmp_path, task) == tmp_path / "images" / path


NAMES = [
    "..",
    ".",
    "",
    ".hidden",
    "con",
    "\u6f22" * 30,
    "\u0444" * 47,
    "x" * 255,
    "x" * 254 + "y",
    "\u6f22" * 85,
]
NAMES += [
    "caf\u00e9",
    "cafe\u0301",
    "a/../../b",
    "\u6f22" * 29 + "\u5b57",
    os.fsdecode(b"bad\xff"),
    "a=b",
    "%3D",
]


def test_every_name_has_a_file_of_its_own_in_the_folder(tmp_path: Path) -> None:
    tasks = [(variant, image) for variant in NAMES[:8] for image in NAMES]
    for number, task in enumerate(tasks):
        path = write(tmp_path, task, number)
        assert path.parent.parent == tmp_path / "images"
        for suffix in (".error-refined.jpg", ".npz"):
            path.with_suffix(suffix).touch()
    rows = resume.read_rows(tmp_path, tasks, Row)
    assert [row.value for row in rows.values()] == list(range(len(tasks)))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_row_holds_until_something_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = ("smoke", "a")

    def done(identity: Identity = NOW) -> tuple[list[int], str]:
        caplog.clear()
        rows = resume.done_rows(tmp_path, [task], Row, lambda _: identity)
        return [row.value for row in rows.values()], " ".join(record.message for record in caplog.records)

    assert done() == ([], "")
    path = write(tmp_path, task)
    assert done() == ([1], "")
    for other, reason in (
        (Identity(inputs={"the photo": "2"}, versions=NOW.versions), "the photo changed"),
        (Identity(inputs={}, versions=NOW.versions), "the photo is not used any more"),
        (Identity(inputs={**NOW.inputs, "the mask": "1"}, versions=NOW.versions), "the mask is new"),
        (Identity(inputs=NOW.inputs, versions={"redepth": "2.0"}), "redepth 1.0 was used, it is 2.0 now"),
        (
            Identity(inputs=NOW.inputs, versions={"redepth": "1.0", "plug": "3"}),
            "plug none was used, it is 3 now",
        ),
    ):
        assert done(other) == ([], f"a (smoke): measured again: {reason}")
    path.with_suffix(".photo.jpg").unlink()
    assert done() == ([], "a (smoke): measured again: a.photo.jpg is missing")
    io.save_json(path, {"value": 1})
    assert done() == ([], "a (smoke): measured again: its record does not say what it was made from")


def test_a_row_that_is_measured_again_goes_first_and_with_its_files(tmp_path: Path) -> None:
    path = write(tmp_path, ("smoke", "a"))
    other = write(tmp_path, ("smoke", "a.b"))
    outside = tmp_path / "outside"
    outside.touch()
    record = {"value": 1, "files": {"../../outside": {}, "a.photo.jpg": {}, "a.b.photo.jpg/": {}}}
    io.save_json(path, record)
    assert resume.begin_row(tmp_path, ("smoke", "a")) == path
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.b.json", "a.b.photo.jpg"]
    assert outside.exists()
    assert other.exists()
