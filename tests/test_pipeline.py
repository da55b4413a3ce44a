from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import redepth
from redepth import components, io, viz
from redepth.components import resolve
from redepth.config import Component
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import ConfigError, InputError
from redepth.ground_truth import GroundTruth
from redepth.metrics.diagnostics import MEANINGS, Signature
from tests.support.checkpoints import tiny
from tests.support.command import ENVIRONMENT
from tests.support.helpers import ALL_FILES, GOLDEN, photo

TINY_PAPER = [
    f"depth_model.checkpoint={GOLDEN / 'tiny-random-depth-anything'}",
    f"prior.checkpoint={GOLDEN / 'tiny-random-sd'}",
    "depth_model.longer_side=70",
    "prompt.captioner=none",
    "optim.steps=2",
    "optim.members=2",
    "output.write=all",
]


def array(height: int = 60, width: int = 90) -> np.ndarray[Any, Any]:
    return photo(height, width)[0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def paper() -> redepth.Refinement:
    """The paper's preset through its real classes, on checkpoints of a few channels."""
    truth = GroundTruth(np.linspace(1, 2, 5400, dtype=np.float32).reshape(60, 90))
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cpu")
    return pipeline.refine(array(), prompt="a tiger", seed=1, ground_truth=truth)


def test_the_papers_preset_runs_through_its_real_classes(paper: redepth.Refinement) -> None:
    assert paper.predicts == "disparity"
    assert paper.refined.shape == paper.initial.shape == paper.uncertainty.shape == (60, 90)
    assert paper.refined.dtype == np.float32
    assert paper.outcome.members.shape == (2, 1, 42, 70)
    assert np.isfinite(paper.refined).all()
    assert paper.uncertainty.max() > 0
    assert not np.array_equal(paper.refined, paper.initial)
    assert set(paper.outcome.history) == {"prior", "smoothness", "total"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["smoke", "embedded-relief"])
def test_a_preset_gives_on_a_device_what_it_gives_on_a_cpu(preset: str, device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("a pretended GPU cannot be asked for by its name")
    settings = ["depth_model.longer_side=70", "optim.steps=2", "optim.members=2", "prior.dtype=float32"]
    settings += ["optim.performance.tf32=false", "optim.performance.cudnn_benchmark=false"]
    here, there = (
        redepth.Pipeline(preset, overrides=settings, device=str(where)).refine(array(), prompt="", seed=1)
        for where in ("cpu", device)
    )
    assert torch.device(there.device).type == device.type
    assert not there.partial
    change = here.outcome.members - here.outcome.initial
    difference = there.outcome.members - here.outcome.members
    # The first steps of AdamW are of one length, whichever way a gradient near 0 points.
    assert float(difference.norm()) < 0.2 * float(change.norm())


def test_the_answer_is_the_mean_of_the_members(paper: redepth.Refinement) -> None:
    members = paper.outcome.members
    assert torch.allclose(paper.outcome.refined[0], members.sum(dim=0) / 2)
    assert torch.allclose(paper.outcome.uncertainty[0], (members[0] - members[1]).abs() / 2, atol=1e-6)


def test_the_record_says_what_was_run_and_what_the_numbers_mean(paper: redepth.Refinement) -> None:
    record = paper.record()
    assert record["execution"]["compile"] == "off"
    assert record["execution"]["decoders"] == "loop"
    assert record["prompt"] == "a tiger"
    assert record["seed"] == 1
    assert record["prior"]["dtype"] == "float32"
    assert "larger is nearer" in record["output"]["meaning"]
    assert record["preset"]["prior"]["guidance_scale"] == 50.0
    assert record["network_size"] == [42, 70]
    assert set(record["metrics"]) == {"protocol", "initial", "refined"}
    assert record["metrics"]["protocol"]["name"] == "photo"
    assert record["metrics"]["refined"]["silog"] > 0
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_it_saves_and_draws_itself(paper: redepth.Refinement, tmp_path: Path) -> None:
    folder = paper.save(tmp_path / "deep" / "result")
    assert {p.name for p in folder.iterdir()} == ALL_FILES
    assert np.array_equal(np.load(folder / "disparity.npy"), paper.refined)


def test_the_fast_preset_runs_and_asks_the_denoiser_once_a_step() -> None:
    overrides = [*TINY_PAPER, f"prior.vae_checkpoint={tiny('tiny-vae')}", "prior.size=64", "optim.steps=9"]
    overrides += ["optim.early_stop.window=2", "optim.early_stop.min_improvement=0.9"]
    pipeline = redepth.Pipeline("re-depth-fast", overrides=overrides, device="cpu")
    rows: list[int] = []
    prior: Any = pipeline.refiner.prior
    prior.network().register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    result = pipeline.refine(array(), prompt="a tiger")
    assert result.record()["prior"]["vae"] == "tiny"
    assert result.outcome.steps_done == [4, 4]
    assert set(rows) == {2}
    assert np.isfinite(result.refined).all()


def test_a_pipeline_loads_its_weights_once_for_all_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.checkpoints import loading

    calls: list[str] = []
    original = loading.from_pretrained

    def counted(cls: Any, *args: Any, **options: Any) -> Any:
        calls.append(cls.__name__)
        return original(cls, *args, **options)

    monkeypatch.setattr(loading, "from_pretrained", counted)
    pipeline = redepth.Pipeline("re-depth-anything", overrides=[*TINY_PAPER, "optim.steps=1"], device="cpu")
    loaded = list(calls)
    results = [pipeline.refine(array(), prompt="two photos", seed=3) for _ in range(2)]
    # The text encoder is loaded with the first prompt that is not in the cache.
    assert set(calls) - set(loaded) <= {"CLIPTokenizer", "CLIPTextModel"}
    assert len(set(calls)) == len(calls)
    assert np.array_equal(results[0].refined, results[1].refined)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros(8), r"must be \(H, W\), \(H, W, 3\)"),
        (np.zeros((8, 8, 5)), r"got \(8, 8, 5\)"),
        (np.full((8, 8, 3), 2.0), r"sRGB values in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), "finite"),
        (np.zeros((8, 8, 3), dtype=np.int64), "uint8 or floating, got int64"),
    ],
)
def test_arrays_that_are_no_photo_are_refused(pixels: Any, message: str) -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cpu")
    with pytest.raises(InputError, match=message):
        pipeline.refine(pixels)


