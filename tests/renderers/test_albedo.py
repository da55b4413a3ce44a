"""Every renderer under every albedo, and where the albedo is from."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import redepth
from redepth import io
from redepth.components import resolve
from redepth.config import load_preset
from redepth.config.hashing import preset_sha256
from redepth.contracts import Illumination, LightsAlbedo
from redepth.errors import ConfigError, InputError, RenamedOptionWarning, WeightsError
from redepth.experiments.teacher import Teacher
from redepth.ops import color, geometry, panorama, shading
from redepth.optim.refiner import Refiner
from redepth.pipeline import preset_with
from redepth.renderers import REGISTRY
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.intrinsics import MarigoldIntrinsics
from redepth.renderers.matte import Lambert
from tests.support.command import ENVIRONMENT
from tests.support.helpers import CPU, TargetPrior, make_refiner, photo, seeded
from tests.support.tiny_intrinsics import APPEARANCE, LIGHTING, save_intrinsics

HEIGHT, WIDTH = 32, 48
NAMES = [name for name in REGISTRY.entries() if name != "mesh"]


def surface() -> Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    return (2 - 0.5 * torch.exp(-3 * (x**2 + y**2)))[None, None]


def known_albedo() -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    checks = ((x // 8 + y // 8) % 2).astype(np.float32)
    return np.stack([0.2 + 0.5 * checks, 0.6 - 0.3 * checks, np.full_like(checks, 0.4)], axis=-1)


def as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def srgb() -> Tensor:
    return photo(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_intrinsics(tmp_path_factory.mktemp("intrinsics"))


@pytest.fixture(scope="module")
def sources(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Name -> options of a renderer."""
    folder = tmp_path_factory.mktemp("albedos")
    io.save_npy(folder / "linear.npy", known_albedo())
    io.save_png(folder / "photo.png", color.linear_to_srgb(as_tensor(known_albedo()))[0].permute(1, 2, 0))
    return {
        "photo": {},
        "grey": {"albedo": "grey", "grey": 0.3},
        "npy": {"albedo": str(folder / "linear.npy")},
        "folder": {"albedo": str(folder)},
        "array": {"albedo": "<array>"},
        "marigold-intrinsics": {"albedo": "marigold-intrinsics", "albedo_checkpoint": str(checkpoint)},
    }


def prepared(name: str, options: dict[str, Any], seed: int = 0) -> tuple[Any, Tensor | None]:
    """A renderer that has found the albedo of the photo ``photo.jpg``, and that albedo."""
    renderer = REGISTRY.build(name, options).load(CPU)
    assert isinstance(renderer, LightsAlbedo)
    renderer.next_photo(Path("photo.jpg"))
    renderer.take_albedo(known_albedo() if options.get("albedo") == "<array>" else None)
    return renderer, renderer.find_albedo(srgb(), srgb(), 0.0, seed)


@pytest.mark.parametrize("name", NAMES)
def test_every_renderer_lights_every_albedo_as_if_it_were_the_photo(
    name: str, sources: dict[str, dict[str, Any]]
) -> None:
    plain = REGISTRY.build(name, {"lights": 2, "ambient": 0.1})
    light, linear = plain.draw(1, seeded()), color.srgb_to_linear(srgb())
    pictures = {}
    for source, options in sources.items():
        renderer, albedo = prepared(name, {"lights": 2, "ambient": 0.1, **options})
        pictures[source] = renderer(surface(), linear, light)
        # What was lit before there were other albedos, bit by bit.
        assert torch.equal(pictures[source], plain(surface(), linear if albedo is None else albedo, light))
        assert (albedo is None) == (source == "photo")
    assert torch.equal(pictures["grey"], plain(surface(), torch.full_like(linear, 0.3), light))
    assert torch.equal(pictures["npy"], pictures["array"])
    assert torch.allclose(pictures["npy"], pictures["folder"], atol=0.01)  # 8 bits
    different = [pictures[s] for s in ("photo", "grey", "npy", "marigold-intrinsics")]
    assert all(not torch.allclose(a, b, atol=0.02) for i, a in enumerate(different) for b in different[:i])


