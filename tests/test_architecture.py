"""Rules about the source itself: who imports whom, what is public, what a bare install can import."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import redepth
from redepth import cli
from tests.support.command import ENVIRONMENT

ROOT = Path(redepth.__file__).parents[1]
PACKAGE = ROOT / "redepth"
API = Path(__file__).parent / "public_api.json"

FAMILIES = ("redepth.depth_models", "redepth.renderers", "redepth.priors")

# A module imports only from ranks below its own, and from its own part.
RANKS = (
    {"redepth.literals"},
    {"redepth.errors", "redepth.ops"},
    {"redepth.guidance"},
    {"redepth", "redepth.contracts"},
    {"redepth.registry", "redepth.io", "redepth.metrics"},
    {
        "redepth.photo_inputs",
        "redepth.config",
        "redepth.viz",
        "redepth.runtime",
        "redepth.checkpoints",
        "redepth.data",
    },
    {*FAMILIES, "redepth.optim", "redepth.protocols"},
    {"redepth.ground_truth"},
    {"redepth.exports"},
    {"redepth.refinement", "redepth.components", "redepth.captions"},
    {"redepth.pipeline"},
    {"redepth.adaptation", "redepth.batch", "redepth.bench", "redepth.clips"},
    {"redepth.experiments", "redepth.ablations", "redepth.app"},
    {"redepth.cli"},
    {"redepth.__main__"},
)

OPTIONAL = (
    "IPython",
    "OpenEXR",
    "accelerate",
    "addict",
    "av",
    "bitsandbytes",
    "cv2",
    "depth_anything_3",
    "einops",
    "fast_simplification",
    "gradio",
    "h5py",
    "kornia",
    "mitsuba",
    "moge",
    "nvdiffrast",
    "omegaconf",
    "peft",
    "pillow_heif",
    "pytorch3d",
    "ray",
    "skimage",
    "torchvision",
    "triton",
    "utils3d",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


NEEDS = {
    module: "triton"
    for module in SOURCES
    if module.startswith("redepth.ops.triton.") and module != "redepth.ops.triton.kernels"
}
"""Modules that import an optional package at once; their users import them inside functions."""


def part_of(module: str) -> str:
    """``redepth.ops.geometry`` -> ``redepth.ops``."""
    return ".".join(module.split(".")[:2])


def imports(module: str, source: str) -> set[str]:
    """Dotted names that a module imports, inside functions and for type checkers too.

    ``from a import b`` is ``a.b`` where that is a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide who imports whom"
            base = str(node.module)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else base for name in names}
    return found


IMPORTS = {module: imports(module, path.read_text()) for module, path in SOURCES.items()}


# --- who imports whom -----------------------------------------------------------------------------


def test_the_reader_of_imports_sees_what_it_should() -> None:
    source = """
from typing import TYPE_CHECKING
import torch.nn
from redepth import io
from redepth.ops import geometry
if TYPE_CHECKING:
    from redepth import viz
def f():
    from redepth.priors.scores import guide
"""
    found = imports("x", source)
    ours = {"redepth.io", "redepth.viz", "redepth.ops.geometry", "redepth.priors.scores"}
    assert found == {"typing", "torch.nn", *ours}


def test_every_module_has_a_rank() -> None:
    ranked = [part for rank in RANKS for part in rank]
    assert sorted(ranked) == sorted(set(map(part_of, SOURCES)))


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "redepth"])
def test_imports_point_downward(module: str) -> None:
    ranks = {part: number for number, rank in enumerate(RANKS) for part in rank}
    own = part_of(module)
    ours = {name for name in IMPORTS[module] if name.split(".")[0] == "redepth"}
    wrong = {name for name in ours if part_of(name) != own and ranks[part_of(name)] >= ranks[own]}
    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {
        module: {name for name in found if name in SOURCES and name != "redepth"} - {module}
        for module, found in IMPORTS.items()
        if module != "redepth"
    }
    while ends := [module for module, names in left.items() if not names & set(left)]:
        for module in ends:
            del left[module]
    assert not left, f"in a circle, or above one: {sorted(left)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_families_never_import_each_other(family: str) -> None:
    for module in SOURCES:
        if part_of(module) == family:
            others = {part_of(name) for name in IMPORTS[module]} & set(FAMILIES)
            assert others <= {family}, module


def test_optim_sees_contracts_only() -> None:
    for module in SOURCES:
        if part_of(module) == "redepth.optim":
            seen = {part_of(name) for name in IMPORTS[module] if name.startswith("redepth")}
            allowed = {"optim", "contracts", "guidance", "config", "errors", "ops", "registry", "runtime"}
            assert seen <= {f"redepth.{name}" for name in allowed}, module


def test_ops_need_torch_alone() -> None:
    for module in SOURCES:
        if part_of(module) == "redepth.ops":
            roots = {name.split(".")[0] for name in IMPORTS[module]} - set(sys.stdlib_module_names)
            assert roots <= {"torch", "redepth", NEEDS.get(module)}, module
            ours = {part_of(name) for name in IMPORTS[module] if name.startswith("redepth")}
            assert ours <= {"redepth.ops"}, module


def test_only_declared_packages_are_imported() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is in Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.split(r"[<>=]", line)[0].lower().replace("-", "_") for line in project["dependencies"]}
    extras = {
        re.split(r"[<>=]", line)[0].lower().replace("-", "_")
        for lines in project["optional-dependencies"].values()
        for line in lines
    }
    names = {"OpenEXR": "openexr", "PIL": "pillow", "yaml": "pyyaml"}
    for module, found in IMPORTS.items():
        roots = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"redepth"}
        assert {names.get(root, root) for root in roots} <= core | extras, module


