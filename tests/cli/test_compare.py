"""The compare command: one table and one sheet, or one line that says what is wrong."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import redepth
from redepth.exports.writing import WRITERS
from redepth.runtime import component_files
from tests.support.command import Finished, call, one_line, record

SMALL = ("--preset", "smoke", "--device", "cpu", "--set", "optim.steps=1", "--set", "optim.members=1")
VARY = ("--vary", "renderer.name=ggx,lambert")


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, Path], motorcycle_disparity: Path
) -> tuple[Finished, Path]:
    out, truths = tmp_path_factory.mktemp("compare"), tmp_path_factory.mktemp("truths")
    shutil.copy(motorcycle_disparity, truths / "motorcycle_left.npz")
    photos = [real_photos[name] for name in ("brick", "motorcycle_left")]
    done = call("compare", *photos, *SMALL, *VARY, "--gt", truths, "--gt-kind", "disparity", "--out", out)
    return done, out


def test_a_table_and_a_sheet_are_made(compared: tuple[Finished, Path]) -> None:
    done, out = compared
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir() if path.is_file()} >= {
        "table.csv",
        "table.json",
        "table.md",
        "sheet.png",
    }
    for word in ("renderer", "ggx", "lambert", "SI-log", str(out / "sheet.png"), str(out / "table.md")):
        assert word in done.out
    assert (out / "renderer.name=ggx" / "brick" / "comparison.png").is_file()
    assert "protocol photo: aligned by" in done.out
    assert "protocol photo: aligned by" in (out / "table.md").read_text()
    unmeasured, *left_out = done.complaints
    assert "brick.png: is not measured" in unmeasured
    assert left_out == [
        f"warning: motorcycle_left.png (renderer.name={name}): left out of 370500 pixels of the ground "
        "truth: 27226 not finite"
        for name in ("ggx", "lambert")
    ]
    assert [line[:4] for line in done.progress] == ["1/4:", "2/4:", "3/4:", "4/4:"]
    assert "SI-log" in done.progress[1]
    assert "changed by" in done.progress[0]


def test_the_same_command_resumes(compared: tuple[Finished, Path], real_photos: dict[str, Path]) -> None:
    _, out = compared
    photos = [real_photos[name] for name in ("brick", "motorcycle_left")]
    # Without the ground truth that photo is measured no more; the other one is done.
    done = call("compare", *photos, *SMALL, *VARY, "--out", out)
    assert done.code == 0
    assert [line.partition(" changed")[0] for line in done.progress] == [
        "3/4: renderer.name=ggx: motorcycle_left.png",
        "4/4: renderer.name=lambert: motorcycle_left.png",
    ]
    assert "SI-log" not in done.out
    assert "2 of 4 refinements were done already (--fresh refines them again)" in done.out


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["nothing is varied", "--vary"]),
        (("--vary", "renderer.name=ggx,no-such"), ["1 of 2 combinations", "no-such"]),
        (("--vary", "optim.stepz=1,2"), ["2 of 2 combinations", "did you mean 'steps'"]),
        (("--vary", "optim.steps=1,2"), ["optim.steps: given by --vary and by --set"]),
        ((*VARY, "--gt", "no-such"), ["no-such"]),
        (("--vary", "prompt.captioner=blip,none", "--prompt", "x"), ["--prompt replaces all captions"]),
        ((*VARY, "--out", "/proc/x"), ["--out /proc/x", "choose another one"]),
        ((*VARY, "--import", "no-such.py"), ["no-such.py: no such file"]),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work(
    arguments: tuple[str, ...], words: list[str], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    out = () if "--out" in arguments else ("--out", tmp_path / "out")
    one_line(call("compare", real_photos["brick"], *SMALL, *arguments, *out), *words)
    assert not (tmp_path / "out").exists()


def test_a_bad_map_of_ground_truth_fails_its_photo_alone(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    truths = tmp_path / "truths"
    truths.mkdir()
    (truths / "coins.npy").write_text("no map")
    np.save(truths / "brick.npy", np.linspace(1, 2, 512 * 512, dtype=np.float32).reshape(512, 512))
    photos = [real_photos[name] for name in ("coins", "brick")]
    command = (*SMALL, "--vary", "renderer.name=ggx", "--gt", truths, "--out", tmp_path / "out")
    done = call("compare", *photos, *command)
    assert done.code == 2
    errors = [line for line in done.complaints if line.startswith("error: ")]
    assert errors[0].startswith("error: coins.png (renderer.name=ggx): ")
    assert str(truths / "coins.npy") in errors[0]
    assert errors[1:] == ["error: 1 of 2 failed; the same command tries them again"]
    assert "SI-log" in done.out
    assert not (tmp_path / "out" / "renderer.name=ggx" / "coins").exists()


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gt-offset", "3"), ["--gt-offset is added to disparity"]),
        (("--protocol", "no-such"), ["no-such"]),
    ],
)
def test_a_wrong_option_of_ground_truth_stops_all(
    arguments: tuple[str, ...], words: list[str], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "coins.npy").touch()
    photos = [real_photos[name] for name in ("coins", "brick")]
    done = call("compare", *photos, *SMALL, *VARY, "--gt", tmp_path, *arguments)
    assert done.code == 2
    assert all(word in done.complaints[-1] for word in words)


@pytest.mark.usefixtures("never_loads")
def test_a_folder_of_truths_without_a_photos_name_is_refused(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other.npy").touch()
    one_line(
        call("compare", real_photos["brick"], *SMALL, *VARY, "--gt", tmp_path), "has no map of a photo's name"
    )


def test_a_bad_photo_does_not_stop_the_others(real_photos: dict[str, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no photo")
    command = (*SMALL, "--vary", "renderer.name=ggx", "--out", tmp_path / "out")
    done = call("compare", bad, real_photos["brick"], tmp_path / "missing.png", *command)
    assert done.code == 2
    errors = [line for line in done.complaints if line.startswith("error: ")]
    assert errors[0].startswith(f"error: bad.png (renderer.name=ggx): {bad}: not a readable image")
    assert errors[1].startswith("error: missing.png (renderer.name=ggx): ")
    assert errors[2] == "error: 2 of 3 failed; the same command tries them again"
    assert "ggx" in done.out
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_a_file_that_cannot_be_written_is_named_and_the_row_stays(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("compare", real_photos["coins"], *SMALL, "--vary", "renderer.name=ggx", "--out", tmp_path)
    with monkeypatch.context() as patched:
        failing = Mock(side_effect=OSError(errno.EIO, "Input/output error"))
        patched.setitem(WRITERS, "comparison", failing)
        done = call(*command)
    assert done.code == 2
    why = "comparison is not written: OSError: [Errno 5] Input/output error"
    assert done.complaints == [
        f"error: coins.png (renderer.name=ggx): {why}",
        "error: 1 of 1 failed; the same command tries them again",
    ]
    assert why in (tmp_path / "table.md").read_text()
    assert len(json.loads((tmp_path / "table.json").read_text())["photos"]) == 1
    again = call(*command)
    assert again.code == 0
    assert "coins.png (renderer.name=ggx): refined again: comparison could not be written" in again.out


def test_warnings_are_printed_as_refine_prints_them(real_photos: dict[str, Path], tmp_path: Path) -> None:
    judged = ("--set", "diagnostics.thresholds.collapse_order=0", "--out", tmp_path, "-q")
    done = call("compare", real_photos["coins"], *SMALL, "--vary", "renderer.name=ggx", *judged)
    assert (done.code, done.out) == (0, "")
    (line,) = done.complaints
    assert line.startswith("warning: coins.png (renderer.name=ggx): geometry collapse (order) ")


def test_a_prompt_by_hand_needs_no_captioner(real_photos: dict[str, Path], tmp_path: Path) -> None:
    captioner = ("--set", "prompt.captioner=blip", "--set", "prompt.checkpoint=no/such")
    command = (*SMALL, *captioner, "--vary", "renderer.name=ggx", "--out", tmp_path)
    done = call("compare", real_photos["coins"], *command, "--prompt", "relief")
    assert (done.code, done.complaints) == (0, [])
    assert record(tmp_path / "renderer.name=ggx" / "coins")["prompt"] == "relief"


@pytest.mark.slow
def test_a_component_of_ones_own_is_compared_in_workers(
    real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_files, "_imported", {})
    monkeypatch.setattr(redepth.renderers.REGISTRY, "_entries", dict(redepth.renderers.REGISTRY._entries))
    assert call("new", "renderer", "glow", "--out", tmp_path).code == 0
    command = (*SMALL, "--vary", "renderer.name=glow,lambert", "--import", tmp_path / "glow.py")
    photos = (real_photos["brick"], real_photos["moon"])
    workers = ("--workers", "2", "--threads", "1", "--out", tmp_path / "out", "-q")
    done = call("compare", *photos, *command, *workers)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "out" / "renderer.name=glow" / "moon" / "run.json").is_file()