@pytest.mark.pytorch3d
def test_the_mesh_has_the_albedo_as_its_texture(sources: dict[str, dict[str, Any]]) -> None:
    pytest.importorskip("pytorch3d")
    plain = REGISTRY.build("mesh", {})
    light, linear = plain.draw(1, seeded()), color.srgb_to_linear(srgb())
    for options in sources.values():
        renderer, albedo = prepared("mesh", options)
        expected = plain(surface(), linear if albedo is None else albedo, light)
        assert torch.equal(renderer(surface(), linear, light), expected)


def test_the_true_albedo_gives_the_true_relit_picture(tmp_path: Path) -> None:
    """A matte surface of known albedo, photographed under one light, is re-lit by another one."""
    normals, albedo = geometry.normals_from_depth(surface()), as_tensor(known_albedo())
    first, second = (
        shading.normalize(torch.tensor([[direction]])) for direction in ([-0.8, 0.3, 1.0], [0.7, -0.2, 1.0])
    )
    taken = color.linear_to_srgb(shading.lambert(normals, albedo, first)[:, 0], 0.0)
    true = color.linear_to_srgb(shading.lambert(normals, albedo, second))
    io.save_png(tmp_path / "photo.png", color.linear_to_srgb(albedo, 0.0)[0].permute(1, 2, 0))
    errors = {}
    for source in ("photo", str(tmp_path / "photo.png")):
        renderer = Lambert(albedo=source)
        renderer.find_albedo(taken, taken, 0.0, 0)
        found = renderer(surface(), color.srgb_to_linear(taken), Illumination.of(second))
        errors[source] = float((found - true).abs().max())
    assert errors.pop("photo") > 0.1
    assert max(errors.values()) < 0.003  # half a step of 8 bits


# --- Marigold --------------------------------------------------------------------------------------


@pytest.mark.parametrize("properties", [APPEARANCE, LIGHTING], ids=["appearance", "lighting"])
def test_it_is_the_pipelines_own_albedo_in_linear_colours(properties: dict[str, Any], tmp_path: Path) -> None:
    from diffusers import MarigoldIntrinsicsPipeline

    folder = save_intrinsics(tmp_path / "pipeline", properties)
    pipeline = MarigoldIntrinsicsPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    predicted = pipeline(
        photo(90, 120),
        num_inference_steps=3,
        ensemble_size=3,
        match_input_resolution=False,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).prediction
    assert predicted.shape == (len(properties["target_names"]), 3, 48, 64)
    linear = predicted[:1] ** 2.2 if properties is APPEARANCE else predicted[:1]
    estimate = MarigoldIntrinsics(str(folder), steps=3, ensemble=3)
    estimate.load()
    found = estimate.albedo(photo(90, 120), photo(30, 40), 5)
    assert torch.allclose(found, linear, atol=1e-5)
    assert estimate.describe()["predicted_in"] == ("srgb" if properties is APPEARANCE else "linear")
    renderer = Lambert(
        albedo="marigold-intrinsics", albedo_checkpoint=str(folder), albedo_steps=3, albedo_ensemble=3
    )
    lit = renderer.find_albedo(photo(90, 120), photo(30, 40), 0.0, 5)
    assert lit is not None
    assert torch.allclose(lit, panorama.fit(linear, 30, 40, 0.0), atol=1e-5)


def test_an_albedo_up_to_scale_gets_the_photos_luminance(tmp_path: Path) -> None:
    properties = LIGHTING | {"albedo": {"prediction_space": "linear", "up_to_scale": True}}
    estimate = MarigoldIntrinsics(str(save_intrinsics(tmp_path, properties)))
    dark = 0.5 * srgb()
    found = estimate.albedo(dark, dark, 0)
    assert float(color.luma(found).mean()) == pytest.approx(
        float(color.luma(color.srgb_to_linear(dark)).mean()), rel=1e-3
    )
    assert "luminance" in estimate.describe()["scaled"]


