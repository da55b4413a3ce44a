"""A renderer in a package of its own: found, checked and used without a change to redepth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import redepth
from redepth import components
from redepth.errors import ConfigError
from redepth.registry import Registry
from tests.support.command import call, is_installed, spawn

PYPROJECT = """
[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "my-renderers"
version = "0.1"

[project.entry-points."redepth.renderers"]
my-renderer = "my_renderers:MyRenderer"

[tool.setuptools]
py-modules = ["my_renderers"]
"""

MODULE = '''
from __future__ import annotations

import os
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination
from redepth.ops import color, geometry


class MyRenderer:
    """Lambert's law under one light."""

    def __init__(self, ambient: Annotated[float, Field(ge=0, le=1)] = 0.2) -> None:
        self.ambient = ambient
        self.lights = 1

    def draw(self, batch: int, generator: Generator) -> Illumination:
        light = torch.randn(batch, 1, 3, generator=generator).abs()
        return Illumination.of(light / light.norm(dim=-1, keepdim=True))

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        if "MY_RENDERER_LOG" in os.environ:
            with open(os.environ["MY_RENDERER_LOG"], "a") as log:
                log.write(f"{tuple(depth.shape)} {self.ambient}\\n")
        normals = geometry.normals_from_depth(depth)
        cosine = torch.einsum("bchw,blc->blhw", normals, illumination.direction).clamp(min=0)[:, :, None]
        shade = self.ambient + (1 - self.ambient) * cosine
        return color.linear_to_srgb((image_linear[:, None] * shade).clamp(1e-4, 1))
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the plugin alone."""
    base = tmp_path_factory.mktemp("plugin")
    source, site = base / "source", base / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "my_renderers.py").write_text(MODULE)
    if all(map(is_installed, ("pip", "setuptools"))):
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-index", "--no-build-isolation", "--target", str(site), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        return site
    # Without the tools, what they would leave.
    info = site / "my_renderers-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "my_renderers.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-renderers\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[redepth.renderers]\nmy-renderer = my_renderers:MyRenderer\n")
    return site


@pytest.fixture
def plugin(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin, installed in this process."""
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("my_renderers", None)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of renderers; what a test adds to it goes away."""
    monkeypatch.setattr(redepth.renderers.REGISTRY, "_entries", dict(redepth.renderers.REGISTRY._entries))
    return redepth.renderers.REGISTRY


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        components.resolve(redepth.load_preset("smoke", overrides))
    return str(error.value)


@pytest.mark.usefixtures("plugin")
def test_a_result_depends_on_the_version_and_the_code_of_a_plugin(site: Path) -> None:
    preset = components.resolve(
        redepth.load_preset({"extends": "smoke", "renderer": {"name": "my-renderer", "ambient": 0.2}})
    )
    assert components.component_versions(preset) == {"redepth": redepth.__version__, "my-renderers": "0.1"}
    assert components.named_files(preset) == {"the code of my_renderers": [site / "my_renderers.py"]}
    own = components.resolve(redepth.load_preset("smoke"))
    assert components.component_versions(own) == {"redepth": redepth.__version__}
    assert components.named_files(own) == {}


# --- an installed package -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_installed_renderer_is_listed_and_used(
    site: Path, real_photos: dict[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    environment = {"PYTHONPATH": str(site), "MY_RENDERER_LOG": str(log)}
    listed = spawn("list", "renderers", extra=environment)
    assert listed.code == 0, listed.err
    assert "my-renderer" in listed.out
    assert "from package my-renderers" in listed.out
    # Listing imports no plugin.
    assert not log.exists()

    settings = ("--preset", "smoke", "-s", "renderer.ambient=3e-1", "-s", "renderer.name=my-renderer")
    done = spawn("refine", real_photos["coins"], *settings, "--out", tmp_path / "out", extra=environment)
    assert done.code == 0, done.err
    run = json.loads((tmp_path / "out" / "coins" / "run.json").read_text())
    assert run["preset"]["renderer"] == {"name": "my-renderer", "ambient": 0.3}
    height, width = run["network_size"]
    assert log.read_text().splitlines() == 3 * [f"(2, 1, {height}, {width}) 0.3"]
    assert np.load(tmp_path / "out" / "coins" / "disparity.npy").shape == (303, 384)


@pytest.mark.usefixtures("plugin")
def test_its_options_are_checked_like_our_own() -> None:
    message = refusal("renderer.name=my-renderer", "renderer.ambiant=0.1")
    assert "unknown key 'renderer.ambiant'; did you mean 'ambient'?" in message
    message = refusal("renderer.name=my-renderer", "renderer.ambient=2")
    assert "renderer.ambient: input should be less than or equal to 1, got 2" in message
    assert "did you mean 'my-renderer'?" in refusal("renderer.name=my-rendrer")
    # The options of the renderer before are not handed on.
    preset = components.resolve(redepth.load_preset("smoke", ["renderer.name=my-renderer"]))
    assert preset.renderer.options == {"ambient": 0.2}


@pytest.mark.usefixtures("plugin")
def test_doctor_knows_it() -> None:
    assert "my-renderer" in call("doctor").out
    assert "ok  my-renderer" in call("doctor", "--all").out


def test_without_the_package_it_is_unknown() -> None:
    assert "my-renderer" not in redepth.list_components("renderers")
    assert "unknown renderer 'my-renderer'" in refusal("renderer.name=my-renderer")


def test_a_broken_package_breaks_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (tmp_path / "broken_renderer.py").write_text("raise RuntimeError('no such chip')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[redepth.renderers]\nbroken = broken_renderer:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert redepth.list_components("renderers")["broken"] == "from package broken"
    components.resolve(redepth.load_preset("smoke"))
    message = refusal("renderer.name=broken")
    for word in ("'broken'", "from package broken", "broken_renderer:Broken", "no such chip"):
        assert word in message
    doctor = call("doctor", "--all").out
    assert "no  broken" in doctor
    assert "ok  blinn-phong" in doctor


# --- the decorator --------------------------------------------------------------------------------


def test_a_decorated_class_is_a_component(registry: Registry) -> None:
    @redepth.renderers.register("flat")
    @dataclass(kw_only=True)
    class Flat:
        """No light at all.

        More about it.
        """

        lights: int = 1
        gain: float = 1.0

        def draw(self, *_: object) -> None: ...

        def __call__(self, *_: object) -> None: ...

    assert redepth.list_components("renderers")["flat"] == "No light at all."
    assert registry.get("flat") is Flat
    assert registry.build("flat", {"gain": "2"}).gain == 2.0
    preset = components.resolve(redepth.load_preset("smoke", ["renderer.name=flat", "renderer.gain=3"]))
    assert preset.renderer.options == {"lights": 1, "gain": 3.0}
    assert "unknown key 'renderer.gian'; did you mean 'gain'?" in refusal(
        "renderer.name=flat", "renderer.gian=1"
    )


def test_a_taken_name_is_refused(registry: Registry) -> None:
    before = registry.get("blinn-phong")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"'blinn-phong' is already registered by redepth\.renderers\."):

            @redepth.renderers.register("blinn-phong")
            class Mine: ...

    assert registry.get("blinn-phong") is before

    class First: ...

    class Second: ...

    redepth.renderers.register("x")(First)
    with pytest.raises(ConfigError, match=r"renderer 'x' is already registered by .*First"):
        redepth.renderers.register("x")(Second)
    # The same class again, as when a notebook cell runs twice, is no clash.
    assert redepth.renderers.register("x")(First) is First
    assert registry.get("x") is First


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("family", ["depth_models", "priors", "renderers", "objectives"])
def test_every_family_has_the_decorator_and_an_entry_point_group(family: str) -> None:
    module = getattr(redepth, family)
    assert module.REGISTRY.group == f"redepth.{family}"
    assert module.register == module.REGISTRY.register
    assert module.REGISTRY in components.FAMILIES.values()