@pytest.mark.slow
def test_uint8_and_float_photos_are_the_same_photo() -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=[*TINY_PAPER, "optim.steps=1"], device="cpu")
    eight = np.rint(array() * 255).astype(np.uint8)
    first, second = (pipeline.refine(p) for p in (eight, eight.astype(np.float32) / 255))
    assert np.array_equal(first.refined, second.refined)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_an_array_is_the_photo_that_its_file_is(mode: str, tmp_path: Path) -> None:
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels)).astype(np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    stored = io.load_photo(tmp_path / "a.png")
    assert np.array_equal(io.photo_of_array(pixels), stored)
    # Floats are not rounded to 8 bits in between.
    assert np.abs(io.photo_of_array(pixels / 255.0) - stored).max() < 0.51 / 255


def test_ground_truth_of_another_size_is_refused_before_the_work() -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cpu")
    with pytest.raises(InputError, match="ground truth is 5 x 4 pixels and the photo 90 x 60"):
        pipeline.refine(array(), ground_truth=GroundTruth(np.ones((4, 5), dtype=np.float32)))


def test_no_hit_values_of_a_ground_truth_are_left_out_and_said(paper: redepth.Refinement) -> None:
    rows = np.linspace(1, 2, 5400, dtype=np.float32).reshape(60, 90)
    expected = rows.copy()
    expected[:5] = 0
    plain = replace(paper, ground_truth=GroundTruth(expected))
    assert "ground truth" not in " ".join(plain.warnings)
    for value in (1e10, 65504, 65535, 1e30, np.inf, np.nan, -1):
        rows[:5] = value
        for truth in (GroundTruth(rows), GroundTruth(1 / rows, "disparity")):
            found = replace(paper, ground_truth=truth)
            assert found.evaluations["refined"].metrics == pytest.approx(
                plain.evaluations["refined"].metrics, rel=1e-4
            )
            assert any(line.startswith("left out of 5400 pixels") for line in found.warnings) or (
                np.isinf(value) and truth.kind == "disparity"  # 1 / inf is 0, the usual unknown
            )
            assert sum(found.record()["ground_truth"].values()) == 1 + 5400 + 450
    masked = replace(plain, ground_truth=GroundTruth(expected, mask=np.arange(60)[:, None] < [10] * 90))
    assert "the mask leaves out 90.9 % of the known ground truth" in masked.warnings


def test_disparity_as_ground_truth_is_inverted_where_it_is_known() -> None:
    values = np.array([[2.0, 0.0, np.inf, np.nan, -1.0, 4.0]], dtype=np.float32)
    assert GroundTruth(values, "disparity").depth.tolist() == [[0.5, 0.0, 0.0, 0.0, 0.0, 0.25]]
    assert GroundTruth(values, "depth").depth.tolist() == [[2.0, 0.0, 0.0, 0.0, 0.0, 4.0]]


def test_options_are_checked_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"renderer\.lights.*greater than or equal to 1"):
        redepth.Pipeline("embedded-relief", overrides=["renderer.lights=0"])
    with pytest.raises(ConfigError, match=r"t_min 0\.9 is above t_max 0\.6"):
        redepth.Pipeline("re-depth-anything", overrides=["prior.t_min=0.9"])
    with pytest.raises(ConfigError, match="unknown renderer 'blin-phong'; did you mean 'blinn-phong'"):
        redepth.Pipeline("embedded-relief", overrides=["renderer.name=blin-phong"])
    with pytest.raises(ConfigError, match="nothing is left to optimise"):
        redepth.Pipeline("embedded-relief", overrides=["optim.prior_weight=0", "optim.objectives=null"])