def test_the_seed_alone_decides_and_an_estimate_is_kept(checkpoint: Path) -> None:
    options = {"albedo": "marigold-intrinsics", "albedo_checkpoint": str(checkpoint)}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    (_, first), (_, same), (_, other) = (prepared("lambert", options, seed) for seed in (3, 3, 4))
    assert first is not None
    assert same is not None
    assert other is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    estimate = MarigoldIntrinsics(str(checkpoint))
    kept = estimate.albedo(srgb(), srgb(), 3)
    assert estimate.albedo(srgb(), srgb(), 3) is kept
    assert estimate.albedo(srgb(), srgb(), 4) is not kept
    assert not torch.equal(estimate.albedo(1 - srgb(), 1 - srgb(), 3), kept)


def test_the_pipeline_is_on_the_device_only_while_it_estimates(
    checkpoint: Path, device: torch.device
) -> None:
    renderer = BlinnPhong(albedo="marigold-intrinsics", albedo_checkpoint=str(checkpoint)).load(device)
    image = srgb().to(device)
    found = renderer.find_albedo(srgb(), image, 0.0, 3)
    assert found is not None
    assert found.device == image.device
    pipeline = renderer._albedo._intrinsics._pipeline
    assert {p.device.type for part in (pipeline.unet, pipeline.vae) for p in part.parameters()} == {"cpu"}
    picture = renderer(
        surface().to(device), color.srgb_to_linear(image), renderer.draw(1, seeded()).to(device)
    )
    assert picture.device == image.device
    if device.type == "cpu":
        _, expected = prepared(
            "blinn-phong", {"albedo": "marigold-intrinsics", "albedo_checkpoint": str(checkpoint)}, 3
        )
        assert expected is not None
        assert torch.equal(found, expected)


