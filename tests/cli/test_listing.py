"""The list and show commands."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

from redepth.checkpoints import lookup
from redepth.cli import capabilities
from redepth.components import list_components, resolve
from redepth.config import load_preset, preset_names
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.literals import FamilyName
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS
from tests.support.command import call, one_line
from tests.support.terminal import on_terminal


def test_the_former_name_of_an_option_is_one_line_on_stderr() -> None:
    former = call("show", "smoke", "--set", "prior.tell=photo")
    assert former.code == 0
    (line,) = former.err.splitlines()
    assert line == "warning: prior.tell is deprecated, use its new name prior.condition_on"
    assert former.out == call("show", "smoke", "--set", "prior.condition_on=photo").out
    both = ("--set", "prior.tell=photo", "--set", "prior.condition_on=photo")
    one_line(call("show", "smoke", *both), "prior.tell", "former name", "prior.condition_on")


def test_list_names_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("list")
    assert done.code == 0
    assert len(done.out.splitlines()) <= 60
    for family in get_args(FamilyName):
        assert f"{family}  " in done.out
        by_name = family not in ("presets", "renderers")
        told = call("list", family).out if by_name else done.out
        for name, summary in list_components(family).items():
            assert name in done.out
            # Where there is no terminal, nothing is cut.
            assert summary in told
    only = call("list", "renderers").out
    assert "blinn-phong" in only
    assert "pixel-diffusion" not in only
    # Brackets are text, not markup; long text is neither cut nor broken.
    summary = "takes [bold] (B, L) and [/nothing] " + "w" * 300
    monkeypatch.setitem(RENDERERS._entries, "odd[name]", Entry("odd[name]", "odd:Odd", summary))
    for arguments in (("list",), ("list", "renderers")):
        assert any("odd[name]" in line and summary in line for line in call(*arguments).out.splitlines())
    one_line(call("list", "rendererz"), "did you mean 'renderers'")


def test_the_overview_says_of_every_row_whether_it_can_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    needy = Entry(
        "needy", "redepth.renderers.lambert:Lambert", "from afar", needs=(("no_such_module", "extra"),)
    )
    monkeypatch.setitem(RENDERERS._entries, "needy", needy)
    monkeypatch.setitem(DEPTH_MODELS._entries, "foreign", Entry("foreign", "no_such_module:Foreign", "away"))
    lines = call("list").out.splitlines()
    for family in ("presets", "renderers", "priors", "objectives", "depth-models", "datasets"):
        found = listed_states(lines, family)
        expected = {check.what: check.state for check in capabilities.family(family)}
        assert set(expected) == set(list_components(family))
        assert found == expected, family
    assert listed_states(lines, "renderers")["needy"] == "install"
    assert listed_states(lines, "depth-models")["foreign"] == "unavailable"
    assert (
        "download: its weights are not here; install: a package is missing; unavailable: not on" in lines[-2]
    )


def listed_states(lines: list[str], family: str) -> dict[str, str]:
    """Return component -> state of a family in the overview, in either of its two forms."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{family}  "))
    states = {}
    for line in lines[start + 1 :]:
        if not line.startswith("  "):
            break
        group = re.fullmatch(r"  (?:(ready|download|install|unavailable): )?(\S+(?:, \S+)+|\S+)", line)
        if group:
            states |= dict.fromkeys(group[2].split(", "), group[1] or "ready")
        else:
            name, state = line.split()[:2]
            states[name] = state
    return states


@pytest.mark.parametrize("family", [name for name in get_args(FamilyName) if name != "protocols"])
def test_what_is_missing_says_how_to_get_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    for check in capabilities.family(family):
        assert check.ok or check.commands or check.cure, check
        if check.state == "download":
            assert all(command.startswith("redepth download ") for command in check.commands), check
        if check.state == "install":
            assert any("install" in command for command in check.commands), check


def test_data_sets_that_redepth_does_not_have_are_named() -> None:
    last = call("list", "datasets").out.splitlines()[-1]
    downloads = [name for name in list_components("datasets") if name not in ("motorcycle", "synthetic")]
    assert len(downloads) > 5
    assert last.startswith(f"give --root FOLDER for {', '.join(downloads)};")
    assert "docs/benchmarks.md" in last