def test_resolving_writes_every_default_out_and_changes_nothing_twice() -> None:
    preset = resolve(redepth.load_preset("embedded-relief"))
    written = {"lights": 2, "min_log2_shininess": 2, "max_log2_shininess": 7}
    assert written.items() <= preset.renderer.options.items()
    assert resolve(preset) == preset


def test_a_preset_is_resolved_once_and_a_changed_copy_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = resolve(redepth.load_preset("smoke"))
    with monkeypatch.context() as patched:
        patched.setattr(components, "_checked", lambda *_: pytest.fail("resolved again"))
        assert resolve(preset) is preset
        assert redepth.Pipeline(preset, device="cpu").preset is preset
    changed = preset.model_copy(update={"prior": Component(name="pixel-difusion")})
    with pytest.raises(ConfigError, match="did you mean 'pixel-diffusion'"):
        redepth.Pipeline(changed, device="cpu")


def test_built_components_make_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    built = components.build(redepth.load_preset("smoke"), torch.device("cpu"))
    monkeypatch.setattr(components, "build", lambda *_: pytest.fail("built again"))
    assert redepth.Pipeline(built, device="cpu").preset is built.preset
    with pytest.raises(ConfigError, match="built already"):
        redepth.Pipeline(built, overrides=["optim.steps=1"], device="cpu")


