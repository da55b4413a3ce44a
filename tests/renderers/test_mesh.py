"""What the mesh renderer does without a rasterizer; with one: test_mesh_pytorch3d.py, test_mesh_gpu.py."""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import redepth
from redepth import renderers
from redepth.contracts import HasBackends, HasNeeds
from redepth.errors import ConfigError, MissingDependencyError
from redepth.renderers import rasterize_nvdiffrast
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.mesh import Mesh
from tests.support.helpers import photo, seeded


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without rasterizers."""
    for name in [*sys.modules, "pytorch3d", "nvdiffrast"]:
        if name.split(".")[0] in ("pytorch3d", "nvdiffrast"):
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rasterizer": "opengl"}, ("rasterizer", "'pytorch3d' or 'nvdiffrast'", "got 'opengl'")),
        ({"cut": 0.0}, ("cut", "allowed: >= 1e-06", "got 0.0")),
        ({"max_rotation": 20}, ("max_rotation", "got 20", "allowed: >= 0, <= 15")),
        ({"max_rotations": 5}, ("max_rotations", "did you mean 'max_rotation'")),
        ({"field_of_view": 60}, ("field_of_view", "need camera: pinhole")),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refusal:
        renderers.REGISTRY.check("mesh", options)
    for word in words:
        assert word in str(refusal.value)


INSTALL = {
    "pytorch3d": ('pip install "redepth[pytorch3d]"', "CUDA build of torch"),
    "nvdiffrast": (
        'pip install "redepth[nvdiffrast]"',
        "licence is non-commercial (NVIDIA Source Code License)",
        "CUDA GPU",
    ),
}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("rasterizer", INSTALL)
def test_a_missing_rasterizer_says_what_to_install(rasterizer: Any) -> None:
    renderer = renderers.REGISTRY.build("mesh", {"rasterizer": rasterizer})
    assert isinstance(renderer, HasNeeds)
    depth, image = torch.ones(1, 1, 4, 5), photo(4, 5)
    for attempt in (
        renderer.ensure_available,
        lambda: renderer(depth, image, renderer.draw(1, seeded())),
        lambda: redepth.Pipeline(
            "smoke", overrides=["renderer.name=mesh", f"renderer.rasterizer={rasterizer}"], device="cpu"
        ),
    ):
        with pytest.raises(MissingDependencyError) as error:
            attempt()
        for word in INSTALL[rasterizer]:
            assert word in str(error.value)


@pytest.mark.usefixtures("bare")
def test_the_rasterizers_are_listed_with_what_stands_in_their_way() -> None:
    assert issubclass(Mesh, HasBackends)
    obstacles = Mesh.backends()
    assert list(obstacles) == ["pytorch3d", "nvdiffrast"]
    for rasterizer, words in INSTALL.items():
        assert all(word in obstacles[rasterizer] for word in words)


def test_nvdiffrast_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvdiffrast", "nvdiffrast.torch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    renderer = Mesh(rasterizer="nvdiffrast")
    for attempt in (
        renderer.ensure_available,
        lambda: renderer(torch.ones(1, 1, 4, 5), photo(4, 5), renderer.draw(1, seeded())),
    ):
        with pytest.raises(MissingDependencyError, match=r"needs a CUDA .*; use rasterizer=pytorch3d"):
            attempt()


def test_rotation_is_drawn_last_so_that_the_light_of_a_seed_stays() -> None:
    options: dict[str, Any] = {"lights": 3, "light_saturation": 0.5, "light_distribution": "uniform"}
    still, turning = Mesh(**options), Mesh(max_rotation=10.0, **options)
    papers = BlinnPhong(**options).draw(2, seeded()).tensors
    for renderer in (still, turning):
        light = renderer.draw(2, seeded())
        assert {name for name in light.tensors if name != "rotation"} == set(papers)
        assert all(torch.equal(light[name], papers[name]) for name in papers)
    assert "rotation" not in still.draw(2, seeded()).tensors
    assert turning.draw(2, seeded())["rotation"].shape == (2, 3, 3)
    assert torch.equal(turning.draw(2, seeded())["rotation"], turning.draw(2, seeded())["rotation"])


def test_rotations_fill_a_disc_of_axes_in_the_image_plane() -> None:
    rotation = Mesh(max_rotation=12.0).draw(20000, seeded())["rotation"][:, 0]
    angle = torch.rad2deg(rotation.norm(dim=-1))
    assert not rotation[:, 2].any()
    assert 11.9 < angle.max() <= 12.0
    # Uniform over the disc: the mean radius is 2/3, the mean axis 0.
    assert angle.mean().item() == pytest.approx(8.0, abs=0.1)
    assert rotation[:, :2].mean(dim=0).abs().max() < 0.01 * math.radians(12.0) * 2


def test_the_extension_that_nvdiffrast_has_compiled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports by name what torch has loaded, which need not be among Python's modules."""
    from torch.utils import cpp_extension

    plugin, name = ModuleType("plugin"), "nvdiffrast_plugin_of_a_test"
    monkeypatch.setattr(cpp_extension, "_import_module_from_library", lambda *_: plugin)

    def context(device: torch.device) -> ModuleType:
        cpp_extension._import_module_from_library(name, "folder", True)
        return importlib.import_module(name)

    monkeypatch.setattr(rasterize_nvdiffrast, "_load", lambda: SimpleNamespace(RasterizeCudaContext=context))
    rasterize_nvdiffrast._context.cache_clear()
    try:
        assert rasterize_nvdiffrast._context(torch.device("cuda", 0)) is plugin
    finally:
        rasterize_nvdiffrast._context.cache_clear()
        sys.modules.pop(name, None)
