"""The doctor command and the checks of the embedded weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from redepth.checkpoints import WEIGHTS
from redepth.cli import checks
from redepth.components import FAMILIES
from redepth.config import preset_names
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS
from tests.support.command import call


def test_doctor_reports_every_component() -> None:
    done = call("doctor")
    assert done.code == 0, done.out
    for family, registry in FAMILIES.items():
        for name in registry.entries():
            assert f"{family}: {name}" in done.out
    for preset in preset_names():
        assert preset in done.out
    for word in (torch.__version__, "cuda", "heic", "hub", "embedded: relief-depth/model.safetensors"):
        assert word in done.out
    assert not [check for check in checks.report()["components"] if check.found == "broken"]


def test_doctor_prints_commands_whole_and_fails_for_what_is_vital(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = checks.Check("embedded: weights", False, "missing or changed", "a cure", vital=True)
    monkeypatch.setattr(checks, "embedded_weights", lambda: [broken])
    monkeypatch.setattr(checks, "EXTRAS", {"no_such_module": "heic"})
    monkeypatch.setitem(RENDERERS._entries, "gone", Entry("gone", "no_such_module:Gone", "from nowhere"))
    done = call("doctor")
    assert done.code == 2
    assert 'pip install "redepth[heic]"' in done.out
    assert "missing or changed" in done.out
    assert "renderers: gone" in done.out
    assert "cannot import no_such_module:Gone" in " ".join(done.out.replace("│", " ").split())


def test_doctor_detects_changed_and_missing_weights(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    digests = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != checks.CHECKSUMS):
        digests[path.relative_to(folder).as_posix()] = checks.sha256(path)
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (folder / checks.CHECKSUMS).write_text(lines + "\n")
    found = checks.embedded_weights(folder)
    assert {check.what.removeprefix("embedded: ") for check in found} == set(digests)
    assert all(check.ok for check in found)

    changed = folder / "relief-depth" / "model.safetensors"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    (folder / "relief-depth" / "config.json").unlink()
    wrong = [check for check in checks.embedded_weights(folder) if not check.ok]
    names = [f"embedded: relief-depth/{name}" for name in ("config.json", "model.safetensors")]
    assert [check.what for check in wrong] == names
    assert all(check.vital and check.cure and "changed" in check.found for check in wrong)

    (folder / checks.CHECKSUMS).write_text("")
    (empty,) = checks.embedded_weights(folder)
    (folder / checks.CHECKSUMS).unlink()
    (absent,) = checks.embedded_weights(folder)
    assert empty == absent
    assert absent.vital
    assert not absent.ok


def test_the_recorded_checksums_cover_all_shipped_weights() -> None:
    listed = {line.split("  ")[1] for line in (WEIGHTS / checks.CHECKSUMS).read_text().splitlines()}
    files = {p.relative_to(WEIGHTS).as_posix() for p in WEIGHTS.rglob("*") if p.is_file()}
    assert listed == files - {checks.CHECKSUMS, "README.md"}
