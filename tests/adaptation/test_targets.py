"""Targets: the refinements of the ordinary pipeline, stored, resumed and shared, and which are trusted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redepth import io
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.targets import (
    TargetRow,
    deviation_of,
    judged,
    load_target,
    make_targets,
    photo_seed,
    require_trusted,
    stored_targets,
)
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.errors import ConfigError, InputError
from redepth.ops.statistics import agreement_weight
from redepth.optim.outcome import Outcome
from redepth.pipeline import Pipeline
from redepth.runtime.lock import LOCK, locked
from tests.support.helpers import seeded
from tests.support.small_photos import write_photo

SMALL = ("depth_model.longer_side=56", "optim.steps=1", "optim.members=2")
SEED = 5


def preset(*overrides: str) -> Preset:
    return resolve(load_preset("smoke", [*SMALL, *overrides]))


def file_of(path: Path) -> PhotoFile:
    return PhotoFile(path.name, path, io.sha256_of(path))


@dataclass(frozen=True)
class Made:
    """Two photos that are refined, and one whose file is damaged."""

    folder: Path
    photos: list[PhotoFile]
    rows: dict[str, TargetRow]
    failures: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("targets")
    paths = [write_photo(home / f"{name}.png", seed) for seed, name in enumerate("abc")]
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    photos = [file_of(path) for path in paths]
    return Made(home / "out", photos, *make_targets(photos, preset(), home / "out", device="cpu", seed=SEED))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A folder with the same rows, to be changed."""
    return Path(shutil.copytree(made.folder, tmp_path / "out"))


def again(folder: Path, photos: Sequence[PhotoFile], chosen: Preset, **options: Any) -> list[str]:
    """The names of the photos that another call refines."""
    seen: list[str] = []
    options = {"seed": SEED, "device": "cpu", **options}
    make_targets(
        photos, chosen, folder, on_done=lambda done, ended, total: seen.append(done.item[1]), **options
    )
    return seen


def arrays(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / "images" / "refined" / f"{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def outcome(members: torch.Tensor, **options: Any) -> Outcome:
    start = torch.linspace(1, 3, 64 * 64).view(1, 1, 64, 64)
    members = start + members
    return Outcome(
        predicts="disparity",
        initial=start,
        members=members,
        initial_depth=start,
        member_depths=members,
        offsets=torch.zeros(len(members)),
        history={},
        steps_done=[1] * len(members),
        members_per_batch=1,
        **options,
    )


# --- the refinements ------------------------------------------------------------------------------


def test_a_photo_that_fails_is_reported_and_left_out(made: Made) -> None:
    assert list(made.rows) == ["a.png", "c.png"]
    assert list(made.failures) == ["b.png"]
    assert "b.png" in made.failures["b.png"]


def test_targets_are_the_refinements_of_the_pipeline(made: Made) -> None:
    photo, row = made.photos[2], made.rows["c.png"]
    own = photo_seed(SEED, photo.sha256)
    result = Pipeline(preset(), device="cpu").refine(photo.path, seed=own)
    found = load_target(made.folder, row)
    assert torch.equal(found.initial, result.outcome.initial)
    assert torch.equal(found.refined, result.outcome.refined)
    assert torch.equal(found.trust, agreement_weight(found.initial, _alone(result.outcome), 0.1))
    assert 0.05 < float(found.trust.mean()) < 0.9999
    assert not torch.equal(found.refined, found.initial)
    assert (found.unit, found.camera) == (result.outcome.unit, result.outcome.camera)
    assert (row.seed, row.members, row.prompt) == (own, 2, "")
    assert row.change == pytest.approx(result.change)
    assert row.agreement == pytest.approx(float(found.trust.mean()))
    assert {name: record["value"] for name, record in row.diagnostics.items()} == {
        name: signature.value for name, signature in result.diagnostics.items()
    }


def _alone(outcome: Outcome) -> torch.Tensor:
    return torch.cat([replace(outcome, members=member[None]).refined for member in outcome.members])


def test_other_photos_do_not_change_a_target(made: Made, tmp_path: Path) -> None:
    # Also under another name.
    renamed = tmp_path / "x.png"
    shutil.copy(made.photos[2].path, renamed)
    rows, failures = make_targets([file_of(renamed)], preset(), tmp_path, device="cpu", seed=SEED)
    assert not failures
    assert rows["x.png"].seed == made.rows["c.png"].seed
    alone, among = arrays(tmp_path, "x.png"), arrays(made.folder, "c.png")
    assert set(alone) == {"initial", "refined", "deviation"}
    for name, values in alone.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, among[name])


