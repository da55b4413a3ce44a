"""The list and show commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redepth.checkpoints import lookup
from redepth.cli import checks
from redepth.components import FAMILIES, list_components, resolve
from redepth.config import load_preset, preset_names
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS
from tests.support.command import call, one_line


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
    for family in ("presets", *FAMILIES):
        assert family in done.out
        for name in list_components(family):
            assert name in done.out
    only = call("list", "renderers").out
    assert "blinn-phong" in only
    assert "pixel-diffusion" not in only
    # Brackets are text, not markup; long text is folded, never cut.
    summary = "takes [bold] (B, L) and [/nothing] " + "w" * 300
    monkeypatch.setitem(RENDERERS._entries, "odd[name]", Entry("odd[name]", "odd:Odd", summary))
    odd = call("list", "renderers").out
    assert "odd[name]" in odd
    assert "takes [bold] (B, L) and [/nothing]" in odd
    assert odd.count("w") >= 300
    assert call("list", "rendererz").code == 2


@pytest.mark.slow
def test_depth_models_are_listed_with_licence_and_what_is_missing_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookup, "is_cached", lambda *_: False)
    # A component of another package that cannot be imported does not stop the listing.
    foreign = Entry("foreign", "no_such_module:Foreign", "from package foreign")
    monkeypatch.setitem(DEPTH_MODELS._entries, "foreign", foreign)
    done = call("list", "depth-models")
    assert done.code == 0, done
    rows = {
        cells[1].strip(): cells
        for cells in (line.split("│") for line in done.out.splitlines() if "│" in line)
    }
    for name, entry in DEPTH_MODELS.entries().items():
        assert entry.licence in rows[name][3]
        if "checkpoint" in entry.defaults and name != "depth-anything-3-mono":
            assert rows[name][4].strip().startswith("hf download")
    assert rows["depth-anything-v2-base"][3].strip() == "CC-BY-NC-4.0"
    assert "depth_model.path" in rows["precomputed"][4]
    assert "component 'foreign'" in rows["foreign"][4]
    # With the weights at hand nothing is missing.
    monkeypatch.setattr(lookup, "is_cached", lambda *_: True)
    assert "hf download" not in call("list", "depth-models").out


@pytest.mark.parametrize("preset", preset_names())
def test_show_loads_back_to_the_same_preset(preset: str, tmp_path: Path) -> None:
    done = call("show", preset, "--set", "optim.members=3", "-s", "prior.guidance_scale=7e-1")
    assert done.code == 0
    saved = tmp_path / "saved.yaml"
    saved.write_text(done.out)
    expected = resolve(load_preset(preset, ["optim.members=3", "prior.guidance_scale=0.7"]))
    assert load_preset(saved) == expected
    assert resolve(load_preset(saved)) == expected
    assert load_preset(saved).prior.options["guidance_scale"] == 0.7


def test_show_refuses_what_refine_would() -> None:
    one_line(call("show", "embeded"), "did you mean 'embedded'")
    one_line(call("show", "smoke", "-s", "prior.gidance_scale=3"), "did you mean 'guidance_scale'")


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
    (row,) = (check for check in checks.family("renderers") if check.what == "exiting")
    assert "cannot import exiting_plug_in:Renderer" in row.cure
