"""The doctor command and the checks of the embedded weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from redepth.checkpoints import WEIGHTS, hub_api, lookup
from redepth.cli import capabilities, checks
from redepth.components import FAMILIES
from redepth.config import preset_names
from redepth.contracts import Prior
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.errors import MissingDependencyError
from redepth.registry import Entry, Registry
from redepth.renderers import REGISTRY as RENDERERS
from tests.support.command import call
from tests.support.hub_server import Hub
from tests.support.terminal import on_terminal


def commands_in(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith(("  redepth ", "  pip "))]


@pytest.mark.parametrize("columns", [None, 80])
def test_the_overview_is_short_and_no_command_is_wrapped(
    columns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = call("doctor").out if columns is None else on_terminal("doctor", columns=columns)
    lines = text.splitlines()
    assert 15 <= len(lines) <= 40
    found = commands_in(text)
    assert found == [f"redepth download {name}" for name in ("da3-mono-large", "re-depth-anything")] + [
        "redepth download re-depth-fast"
    ]
    if columns:
        assert max(map(len, lines)) <= columns
    presets = "embedded, embedded-relief, embedded-relief-photo, smoke"
    for word in (torch.__version__, presets, "HF_HUB_OFFLINE is set", "4 of 7", "doctor --all"):
        assert word in " ".join(text.split())


def test_all_shows_every_component_and_each_command_once() -> None:
    done = call("doctor", "--all")
    assert done.code == 0, done.out
    sections = {block.splitlines()[0]: block for block in done.out.split("\n\n") if block.strip()}
    for family, registry in FAMILIES.items():
        rows = [line.split() for line in sections[family].splitlines()]
        for name in registry.entries():
            assert sum(row[1:2] == [name] and "(" not in row[2] for row in rows) == 1, name
    assert all(name in sections["presets"] for name in preset_names())
    for word in ("cuda", "heic", "hub", "relief-depth/model.safetensors"):
        assert word in done.out
    # No registry has what MoGe-3 needs.
    *elsewhere, download = commands_in(sections["depth-models"])
    assert download == "redepth download depth-model NAME"
    assert [command for command in elsewhere if command.startswith("pip")] == elsewhere
    assert elsewhere[-1].endswith('FlexGEMM.git"')
    for block in sections.values():
        assert len(commands_in(block)) == len(set(commands_in(block)))
    assert "broken" not in done.out


def test_json_holds_every_check_and_the_commands() -> None:
    done = call("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert set(found) == {"healthy", "checks", "commands"}
    assert found["healthy"] is True
    keys = {"what", "state", "ok", "found", "cure", "commands", "vital"}
    assert all(set(check) == keys for section in found["checks"].values() for check in section)
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
    assert all(f"`{key}`" in page for key in (*found, *keys, *checks.machine()))
    by_name = {check["what"]: check for check in found["checks"]["priors"]}
    assert by_name["pixel-diffusion"]["state"] == "ready"
    assert by_name["ic-light"]["commands"] == ["redepth download prior ic-light"]
    assert "redepth download re-depth-anything" in found["commands"]


def test_commands_are_merged() -> None:
    wanted = [
        'pip install "redepth[heic]"',
        "redepth download a",
        'pip install "redepth[exr,heic]"',
        'pip install "redepth[nvdiffrast]"',
        "redepth download a",
    ]
    assert checks.merged(wanted) == [
        'pip install "redepth[exr,heic]"',
        "redepth download a",
        'pip install "redepth[nvdiffrast]"',
    ]
    assert checks.merged([]) == []


def test_what_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = (checks.Extra("no_such_module", "heic", "x"), checks.Extra("no_such_module", "exr", "y"))
    monkeypatch.setattr(checks, "EXTRAS", extras)
    monkeypatch.setitem(RENDERERS._entries, "gone", Entry("gone", "no_such_module:Gone", "from nowhere"))
    needy = Entry("needy", "redepth.renderers.ggx:GGX", needs=(("no_such_module", "heic"),))
    monkeypatch.setitem(RENDERERS._entries, "needy", needy)
    done = call("doctor")
    assert done.code == 0, done
    assert commands_in(done.out)[-1] == 'pip install "redepth[exr,heic]"'
    everything = call("doctor", "--all").out
    assert "cannot import no_such_module:Gone" in everything
    assert everything.count('pip install "redepth[exr,heic]"') == 1


def test_an_extra_that_a_preset_needs_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("heic", "da3")
    missing = [checks.Extra("no_such_module", name, "x") for name in names]
    monkeypatch.setattr(checks, "EXTRAS", tuple(missing))
    wanted = ('pip install "redepth[da3]"', "pip install --no-deps depth-anything-3")
    preset = checks.Check("p", "install", "package missing", commands=wanted)
    families = {"presets": [preset]}
    monkeypatch.setattr(capabilities, "family", lambda name: families.get(name, []))
    assert commands_in(call("doctor").out) == [*wanted, 'pip install "redepth[heic]"']
    assert json.loads(call("doctor", "--json").out)["commands"] == [*wanted, 'pip install "redepth[heic]"']


def test_a_missing_package_of_a_component_names_all_commands() -> None:
    def build() -> object:
        raise MissingDependencyError(
            'x is needed: pip install "redepth[da3]" && pip install --no-deps depth-anything-3'
        )

    check = capabilities._attempt("x", build, "redepth download x")
    assert check.state == "install"
    assert check.commands == ('pip install "redepth[da3]"', "pip install --no-deps depth-anything-3")
    assert "pip" not in check.cure


def test_what_is_vital_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = checks.Check("a file", "unavailable", "missing or changed", "the cure", vital=True)
    monkeypatch.setattr(checks, "embedded_weights", lambda: [broken])
    for option in ((), ("--all",), ("--json",)):
        done = call("doctor", *option)
        assert done.code == 2
        assert "missing or changed" in done.out
        assert "the cure" in done.out
    assert json.loads(done.out)["healthy"] is False


def test_the_hub_is_asked_once_and_for_nothing(online: Hub) -> None:
    done = call("doctor")
    assert done.code == 0, done
    assert [(request.method, request.path) for request in online.requests] == [("HEAD", "/")]
    assert "hub               reachable" in done.out


def test_a_component_of_another_package_that_breaks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("prior", "redepth.none", Prior)

    class Odd:
        def __init__(self) -> None:
            raise ZeroDivisionError("odd")

    entry = Entry("odd", Odd)
    monkeypatch.setitem(registry._entries, "odd", entry)
    check = capabilities._component("prior", registry, entry)
    assert (check.state, check.found) == ("unavailable", "broken")
    assert "ZeroDivisionError: odd" in check.cure


def test_weights_in_the_cache_make_a_component_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: True)
    states = {check.what: check.state for check in capabilities.family("depth-models")}
    assert states["depth-anything-v2-large"] == "ready"
    assert set(states) == set(DEPTH_MODELS.entries())


def test_nothing_is_asked_of_the_hub_within_the_context() -> None:
    assert hub_api.unreachable() == "HF_HUB_OFFLINE is set"
    with hub_api.this_machine_only():
        assert hub_api.unreachable() == "it was not asked"
    assert hub_api.unreachable() == "HF_HUB_OFFLINE is set"


def test_doctor_detects_changed_and_missing_weights(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    digests = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != checks.CHECKSUMS):
        digests[path.relative_to(folder).as_posix()] = checks.sha256(path)
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (folder / checks.CHECKSUMS).write_text(lines + "\n")
    found = checks.embedded_weights(folder)
    assert {check.what for check in found} == set(digests)
    assert all(check.ok for check in found)

    changed = folder / "relief-depth" / "model.safetensors"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    (folder / "relief-depth" / "config.json").unlink()
    wrong = [check for check in checks.embedded_weights(folder) if not check.ok]
    names = [f"relief-depth/{name}" for name in ("config.json", "model.safetensors")]
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
