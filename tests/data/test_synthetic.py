from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from redepth.data.scenes import photographs, relief
from redepth.data.scenes.canvas import Canvas, rms_slope
from redepth.data.scenes.relief import BROAD
from redepth.data.scenes.synthetic import SPLITS, Domain, Scenes, Split, benchmark_scenes, scenes
from redepth.data.scenes.unseen_relief import UNSEEN_RELIEF, UNSEEN_SHAPES
from redepth.errors import ConfigError
from redepth.ops.geometry import relative_depth
from tests.support.helpers import seeded

DOMAINS: list[Domain] = ["mid", "broad"]
FAMILIES = {**BROAD, **UNSEEN_RELIEF, **UNSEEN_SHAPES}

# Recorded by `python -m tests.data.test_synthetic`; a change of any of them is a new benchmark.
HASHES = {
    "in-domain": "e8964294dfbbd47029ed9c7ecc285be4008698b5e2736b953506c2208ea4746d",
    "relief": "c31989608b8b3e8eaa49cdeb3cea28511a01a444307a3740635b03c1cffb070a",
    "shapes": "c0915b0b45c62ace4558aa648a4c5bb611609e57f886abf47dc052e82f242604",
    "lighting": "b27ea8b4dcb998f78268f7fc0aba634eaa57e3116db2d6a4d43d8bb1338fa509",
    "texture": "a8c4efbc9ea75a9768b5e96f49a9917ffa0efc7587f75a62f9bd9d0a50b65434",
    "degraded": "3b0b17a52f328775abe98afc901ea9f967eed18d3a6dd4fbbb7dde69606c69b6",
    "sky": "e258a62edd91b809268e2ec9843cd34b35ecbcade225d35c07ea0a33e1d7fa1f",
}
TRAINING_SUMS = {"mid": (0.699786, 0.102550), "broad": (0.534706, 0.0739516)}


def drawn(split: Split, count: int = 4, strength: float = 1.0) -> Scenes:
    return benchmark_scenes(count, split, seeded(), strength=strength, height=48, width=64)


# --- the domains that models are trained on --------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_scenes_are_valid_photos_of_valid_surfaces(domain: Domain) -> None:
    found = scenes(24, domain, seeded(), height=48, width=64)
    assert found.image.shape == (24, 3, 48, 64)
    assert found.depth.shape == (24, 1, 48, 64)
    assert torch.isfinite(found.image).all()
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    assert found.depth.min() >= 0.399
    assert found.depth.max() <= 1.601
    assert found.image.flatten(1).std(dim=1).min() > 0.005