# --- a bare install -------------------------------------------------------------------------------

BARE = """
import importlib, importlib.machinery, json, sys

BLOCKED = set({blocked!r})
find_spec = importlib.machinery.PathFinder.find_spec

class Bare(importlib.machinery.PathFinder):
    # Not found, as where it is not installed; an error here would be something else.
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else find_spec(name, path, target)

sys.meta_path[:] = [Bare if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
for module in {modules!r}:
    importlib.import_module(module)
from redepth.components import FAMILIES, resolve
from redepth.config import load_preset, preset_names
for name in preset_names():
    resolve(load_preset(name))
entries = [(r, name, entry) for r in FAMILIES.values() for name, entry in r.entries().items()]
built = [name for r, name, entry in entries if not entry.missing() and r.build(name, {{}})]
print(json.dumps([built, sorted(BLOCKED & set(sys.modules))]))
"""


def test_a_bare_install_imports_every_module() -> None:
    modules = [name for name in SOURCES if name != "redepth.__main__" and name not in NEEDS]
    code = BARE.format(blocked=OPTIONAL, modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    built, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == []
    core = {"depth-anything", "dpt", "marigold", "precomputed"}
    core |= {"blinn-phong", "pixel-diffusion", "smoothness", "ic-light"}
    core |= {"stable-diffusion", "stable-diffusion-2.1", "stable-diffusion-xl", "stable-diffusion-3"}
    core |= {"stable-diffusion-3.5"}
    core |= {"pixart-sigma", "prx-pixel"}
    core |= {"flux2-klein", "z-image", "qwen-image", "qwen-image-edit"}
    assert core <= set(built)


# --- what is public -------------------------------------------------------------------------------


def signature(function: Any) -> list[str]:
    """The parameters by name: ``*`` before those by keyword only, ``=`` after those with a default."""
    listed, by_keyword = [], False
    if inspect.isclass(function) and issubclass(function, Exception):
        return ["message"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not by_keyword:
            listed.append("*")
            by_keyword = True
        listed.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return listed


def public_members(owner: type) -> dict[str, Any]:
    """Methods with their parameters, and properties, that a class itself defines."""
    found: dict[str, Any] = {}
    for name, member in vars(owner).items():
        if name.startswith("_") or name.startswith("model_"):
            continue
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if inspect.isfunction(member):
            found[name] = signature(member)
        elif hasattr(member, "__get__") and not isinstance(member, type):
            found[name] = "property"
    return dict(sorted(found.items()))


def public_api() -> dict[str, Any]:
    """Every public name with what a caller relies on."""
    api: dict[str, Any] = {}
    for name in redepth.__all__:
        value = getattr(redepth, name)
        if inspect.ismodule(value):
            api[name] = {"module": value.__name__, "register": signature(value.register)}
        elif inspect.isclass(value):
            api[name] = {"new": signature(value), "members": public_members(value)}
        else:
            api[name] = signature(value)
    commands = typing.cast(Any, typer.main.get_command(cli.app)).commands
    api["command line"] = {
        name: sorted(option for parameter in command.params for option in parameter.opts)
        for name, command in commands.items()
    }
    return api


def test_the_public_api_is_as_recorded() -> None:
    """After a change on purpose: ``python -m tests.test_architecture`` records it anew."""
    assert public_api() == json.loads(API.read_text())


def test_the_public_names_are_there() -> None:
    assert sorted(redepth.__all__) == redepth.__all__
    assert set(dir(redepth)) == {*redepth.__all__, "__version__"}
    assert set(redepth._HOMES) | set(redepth._MODULES) == set(redepth.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = redepth.nothing  # type: ignore[attr-defined]


# --- the text of the source -----------------------------------------------------------------------


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes of a module and public methods of public classes."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield method


@pytest.mark.parametrize("module", SOURCES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text())
    assert ast.get_docstring(tree), f"{module} has no docstring"
    bare = [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]
    assert not bare, f"{module}: {bare}"


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_prints(module: str) -> None:
    calls = [node for node in ast.walk(ast.parse(SOURCES[module].read_text())) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines, f"{module} prints in lines {lines}; use logging, or the console of cli.py"


@pytest.mark.parametrize("module", SOURCES)
def test_no_global_seed_is_set(module: str) -> None:
    """Randomness comes from a generator that is passed in; fork_rng makes a seed local."""
    source = SOURCES[module].read_text()
    assert not re.search(r"np\.random\.(seed|rand|normal|uniform|default_rng\(\))|\brandom\.seed", source)
    if "torch.manual_seed" in source:
        assert source.count("torch.manual_seed") == source.count("fork_rng")


def test_no_tracked_text_names_a_workplace() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Put together here, so that this file does not hold them.
    places = [re.escape(f"/{place}/") for place in ("work", "root", "home", "Users")]
    pattern = re.compile(r"(?<![\w./~<-])(" + "|".join(places) + r")\w")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_every_preset_and_the_marker_of_types_ship_with_the_package() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert importlib.import_module("redepth.config").PRESETS.parent == PACKAGE / "config"


if __name__ == "__main__":
    API.write_text(json.dumps(public_api(), indent=2) + "\n")