def test_a_terminal_gets_a_listing_of_its_width() -> None:
    lines = on_terminal("list", columns=80).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    names = re.split(r"[\s,]+", " ".join(lines))
    for family in get_args(FamilyName):
        assert set(list_components(family)) <= set(names)
    assert any(line.endswith("…") for line in lines)


def test_a_family_is_listed_with_licence_and_what_is_missing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    # A component of another package that cannot be imported does not stop the listing.
    foreign = Entry("foreign", "no_such_module:Foreign", "from package foreign")
    monkeypatch.setitem(DEPTH_MODELS._entries, "foreign", foreign)
    done = call("list", "depth-models")
    assert done.code == 0, done
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    for name, entry in DEPTH_MODELS.entries().items():
        assert entry.licence in rows[name]
        assert entry.summary in rows[name]
        needs_package = name.startswith(("depth-anything-3", "moge-"))
        if "checkpoint" in entry.defaults and not needs_package:
            assert rows[name].split()[1] == "download"
    assert "  CC-BY-NC-4.0  " in rows["depth-anything-v2-base"]
    assert "precomputed: precomputed needs depth_model.path" in done.out
    assert "foreign: component 'foreign'" in done.out
    assert done.out.endswith("  redepth download depth-model NAME\n")
    # With the weights at hand nothing is missing.
    monkeypatch.setattr(lookup, "is_cached", lambda *_: True)
    assert "redepth download" not in call("list", "depth-models").out
    assert "CreativeML OpenRAIL-M" in call("list", "priors").out


@pytest.mark.parametrize("family", get_args(FamilyName))
def test_the_lists_are_json(family: str) -> None:
    done = call("list", "--json")
    assert (done.code, done.err) == (0, "")
    (components,) = [found for name, found in json.loads(done.out).items() if name == family]
    assert [(item["name"], item["summary"]) for item in components] == list(list_components(family).items())
    assert all(set(item) == {"name", "summary", "licence"} for item in components)
    checked = json.loads(call("list", family, "--json").out)
    assert set(checked) == {family}
    more = set() if family == "protocols" else {"state", "found", "cure", "commands"}
    assert all(set(item) == {"name", "summary", "licence"} | more for item in checked[family])


@pytest.mark.parametrize("option", [(), ("--plain",), ("--json",)])
@pytest.mark.parametrize("preset", preset_names())
def test_show_loads_back_to_the_same_preset(preset: str, option: tuple[str, ...], tmp_path: Path) -> None:
    done = call("show", preset, "--set", "optim.members=3", "-s", "prior.guidance_scale=7e-1", *option)
    assert done.code == 0
    assert ("#" in done.out) is (option == ())
    saved = tmp_path / "saved.yaml"
    saved.write_text(done.out)
    expected = resolve(load_preset(preset, ["optim.members=3", "prior.guidance_scale=0.7"]))
    assert load_preset(saved) == expected
    assert resolve(load_preset(saved)) == expected
    assert load_preset(saved).prior.options["guidance_scale"] == 0.7
    if option == ("--json",):
        assert json.loads(done.out) == expected.model_dump(mode="json")


def test_show_refuses_what_refine_would() -> None:
    one_line(call("show", "embeded"), "did you mean 'embedded'")
    one_line(call("show", "smoke", "-s", "prior.gidance_scale=3"), "did you mean 'guidance_scale'")
    one_line(call("show", "smoke", "-s", "prior.score=sdss"), "got 'sdss'; did you mean 'sds'?")
    one_line(call("show", "smoke", "-s", "output.write=mapp"), "did you mean 'map'?")


@pytest.mark.parametrize(
    "code", ["import sys; sys.exit(3)", "raise SystemExit", "1 / 0", "raise RecursionError"]
)
def test_a_plug_in_that_ends_the_program_ends_no_listing(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting_plug_in.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exiting_plug_in", raising=False)
    monkeypatch.setitem(
        RENDERERS._entries, "exiting", Entry("exiting", "exiting_plug_in:Renderer", "a plug-in")
    )
    done = call("list", "renderers")
    assert done.code == 0
    assert "exiting" in done.out
    one_line(call("show", "smoke", "-s", "renderer.name=exiting"), "cannot import exiting_plug_in:Renderer")
    (row,) = (check for check in capabilities.family("renderers") if check.what == "exiting")
    assert "cannot import exiting_plug_in:Renderer" in row.cure