@pytest.mark.parametrize("domain", DOMAINS)
def test_training_scenes_are_those_that_the_shipped_models_saw(domain: Domain) -> None:
    """In float32 another machine may differ in the last bits, so sums stand for the bytes."""
    found = scenes(8, domain, seeded())
    assert (float(found.image.mean()), float(found.depth.std())) == pytest.approx(
        TRAINING_SUMS[domain], rel=1e-4
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_disparity_gives_the_depth_back_exactly(domain: Domain) -> None:
    found = scenes(4, domain, seeded())
    assert torch.allclose(relative_depth(found.disparity), found.depth, rtol=1e-5)
    assert found.disparity.min() > 0


def test_a_seed_gives_the_same_scenes_and_another_one_others() -> None:
    first, second, other = (scenes(3, "broad", seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.depth, second.depth)
    assert not torch.equal(first.depth, other.depth)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_makes_relief_that_differs_from_scene_to_scene(family: str) -> None:
    h = FAMILIES[family](Canvas(6, 32, 40, seeded()))
    assert h.shape == (6, 32, 40)
    assert torch.isfinite(h).all()
    assert h.flatten(1).std(dim=1).min() > 1e-3
    assert not torch.allclose(h[0], h[1])


def test_nothing_unseen_is_in_the_training_tables() -> None:
    assert not set(UNSEEN_RELIEF.values()) & set(BROAD.values())
    assert not set(UNSEEN_SHAPES.values()) & set(BROAD.values())
    assert relief.NARROW.items() <= BROAD.items()


@pytest.mark.parametrize("found", [scenes(48, "mid", seeded()), benchmark_scenes(48, "relief", seeded())])
def test_bumps_are_lit_from_above(found: Scenes) -> None:
    """Slopes that face up are brighter: the light stays in the upper half plane."""
    upward = found.normals[:, 1]
    grey = found.image.mean(dim=1)
    centred = (upward - upward.mean(dim=(1, 2), keepdim=True)) * (grey - grey.mean(dim=(1, 2), keepdim=True))
    assert (centred.mean(dim=(1, 2)) > 0).float().mean() > 0.9


# --- the splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_the_same_bytes_on_every_machine(split: Split) -> None:
    assert benchmark_scenes(4, split, seeded()).sha256() == HASHES[split]


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_valid_photos_of_valid_surfaces(split: Split) -> None:
    found = drawn(split, 12)
    assert found.image.shape == (12, 3, 48, 64)
    assert torch.equal((found.image * 255).round() / 255, found.image)
    assert found.image.flatten(1).std(dim=1).min() > 0.003
    sky = torch.zeros_like(found.depth, dtype=torch.bool) if found.sky is None else found.sky
    assert torch.equal(torch.isinf(found.depth), sky)
    assert found.depth.min() >= 0.399
    assert found.depth[~sky].max() <= 1.601
    length = found.normals.norm(dim=1, keepdim=True)
    assert torch.allclose(length[~sky], torch.ones(()), atol=1e-5)
    assert (length[sky] == 0).all()


@pytest.mark.parametrize("split", [s for s in SPLITS if s not in ("in-domain", "relief", "shapes")])
def test_one_factor_is_shifted_and_the_others_stay(split: Split) -> None:
    """The surface is the narrow domain's own, and the picture moves away from it with the strength."""
    known = drawn("in-domain")
    still, half, full = (drawn(split, strength=s) for s in (0.0, 0.5, 1.0))
    land = ~full.sky if full.sky is not None else torch.ones_like(known.depth, dtype=torch.bool)
    assert torch.equal(full.depth[land], known.depth[land])
    assert torch.equal(still.image, known.image)
    away = [float((s.image - known.image).abs().mean()) for s in (still, half, full)]
    assert away[0] <= away[1] < away[2]
    assert away[2] > 0.01


@pytest.mark.parametrize("split", ["relief", "shapes"])
def test_shifted_geometry_keeps_slope_and_mixes_with_the_strength(split: Split) -> None:
    still, half, full = (drawn(split, 16, s) for s in (0.0, 0.5, 1.0))
    slopes = [rms_slope(1 - s.depth[:, 0]).flatten() for s in (still, half, full)]
    # |h| is capped, which lowers some.
    assert all((s > 0.02).all() and (s < 0.66).all() for s in slopes)
    centred = [(s.depth - s.depth.mean(dim=(2, 3), keepdim=True)).flatten(1) for s in (still, half, full)]
    like = [torch.cosine_similarity(centred[0], c).mean() for c in centred]
    assert like[0] > like[1] + 0.1 > like[2] + 0.2


def test_a_photo_without_its_albedo_is_white_light() -> None:
    found = benchmark_scenes(2, "texture", torch.Generator().manual_seed(5))
    assert found.albedo is not None
    assert found.albedo.shape == found.image.shape
    linear = found.image.double() ** 2.2
    inside = (found.image > 0.15).all(1) & (found.image < 0.98).all(1)
    light = linear / found.albedo.double()
    spread = (light.amax(1) - light.amin(1)) / light.mean(1)
    # The sensor's noise alone differs between the channels.
    assert float(spread[inside].median()) < 0.15
    without = linear / linear.mean(1, keepdim=True)
    assert float((without.amax(1) - without.amin(1))[inside].median()) > 0.1


def test_strength_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"strength 1.5 is outside \[0, 1\]"):
        drawn("relief", strength=1.5)
    with pytest.raises(ConfigError, match="unknown split 'releif'; did you mean 'relief'"):
        benchmark_scenes(1, "releif", seeded())  # type: ignore[arg-type]


def test_normals_are_those_of_the_surface() -> None:
    """The plane of height h = a u + b v, z = 1 - h, has the normal (-a, -b, 1) up to length."""
    c = Canvas(1, 32, 32, seeded(), dtype=torch.float64)
    z = 1 - 0.3 * c.x - 0.2 * c.y
    found = Scenes(torch.zeros(1, 3, 32, 32), z[:, None]).normals[0]
    expected = torch.nn.functional.normalize(torch.tensor([-0.3, -0.2, 1.0], dtype=torch.float64), dim=0)
    assert torch.allclose(found, expected.view(3, 1, 1).expand_as(found))


# --- photographs ----------------------------------------------------------------------------------


def test_jpeg_agrees_with_an_encoder() -> None:
    """Against Pillow's at full chroma resolution, whose chroma table is coarser: grey pictures."""
    grey = drawn("texture").image[:, :1].expand(-1, 3, -1, -1).double()
    ours = photographs.jpeg(grey, torch.full((4, 1, 1), 30.0, dtype=torch.float64))
    for picture, compressed in zip(grey, ours, strict=True):
        buffer = io.BytesIO()
        pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=30, subsampling=0)
        theirs = torch.tensor(list(Image.open(buffer).convert("L").tobytes())).view(48, 64) / 255
        assert (compressed[0] - theirs).abs().mean() < 2 / 255


def test_jpeg_of_any_size_gets_worse_with_lower_quality() -> None:
    picture = torch.rand(1, 3, 21, 30, generator=seeded(), dtype=torch.float64)
    errors = [
        float((photographs.jpeg(picture, torch.full((1, 1, 1), q)) - picture).abs().mean())
        for q in (100.0, 60.0, 10.0)
    ]
    assert errors[0] < 0.01
    assert errors[0] < errors[1] < errors[2]


def test_hard_shadows_darken_what_a_bump_hides() -> None:
    c = Canvas(1, 64, 64, seeded(), dtype=torch.float64)
    bump = 0.5 * torch.exp(-((c.x) ** 2 + (c.y) ** 2) / 0.02)
    light = photographs.narrow_lighting(c)
    low = photographs.towards(torch.tensor([math.pi / 2]).double(), torch.tensor([2.0]).double())
    albedo = torch.ones(1, 3, 1, 1).double()
    depth = (1 - bump)[:, None]
    open_, cast = (
        photographs.lit(depth, albedo, replace(light, direction=low, hard=torch.full_like(light.hard, h)))
        for h in (0.0, 1.0)
    )
    below, above = (
        (slice(None), slice(None), slice(42, 48), 32),
        (slice(None), slice(None), slice(10, 16), 32),
    )
    assert (cast[below] < 0.7 * open_[below]).all()
    assert torch.allclose(cast[above], open_[above], rtol=1e-2)


if __name__ == "__main__":
    print({split: benchmark_scenes(4, split, seeded()).sha256() for split in SPLITS})
    for name in DOMAINS:
        batch = scenes(8, name, seeded())
        print(name, (float(batch.image.mean()), float(batch.depth.std())))
