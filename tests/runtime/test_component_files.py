"""One-file components: imported by their path, once, also by workers; what is wrong is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import redepth
from redepth import components, io
from redepth.errors import ConfigError, RedepthError
from redepth.runtime import component_files
from redepth.runtime.component_files import import_file, import_same, imported_files
from redepth.runtime.executors import Resources, executor
from redepth.runtime.resume import Identity

RENDERER = '''
from __future__ import annotations

from dataclasses import dataclass

import redepth
from redepth.renderers.matte import Lambert


@redepth.renderers.register("NAME")
@dataclass(kw_only=True, eq=False)
class Glow(Lambert):
    """Lambert shading under another name."""
'''


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(component_files, "_imported", {})
    monkeypatch.setattr(redepth.renderers.REGISTRY, "_entries", dict(redepth.renderers.REGISTRY._entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("redepth_file_"):
            del sys.modules[name]


def written(path: Path, text: str = RENDERER, name: str = "glow") -> Path:
    path.write_text(text.replace("NAME", name))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        redepth.import_components(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_registers_its_components_and_is_imported_once(tmp_path: Path) -> None:
    file = written(tmp_path / "my-glow.py")
    assert redepth.import_components(file) == ["renderer glow"]
    first = redepth.renderers.REGISTRY.get("glow")
    assert redepth.import_components(str(file)) == []
    assert redepth.renderers.REGISTRY.get("glow") is first
    preset = components.resolve(redepth.load_preset("smoke", ["renderer.name=glow"]))
    assert preset.renderer.options["lights"] == 1
    assert imported_files() == {file: io.sha256_of(file)}
    assert [path.name for path in tmp_path.iterdir()] == ["my-glow.py"]


def test_a_changed_file_is_imported_again_and_changes_what_a_result_is_made_from(tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    redepth.import_components(file)
    preset = components.resolve(redepth.load_preset("smoke", ["renderer.name=glow"]))
    assert components.named_files(preset)["the code of glow.py"] == [file]
    before = Identity.of(components.named_files(preset), components.component_versions(preset))
    written(file, RENDERER.replace("another name", "a third name"))
    assert redepth.import_components(file) == ["renderer glow"]
    assert "third" in str(redepth.renderers.REGISTRY.get("glow").__doc__)
    after = Identity.of(components.named_files(preset), components.component_versions(preset))
    assert list(before.changes(after)) == ["the code of glow.py changed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import redepth\n\nx = = 1\n", [", line 3", "SyntaxError"]),
        ("x = 1\n\n\ny = nothing\n", [", line 4", "NameError: name 'nothing' is not defined"]),
        ("def f():\n    raise SystemExit(3)\nf()\n", [", line 2", "SystemExit: 3"]),
        ("import no_such_module\n", [", line 1", "no_such_module"]),
        (RENDERER.replace("NAME", "ggx"), [", line 10", "renderer 'ggx' is already registered"]),
        ("x = 1\n", ["registers no component", "@redepth.renderers.register"]),
        ("x = '\0'\n", ["null bytes"]),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_number(
    text: str, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    message = refusal(file)
    assert message.startswith(f"component file {file}")
    for word in words:
        assert word in message


def test_a_file_that_is_not_there_or_no_python_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.py").endswith("no such file")
    assert "cannot be read" in refusal(tmp_path)
    assert "rename it to end with .py" in refusal(written(tmp_path / "glow.txt"))


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    redepth.import_components(written(tmp_path / "glow.py"))
    message = refusal(written(tmp_path / "other" / "glow.py", name="shine"))
    assert str(tmp_path / "glow.py") in message
    assert "rename one" in message


def test_a_file_that_fails_leaves_the_former_module(tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    redepth.import_components(file)
    module = sys.modules["redepth_file_glow"]
    file.write_text("nothing\n")
    refusal(file)
    assert sys.modules["redepth_file_glow"] is module


def _registered(name: str) -> str:
    return str(redepth.renderers.REGISTRY.get(name).__module__)


def _make() -> partial[str]:
    return partial(_registered)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_workers_import_the_files_of_this_process(kind: str, tmp_path: Path) -> None:
    redepth.import_components(written(tmp_path / "glow.py"))
    if kind == "ray":
        pytest.importorskip("ray")
    resources = Resources(workers=2) if kind == "processes" else Resources(ray="local")
    outcomes = [done.result for done in executor(resources).run(_make, ["glow"])]
    assert outcomes == ["redepth_file_glow"]


def test_code_counts_as_it_was_executed_and_not_as_the_file_is_now(tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    redepth.import_components(file)
    preset = components.resolve(redepth.load_preset("smoke", ["renderer.name=glow"]))
    named = components.named_files(preset)
    before = Identity.of(named, {})
    written(file, RENDERER.replace("another name", "a third name"))
    assert Identity.of(named, {}) == before
    assert before.inputs["the code of glow.py"] != io.sha256_of(file)


def test_the_hash_is_of_the_text_that_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the file is replaced right after it is read."""
    file = written(tmp_path / "glow.py")
    executed = io.sha256_of(file)
    read = component_files._read

    def read_and_replaced(path: Path, given: Path) -> bytes:
        source = read(path, given)
        written(file, RENDERER + "# more")
        return source

    monkeypatch.setattr(component_files, "_read", read_and_replaced)
    import_file(file)
    assert imported_files() == {file: executed}


def test_a_worker_refuses_a_file_that_has_changed(tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    expected = io.sha256_of(file)
    written(file, RENDERER.replace("another name", "a third name"))
    with pytest.raises(ConfigError, match="changed since the run began; start the command again"):
        import_same({file: expected})
    assert imported_files() == {}
    assert "glow" not in redepth.renderers.REGISTRY.entries()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_run_ends_where_a_worker_finds_other_code(kind: str, tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    redepth.import_components(file)
    written(file, RENDERER.replace("another name", "a third name"))
    if kind == "ray":
        pytest.importorskip("ray")
    resources = Resources(workers=2) if kind == "processes" else Resources(ray="local")
    with pytest.raises(RedepthError, match="changed since the run began"):
        list(executor(resources).run(_make, ["glow"]))


def test_import_file_says_whether_it_ran(tmp_path: Path) -> None:
    file = written(tmp_path / "glow.py")
    assert [import_file(file), import_file(file)] == [True, False]