def test_nothing_is_said_of_how_diffusers_works(checkpoint: Path) -> None:
    script = f"""
import torch
from redepth.renderers.matte import Lambert
options = {{"albedo": "marigold-intrinsics", "albedo_checkpoint": {str(checkpoint)!r}}}
photo = torch.full((1, 3, 32, 48), 0.5)
Lambert(**options).load(torch.device("cpu")).find_albedo(photo, photo, 0.0, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_checkpoint_without_an_albedo_is_refused(tmp_path: Path) -> None:
    properties = {"target_names": ["shading"], "shading": {"prediction_space": "linear"}}
    for folder in (save_intrinsics(tmp_path / "shading", properties), tmp_path / "nothing"):
        with pytest.raises(WeightsError) as error:
            Lambert(albedo="marigold-intrinsics", albedo_checkpoint=str(folder)).load(CPU)
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)


# --- files -----------------------------------------------------------------------------------------


def check(albedo: Path, source: Path | None = Path("cat.jpg"), **options: Any) -> None:
    Lambert(albedo=str(albedo)).check_albedo(source, HEIGHT, WIDTH, **options)


def test_a_folder_has_one_albedo_of_each_photos_name(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "cat.npy", known_albedo())
    check(tmp_path)
    with pytest.raises(InputError, match=r"dog.jpg: .* must hold one albedo of its name"):
        check(tmp_path, Path("dog.jpg"))
    with pytest.raises(InputError, match="not a file"):
        check(tmp_path, None)
    io.save_png(tmp_path / "cat.png", known_albedo())
    with pytest.raises(InputError, match="must hold one albedo of its name"):
        check(tmp_path)


def test_another_shape_names_both_sizes(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "wide.npy", np.ones((20, 60, 3), np.float32))
    with pytest.raises(
        InputError, match=f"the albedo is 60 x 20, the photo has the shape of {WIDTH} x {HEIGHT}"
    ):
        check(tmp_path / "wide.npy")
    renderer = Lambert(albedo="<array>")
    renderer.take_albedo(np.ones((20, 60, 3), np.float32))
    with pytest.raises(InputError, match="60 x 20"):
        renderer.find_albedo(srgb(), srgb(), 0.0, 0)


def test_another_size_of_the_same_shape_is_resized_in_linear_light(tmp_path: Path) -> None:
    large = np.repeat(np.repeat(known_albedo(), 2, axis=0), 2, axis=1)
    io.save_npy(tmp_path / "large.npy", large)
    _, albedo = prepared("lambert", {"albedo": str(tmp_path / "large.npy")})
    assert albedo is not None
    assert torch.allclose(albedo, geometry.resize(as_tensor(large), HEIGHT, WIDTH, antialias=True), atol=1e-6)


def test_what_is_missing_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"renderer.albedo=gray: no such file or folder, and none of photo, grey"
    ):
        Lambert(albedo="gray").ensure_available()
    io.save_npy(tmp_path / "cat.npy", known_albedo())
    with pytest.raises(InputError, match="belongs to one photo, 2 were given"):
        check(tmp_path / "cat.npy", photos=2)
    with pytest.raises(InputError, match="Python passes the albedo"):
        Lambert(albedo="<array>").take_albedo(None)
    with pytest.raises(InputError, match="give one of them"):
        Lambert(albedo="grey").take_albedo(known_albedo())


def test_what_is_transparent_has_no_albedo(tmp_path: Path) -> None:
    pixels = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    check(tmp_path / "cat.png")
    pixels[3, 4, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    with pytest.raises(InputError, match=r"cat\.png: is transparent in places"):
        check(tmp_path / "cat.png")
    with pytest.raises(InputError, match="with opacity"):
        Lambert(albedo="<array>").take_albedo(pixels)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(ConfigError, match="albedo is empty: give a name, a file or a folder"):
        resolve(load_preset("smoke", ['renderer.albedo=""']))


def test_an_albedo_that_was_not_found_for_this_photo_is_not_lit(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "cat.npy", known_albedo())
    renderer = Lambert(albedo=str(tmp_path / "cat.npy"))
    light = renderer.draw(1, seeded())
    with pytest.raises(InputError, match="not known"):
        renderer(surface(), color.srgb_to_linear(srgb()), light)
    renderer.find_albedo(srgb(), srgb(), 0.0, 0)
    renderer(surface(), color.srgb_to_linear(srgb()), light)
    renderer.next_photo(Path("dog.jpg"))
    with pytest.raises(InputError, match="not known"):
        renderer(surface(), color.srgb_to_linear(srgb()), light)


def test_arrays_are_linear_floats_or_srgb_bytes() -> None:
    for values, expected in (
        (np.full((HEIGHT, WIDTH, 3), 0.5, np.float32), 0.5),
        (np.full((HEIGHT, WIDTH), 0.5), 0.5),
        (np.full((HEIGHT, WIDTH, 3), 102, np.uint8), 0.4**2.2),
    ):
        renderer = Lambert(albedo="<array>")
        renderer.take_albedo(values)
        found = renderer.find_albedo(srgb(), srgb(), 0.0, 0)
        assert found is not None
        assert torch.allclose(found, torch.full_like(srgb(), expected), atol=1e-6)


# --- in a run --------------------------------------------------------------------------------------


def test_the_refiner_lights_the_albedo_and_keeps_it(tmp_path: Path) -> None:
    pictures: dict[str, Tensor] = {}
    outcomes = {}
    io.save_npy(tmp_path / "cat.npy", known_albedo())
    for albedo in ("photo", "grey", str(tmp_path / "cat.npy")):
        made = make_refiner(steps=1, members=1)
        refiner = Refiner(made.depth_model, BlinnPhong(albedo=albedo), TargetPrior(), made.optim, device=CPU)

        def keep(report: Any, albedo: str = albedo) -> None:
            pictures[albedo] = report.relit

        outcomes[albedo] = refiner.run(srgb(), on_step=keep).albedo
    assert outcomes["photo"] is None
    assert outcomes["grey"] is not None
    assert bool((outcomes["grey"] == 0.5).all())
    found = outcomes[str(tmp_path / "cat.npy")]
    assert found is not None
    assert found.shape[-2:] == pictures["photo"].shape[-2:]
    assert not torch.allclose(pictures["photo"], pictures[str(tmp_path / "cat.npy")], atol=0.01)
    assert not torch.allclose(pictures["photo"], pictures["grey"], atol=0.01)


def test_a_panoramas_albedo_goes_on_beyond_its_edges(tmp_path: Path) -> None:
    wide = np.tile(np.linspace(0.1, 0.9, 64, dtype=np.float32)[None, :, None], (32, 1, 3))
    io.save_npy(tmp_path / "turn.npy", wide)
    margin = 8 / 64
    extended = panorama.extend(photo(32, 64), 8)
    found = Lambert(albedo=str(tmp_path / "turn.npy")).find_albedo(extended, extended, margin, 0)
    assert found is not None
    assert torch.allclose(found, panorama.extend(as_tensor(wide), 8), atol=1e-5)


def test_the_teacher_lights_the_same_albedo() -> None:
    renderer = BlinnPhong(albedo="<array>")
    renderer.take_albedo(known_albedo())
    renderer.find_albedo(srgb(), srgb(), 0.0, 0)
    teacher = Teacher(TargetPrior(), renderer)
    teacher.set_surface(surface())
    light = renderer.draw(1, seeded())
    relit = renderer(surface(), color.srgb_to_linear(srgb()), light)
    loss = teacher(relit[:, 0], teacher.condition(srgb(), ""), light.flatten(), teacher.draw(1, seeded()))
    assert float(loss) == 0.0


# --- former names ----------------------------------------------------------------------------------


def test_relight_is_the_former_name_of_albedo() -> None:
    for former, current in (("composite", "photo"), ("shading-only", "grey")):
        with pytest.warns(RenamedOptionWarning, match=f"use its new name renderer.albedo={current}"):
            preset = resolve(load_preset("smoke", [f"renderer.relight={former}"]))
        assert preset.renderer.options["albedo"] == current
        assert "relight" not in preset.renderer.options
        assert preset_sha256(preset) == preset_sha256(
            resolve(load_preset("smoke", [f"renderer.albedo={current}"]))
        )


def lit(*layers: Any, **preset: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedOptionWarning)
        source = {"extends": "smoke", "renderer": preset}
        albedo: str = resolve(preset_with(source, *layers)).renderer.options["albedo"]
    return albedo


def test_a_later_layer_wins_under_either_name(tmp_path: Path) -> None:
    current, former = ["renderer.albedo=grey"], ["renderer.relight=shading-only"]
    assert lit(current, relight="composite") == "grey"
    assert lit(former, albedo="photo") == "grey"
    assert lit(["renderer.relight=composite"], current) == "grey"
    assert lit(current, ["renderer.relight=composite"]) == "photo"
    assert lit({"renderer": {"albedo": "grey"}}, relight="composite", lights=2) == "grey"
    (tmp_path / "old.yaml").write_text("extends: smoke\nrenderer: {relight: composite}\n")
    (tmp_path / "new.yaml").write_text("extends: old.yaml\nrenderer: {albedo: grey}\n")
    assert resolve(load_preset(tmp_path / "new.yaml")).renderer.options["albedo"] == "grey"
    with pytest.raises(ConfigError, match="both are set"):
        lit([*current, *former])
    with pytest.raises(ConfigError, match="both are set"):
        lit(relight="composite", albedo="grey")


def test_the_argument_wins_over_a_preset_of_an_earlier_version() -> None:
    pixels = srgb()[0].permute(1, 2, 0).numpy()
    preset = {"extends": "smoke", "renderer": {"relight": "composite"}, "optim": {"steps": 1, "members": 1}}
    found = redepth.refine(pixels, preset, albedo="grey", prompt="", device="cpu")
    assert found.record()["renderer"] == {"albedo": "grey"}


def test_another_albedo_is_another_preset_and_the_photo_that_of_earlier_versions() -> None:
    presets = [
        resolve(load_preset("smoke", [f"renderer.{change}"]))
        for change in (
            "albedo=photo",
            "albedo=grey",
            "albedo=marigold-intrinsics",
            "albedo=some/folder",
            "albedo_steps=3",
        )
    ]
    hashes = [preset_sha256(preset) for preset in presets]
    assert len(set(hashes)) == 4
    assert hashes[0] == hashes[4]  # nothing is estimated
    renderer = presets[0].renderer
    former = {k: v for k, v in renderer.options.items() if not k.startswith("albedo")} | {
        "relight": "composite"
    }
    stored = type(renderer).model_validate({"name": renderer.name, **former})
    assert preset_sha256(presets[0].model_copy(update={"renderer": stored})) == hashes[0]


def test_one_file_is_the_albedo_of_the_first_photo_alone(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "cat.npy", known_albedo())
    first, second = (p[0].permute(1, 2, 0).numpy() for p in (srgb(), 1 - srgb()))
    settings = {"optim.steps": 1, "optim.members": 1}
    pipeline = redepth.Pipeline(
        "smoke", overrides={**settings, "renderer.albedo": str(tmp_path / "cat.npy")}, device="cpu"
    )
    before = pipeline.refine(first, prompt="").refined
    with pytest.raises(InputError, match="an albedo belongs to one photo, 2 were given"):
        pipeline.refine(second, prompt="")
    assert np.array_equal(pipeline.refine(first, prompt="").refined, before)
    arrays = redepth.Pipeline("smoke", overrides={**settings, "renderer.albedo": "<array>"}, device="cpu")
    for photo_ in (first, second):
        arrays.refine(photo_, prompt="", albedo=known_albedo())


def test_the_public_function_takes_each_source(tmp_path: Path, checkpoint: Path) -> None:
    pixels = srgb()[0].permute(1, 2, 0).numpy()
    io.save_npy(tmp_path / "albedo.npy", known_albedo())
    settings = {"optim.steps": 1, "optim.members": 1, "output.write": "map,albedo"}
    found = {}
    for name, albedo, more in (
        ("photo", None, {}),
        ("grey", "grey", {}),
        ("file", tmp_path / "albedo.npy", {}),
        ("array", known_albedo(), {}),
        ("estimate", "marigold-intrinsics", {"renderer.albedo_checkpoint": str(checkpoint)}),
    ):
        found[name] = redepth.refine(
            pixels, "smoke", overrides={**settings, **more}, albedo=albedo, device="cpu"
        )
    assert found["photo"].albedo is None
    assert np.array_equal(found["file"].refined, found["array"].refined)
    for name in ("grey", "file", "estimate"):
        assert not np.array_equal(found[name].refined, found["photo"].refined)
    records = {name: refinement.record()["renderer"] for name, refinement in found.items()}
    assert records["photo"] == {"albedo": "photo"}
    assert records["file"]["sha256"] == io.sha256_of(tmp_path / "albedo.npy")
    assert records["estimate"]["checkpoint"] == str(checkpoint)
    assert records["estimate"]["steps"] == 2
    folder = found["file"].save(tmp_path / "out")
    written = io.load_photo(folder / "albedo.png")
    small = geometry.resize(as_tensor(known_albedo()), *written.shape[:2], antialias=True)
    assert np.allclose(written, color.linear_to_srgb(small, 0.0)[0].permute(1, 2, 0).numpy(), atol=0.51 / 255)
    found["photo"].save(tmp_path / "plain")
    assert "the photo itself was re-lit" in (tmp_path / "plain" / "run.json").read_text()
    assert not (tmp_path / "plain" / "albedo.png").exists()