def test_every_photo_and_every_seed_has_a_seed_of_its_own() -> None:
    hashes = [f"{i:08x}" + "0" * 56 for i in (0, 7, 2**32 - 1)]
    seeds = {photo_seed(seed, sha256) for seed in (0, 3) for sha256 in hashes}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_large_forms_that_the_blend_removes_are_no_disagreement() -> None:
    shift = torch.tensor([-0.2, 0.2]).view(2, 1, 1, 1).expand(2, 1, 64, 64)
    fine = 0.05 * torch.rand(2, 1, 64, 64, generator=seeded())
    assert float(deviation_of(outcome(shift)).min()) == pytest.approx(0.2, rel=1e-4)
    detailed = deviation_of(outcome(shift + fine, blend="detail", blend_scale=0.2))
    assert float(detailed.max()) < 0.05
    alone = deviation_of(outcome(fine, blend="detail", blend_scale=0.2))
    assert torch.allclose(detailed, alone, atol=1e-5)
    assert float(alone.mean()) > 0.005
    assert bool((deviation_of(outcome(fine[:1])) == 0).all())


def test_the_camera_and_the_unit_are_stored(tmp_path: Path) -> None:
    photo = file_of(write_photo(tmp_path / "a.png"))
    chosen = preset(
        "renderer.camera=pinhole", "renderer.field_of_view=60", "depth_model.scale=auto", "optim.members=1"
    )
    make_targets([photo], chosen, tmp_path / "out", device="cpu")
    (row,) = stored_targets([photo], chosen, tmp_path / "out").values()
    found = load_target(tmp_path / "out", row)
    refiner = Pipeline(chosen, device="cpu").refiner
    assert found.camera.pinhole
    assert found.camera.field_of_view_degrees(40, 50) == pytest.approx((60, 49.6), abs=0.1)
    assert found.unit == refiner.unit(found.initial) != 1
    # A single member agrees with itself.
    assert bool((found.trust == 1).all())
    assert row.agreement == 1


# --- resumed and shared ---------------------------------------------------------------------------


def test_what_is_done_is_not_refined_again(made: Made) -> None:
    good = [made.photos[0], made.photos[2]]
    assert again(made.folder, good, preset()) == []
    assert stored_targets(made.photos, preset(), made.folder, seed=SEED) == made.rows


def test_an_unfinished_or_damaged_row_is_made_again(made: Made, copied: Path) -> None:
    rows = copied / "images" / "refined"
    # A kill between the maps and the row leaves the maps alone.
    (rows / "a.png.json").unlink()
    (rows / "c.png.npz").write_bytes((rows / "c.png.npz").read_bytes()[:100])
    assert stored_targets(made.photos, preset(), copied, seed=SEED) == {}
    good = [made.photos[0], made.photos[2]]
    assert again(copied, good, preset()) == ["a.png", "c.png"]
    for name in ("a.png", "c.png"):
        before, after = arrays(made.folder, name), arrays(copied, name)
        assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "changed", [["optim.steps=2"], ["prior.guidance_scale=4"], ["depth_model.longer_side=70"]]
)
def test_rows_of_another_preset_do_not_count(made: Made, changed: list[str]) -> None:
    assert stored_targets(made.photos, preset(*changed), made.folder, seed=SEED) == {}