def test_the_function_decodes_a_photo_once(
    real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    load = io.load_photo

    def counted(path: Path, **options: Any) -> Any:
        paths.append(path)
        return load(path, **options)

    monkeypatch.setattr(io, "load_photo", counted)
    result = redepth.refine(real_photos["coins"], "smoke", overrides=["optim.steps=1"], device="cpu")
    assert paths == [real_photos["coins"]]
    assert result.source == str(real_photos["coins"].resolve())


def test_the_public_names_load_and_unknown_ones_do_not() -> None:
    assert all(getattr(redepth, name) is not None for name in redepth.__all__)
    with pytest.raises(AttributeError, match="no attribute 'refin'"):
        redepth.refin  # noqa: B018


class FromDepth(DepthAnything):
    """The same network, its output taken for depth."""

    predicts = "depth"


@pytest.mark.slow
def test_a_model_that_predicts_depth_is_refined_measured_drawn_and_saved(tmp_path: Path) -> None:
    pipeline = redepth.Pipeline("re-depth-anything", overrides=TINY_PAPER, device="cpu")
    checkpoint = str(GOLDEN / "tiny-random-depth-anything")
    model = FromDepth(checkpoint=checkpoint, longer_side=70, scale=7.0)
    pipeline.refiner.depth_model = model.load(torch.device("cpu"))
    truth = GroundTruth(np.linspace(1, 2, 5400, dtype=np.float32).reshape(60, 90))
    result = pipeline.refine(array(), ground_truth=truth)
    assert "larger is farther" in result.meaning
    assert torch.allclose(result.outcome.initial_depth, 7.0 * result.outcome.initial)
    folder = result.save(tmp_path)
    assert np.array_equal(np.load(folder / "depth.npy"), result.refined)
    record = json.loads((folder / "run.json").read_text())
    assert record["output"]["predicts"] == "depth"
    assert record["png"]["kind"] == "depth"
    aligned = result.evaluations["initial"].aligned.numpy()
    assert np.corrcoef(aligned.ravel(), result.initial.ravel())[0, 1] ** 2 > 0.999


def test_a_surface_too_rough_for_points_still_has_its_record(
    paper: redepth.Refinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = np.where(np.indices((60, 90)).sum(axis=0) % 2, 1.0, 9.0).astype(np.float32)
    monkeypatch.setitem(paper.__dict__, "depth", rough)
    (tmp_path / "points.ply").write_text("of an earlier run")
    folder = paper.save(tmp_path)
    assert not (folder / "points.ply").exists()
    assert json.loads((folder / "run.json").read_text())["points"] == 0


def test_another_photo_of_the_same_name_does_not_take_an_earlier_ones_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"
    out = tmp_path / "out"
    io.save_json(out / "x" / "run.json", {"photo": {"source": str(first.resolve())}})
    assert io.output_folders([first], out) == [out / "x"]
    assert io.output_folders([second], out) == [out / "x-2"]
    assert io.output_folders([first, second], out) == [out / "x", out / "x-2"]


# --- diagnostics, the sky and blending ------------------------------------------------------------


def test_the_record_holds_the_failure_signatures(paper: redepth.Refinement) -> None:
    record = paper.record()
    assert set(record["diagnostics"]) == set(MEANINGS)
    for name, found in record["diagnostics"].items():
        assert found == paper.diagnostics[name].record()
        assert found["flagged"] == (found["value"] is not None and found["value"] > found["threshold"])
        assert found["calibrated_for"] == ""
    assert record["sky_mask"] == "looked for"
    assert record["output"]["blend"] == {"rule": "none", "refined": "mean of the members"}


def test_what_is_flagged_is_written_over_the_comparison(
    paper: redepth.Refinement, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    draw = viz.comparison

    def drawn(*arrays: Any, **options: Any) -> Image.Image:
        written.append(options["subtitle"])
        return draw(*arrays, **options)

    monkeypatch.setattr(viz, "comparison", drawn)
    paper.comparison()
    signatures = {"geometry_collapse": Signature("geometry_collapse", 0.9, 0.4)}
    monkeypatch.setitem(paper.__dict__, "diagnostics", signatures)
    paper.comparison()
    titles = [s.title for s in paper.flagged]
    assert titles == ["geometry collapse"]
    assert "2 members · 2 steps · seed 1 · SI-log " in written[0]
    assert written[1].endswith("FLAGGED: geometry collapse")


def test_a_sky_mask_and_blending_reach_the_record() -> None:
    settings = ["optim.blend=agreement", "optim.objectives.sky.weight=2", "optim.steps=1"]
    pipeline = redepth.Pipeline("re-depth-anything", overrides=[*TINY_PAPER, *settings], device="cpu")
    mask = np.zeros((60, 90), np.uint8)
    mask[:30] = 255
    result = pipeline.refine(array(), sky_mask=mask)
    record = result.record()
    assert record["sky_mask"] == "given"
    share = record["diagnostics"]["sky_geometry"]["parts"]["share"]
    assert share == pytest.approx(0.5, abs=0.02)
    assert set(record["losses"]) == {"prior", "smoothness", "sky", "total"}
    assert record["preset"]["optim"]["objectives"]["sky"] == {"weight": 2.0, "tolerance": 0.0}
    blend = record["output"]["blend"]
    assert (blend["rule"], blend["t"]) == ("agreement", 0.1)
    assert 0 < blend["mean_w"] <= 1
    assert "initial + w (mean of the members - initial)" in blend["refined"]
    assert result.refined.shape == (60, 90)


def test_a_sky_mask_of_another_size_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redepth.Pipeline, "__init__", lambda *_, **__: pytest.fail("loaded weights"))
    with pytest.raises(InputError, match="the sky mask is 90 x 61 pixels and the photo 90 x 60"):
        redepth.refine(array(), "smoke", sky_mask=np.zeros((61, 90), bool))
    with pytest.raises(InputError, match=r"the sky mask is of shape \(60, 90, 3\)"):
        redepth.refine(array(), "smoke", sky_mask=np.zeros((60, 90, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what other C libraries do is theirs")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Counted in a process of its own: pages that are mapped while large tensors come and go."""
    code = """
import resource, sys, torch
from redepth.runtime.allocator import keep_freed_memory
assert sys.argv[1] == "no" or keep_freed_memory()
for i in range(32):
    if i == 12:  # until then the heap may still grow
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(20_000_000).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def pages(keep: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, keep], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert pages("yes") < 0.1 * pages("no")


def test_a_changed_copy_of_a_preset_is_validated() -> None:
    """pydantic's `model_copy` does not."""
    preset = redepth.load_preset("smoke")
    changed = preset.model_copy(update={"optim": preset.optim.model_copy(update={"steps": -5})})
    with pytest.raises(ConfigError, match="steps"):
        resolve(changed)


def test_a_mapping_overrides_a_pipeline_and_a_call_as_texts_do() -> None:
    texts = ["optim.steps=1", "optim.members=1", "renderer.name=lambert"]
    mapping = {"optim": {"steps": 1, "members": 1}, "renderer.name": "lambert"}
    expected = resolve(redepth.load_preset("smoke", texts))
    assert redepth.Pipeline("smoke", overrides=mapping, device="cpu").preset == expected
    # What the call sets itself gives way to the user's overrides, or wins over them, as the prompt does.
    given = {**mapping, "optim.parameterization": "depth", "prompt": {"captioner": "blip"}}
    depth = np.linspace(1, 2, 60 * 90, dtype=np.float32).reshape(60, 90)
    result = redepth.refine(
        array(), "smoke", overrides=given, device="cpu", depth=depth, predicts="depth", prompt="a hill"
    )
    assert result.preset.optim.parameterization == "depth"
    assert result.preset.prompt.captioner == "none"
    assert result.preset.depth_model.name == "precomputed"
    assert result.prompt == "a hill"