def test_rows_of_another_seed_or_photo_do_not_count(made: Made, tmp_path: Path) -> None:
    assert stored_targets(made.photos, preset(), made.folder, seed=SEED + 1) == {}
    other = replace(file_of(write_photo(tmp_path / "a.png", 9)), name="a.png")
    assert stored_targets([other], preset(), made.folder, seed=SEED) == {}


@pytest.mark.parametrize(
    "changed",
    [["adapt.steps=7"], ["description=x"], ["output.write=map"], ["adapt.trust.least=0.1"]],
)
def test_settings_that_change_no_refinement_keep_the_rows(made: Made, changed: list[str]) -> None:
    assert list(stored_targets(made.photos, preset(*changed), made.folder, seed=SEED)) == ["a.png", "c.png"]


def test_processes_share_the_photos(made: Made, copied: Path) -> None:
    photos = [made.photos[2], made.photos[0], made.photos[2]]
    unequal = [replace(photo, name=f"{i}.png") for i, photo in enumerate(photos)]
    assert again(copied, unequal, preset(), share=(0, 2)) == ["0.png", "2.png"]
    assert again(copied, unequal, preset(), share=(0, 2)) == []
    assert again(copied, unequal, preset(), share=(1, 2)) == ["1.png"]
    assert list(stored_targets(unequal, preset(), copied, seed=SEED)) == ["0.png", "1.png", "2.png"]
    own, _ = make_targets(unequal, preset(), copied, device="cpu", seed=SEED, share=(1, 2))
    assert list(own) == ["1.png"]


def test_a_photo_that_changed_since_it_was_found_fails(made: Made, tmp_path: Path) -> None:
    photo = file_of(write_photo(tmp_path / "a.png"))
    write_photo(photo.path, 3)
    rows, failures = make_targets([photo], preset(), tmp_path / "out", device="cpu")
    assert not rows
    assert "changed since the run began" in failures["a.png"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.adaptation.test_targets import file_of, make_targets, preset

def end(done, ended, total):
    os.kill(os.getpid(), signal.SIGKILL)

photos = [file_of(Path(path)) for path in sys.argv[2:]]
make_targets(photos, preset(), Path(sys.argv[1]), device="cpu", seed=5, on_done=end)
"""


@pytest.mark.slow
def test_a_killed_call_resumes(made: Made, tmp_path: Path) -> None:
    good = [made.photos[0], made.photos[2]]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *(str(photo.path) for photo in good)]
    ended = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ended.returncode == -signal.SIGKILL
    assert list(stored_targets(good, preset(), tmp_path, seed=SEED)) == ["a.png"]
    assert again(tmp_path, good, preset()) == ["c.png"]
    for name in ("a.png", "c.png"):
        once, resumed = arrays(made.folder, name), arrays(tmp_path, name)
        assert all(np.array_equal(once[key], resumed[key]) for key in once)


# --- what is trusted ------------------------------------------------------------------------------


def with_value(row: TargetRow, name: str, value: float) -> TargetRow:
    record = {**row.diagnostics[name], "value": value}
    return row.model_copy(update={"diagnostics": {**row.diagnostics, name: record}})


def test_a_flagged_photo_is_left_out_unless_it_is_accepted(made: Made) -> None:
    row = with_value(made.rows["a.png"], "over_smoothing", 0.3)
    found = judged(row, made.folder, preset())
    assert found.flagged == {"over_smoothing": 0.3}
    assert found.reasons == ["over-smoothing (not calibrated for this preset): 0.3, above 0.11"]
    assert not found.trusted
    calibrated = resolve(load_preset("embedded-relief"))
    assert judged(row, made.folder, calibrated).reasons == ["over-smoothing: 0.3, above 0.11"]
    accepted = judged(row, made.folder, preset("adapt.trust.flagged=true"))
    assert (accepted.flagged, accepted.trusted) == ({"over_smoothing": 0.3}, True)
    raised = judged(row, made.folder, preset("diagnostics.thresholds.over_smoothing=0.4"))
    assert (raised.flagged, raised.trusted) == ({}, True)
    assert made.rows["a.png"].trusted


def test_a_photo_on_which_the_members_disagree_is_left_out(made: Made) -> None:
    row = made.rows["a.png"]
    assert judged(row, made.folder, preset(f"adapt.trust.least={row.agreement - 1e-6}")).trusted
    left_out = judged(row, made.folder, preset(f"adapt.trust.least={row.agreement + 1e-6}"))
    assert len(left_out.reasons) == 1
    assert left_out.reasons[0].startswith("the members disagree: mean trust")


def test_another_tolerance_needs_no_new_refinement(made: Made) -> None:
    strict = preset("adapt.trust.tolerance=0.001", "adapt.trust.least=0.9")
    rows = stored_targets(made.photos, strict, made.folder, seed=SEED)
    row = rows["a.png"]
    found = load_target(made.folder, row)
    assert row.agreement == pytest.approx(float(found.trust.mean()))
    assert row.agreement < made.rows["a.png"].agreement
    assert not row.trusted
    values = {name: torch.from_numpy(a)[None, None] for name, a in arrays(made.folder, "a.png").items()}
    both = torch.cat([values["deviation"], -values["deviation"]])
    assert torch.allclose(found.trust, agreement_weight(values["initial"], both, 0.001))


def test_without_any_trusted_photo_the_error_says_why_and_what_to_do(made: Made) -> None:
    rows = {
        name: judged(with_value(row, "sky_geometry", 0.9), made.folder, preset("adapt.trust.least=1"))
        for name, row in made.rows.items()
    }
    with pytest.raises(InputError) as error:
        require_trusted(rows, "held-out photos")
    message = str(error.value)
    assert "none of 2 refined held-out photos" in message
    assert "sky geometry (not calibrated for this preset): 2" in message
    assert "the members disagree: 2" in message
    assert "adapt.trust.flagged=true" in message
    assert require_trusted({**rows, "c.png": made.rows["c.png"]}) == {"c.png": made.rows["c.png"]}


def test_maps_that_are_gone_are_an_error_of_the_input(made: Made, copied: Path) -> None:
    (copied / "images" / "refined" / "a.png.npz").unlink()
    with pytest.raises(InputError, match=r"refinement of a\.png .*a\.png\.npz is missing"):
        load_target(copied, made.rows["a.png"])


def test_maps_that_another_adaptation_wrote_are_refused(made: Made, copied: Path, tmp_path: Path) -> None:
    """Two adaptations share a folder, and their photos have the same names."""
    other = file_of(write_photo(tmp_path / "other" / "a.png", 7))
    assert again(copied, [other], preset()) == ["a.png"]
    with pytest.raises(InputError, match=r"a\.png\.npz was changed\).* --refined of its own"):
        load_target(copied, made.rows["a.png"])
    stored = stored_targets([made.photos[2]], preset(), copied, seed=SEED)["c.png"]
    assert stored == made.rows["c.png"]
    load_target(copied, stored)


def test_one_process_at_a_time_refines_into_a_folder(made: Made, copied: Path) -> None:
    good = [made.photos[0], made.photos[2]]
    with locked(copied):
        # Those whose photos are refined only read.
        assert again(copied, good, preset()) == []
        with pytest.raises(ConfigError, match=r"^--refined .* is writing there; wait until it ends"):
            again(copied, good, preset("optim.steps=2"))
    assert again(copied, good[:1], preset("optim.steps=2")) == ["a.png"]
    assert not (copied / LOCK).exists()


def test_a_folder_that_cannot_be_made_is_one_line(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"--refined .*cannot be written to"):
        again(tmp_path / "file" / "sub", made.photos, preset())
