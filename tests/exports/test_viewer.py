"""The page of a result: what its data hold, how precise they are, and that no name becomes markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redepth.exports import viewer
from redepth.exports.surface import Surface
from redepth.exports.viewer import page_of
from redepth.exports.viewer.encoding import OCTAHEDRON_BITS, UNKNOWN, logarithmic, octahedral, packed
from redepth.metrics.metric_fit import MetricFit
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from tests.support.viewed import SIZE, result

PINHOLE = Camera(field_of_view=50.0)
HOSTILE = "</script><img src=x onerror=alert(1)>{{data}} \u2028 & \" '.png"
ASSETS = Path(viewer.__file__).parent / "assets"


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="redepth-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


# --- the other side of encoding.py ----------------------------------------------------------------


def unpacked(text: str, height: int, width: int) -> np.ndarray[Any, Any]:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(np.int64)
    high, low = planes.reshape(2, height, width)
    folded = (high << 8) | low
    steps = (folded >> 1) ^ -(folded & 1)
    return steps.cumsum(axis=0).cumsum(axis=1) % 2**16


def directions(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    levels = 2**OCTAHEDRON_BITS - 1
    x, y = (2 * codes.astype(float) / levels - 1 for codes in (first, second))
    z = 1 - abs(x) - abs(y)
    below = z < 0
    sign_x, sign_y = np.where(x < 0, -1, 1), np.where(y < 0, -1, 1)
    x, y = np.where(below, (1 - abs(y)) * sign_x, x), np.where(below, (1 - abs(x)) * sign_y, y)
    vectors = np.stack([x, y, z], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_codes_come_back_as_they_were() -> None:
    draw = np.random.default_rng(0)
    for codes in (
        draw.integers(0, 2**16, (7, 5)),
        np.zeros((1, 1)),
        np.full((2, 3), UNKNOWN),
        np.array([[0, 65535, 0], [65535, 0, 65535]]),
    ):
        codes = codes.astype(np.uint16)
        assert np.array_equal(unpacked(packed(codes), *codes.shape), codes)


def test_smooth_codes_are_short() -> None:
    y, x = np.mgrid[:200, :300]
    smooth = (8000 + 4000 * np.sin(x / 40) * np.cos(y / 30)).astype(np.uint16)
    # A fifth of two bytes a pixel, base64 included.
    assert len(packed(smooth)) < 0.2 * 2 * smooth.size


def test_unit_vectors_are_off_by_less_than_the_shading_shows() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 300, 3))
    vectors[0, :6] = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    vectors[1, 1, 2] = np.nan
    first, second = octahedral(vectors)
    assert first[1, 1] == second[1, 1] == UNKNOWN
    assert (first == UNKNOWN).sum() == 1
    found = directions(first, second)
    off = 2 * np.arcsin(np.linalg.norm(found - vectors, axis=-1) / 2)
    assert 1e-5 < np.nanmax(off) < 3e-4
    np.testing.assert_allclose(found[0, :6], vectors[0, :6], atol=2e-4)


def test_depths_are_exact_to_a_share_of_themselves() -> None:
    depth = np.geomspace(0.5, 800, 1000).reshape(20, 50).astype(np.float32)
    known = np.ones(depth.shape, bool)
    known[3, 4] = False
    depth[3, 4] = np.nan
    codes, offset, step = logarithmic(depth, known)
    found = np.exp(offset + step * codes.astype(float))
    assert codes[3, 4] == UNKNOWN
    assert np.abs(found / depth - 1)[known].max() < 1e-4
    flat = np.full((2, 2), 3.0, np.float32)
    codes, offset, step = logarithmic(flat, flat > 0)
    assert np.exp(offset + step * codes) == pytest.approx(3.0)
    assert (logarithmic(flat, flat < 0)[0] == UNKNOWN).all()


# --- what the page holds --------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE, SPHERICAL], ids=lambda camera: camera.kind)
def test_normals_and_surfaces_are_those_of_the_result(camera: Camera) -> None:
    made = result(camera)
    data = data_of(page_of(made))
    light, space = data["light"], data["space"]
    for name, normals in (("before", made.normals_before), ("after", made.normals_after)):
        found = directions(*(unpacked(text, light["height"], light["width"]) for text in light[name]))
        np.testing.assert_allclose(found, normals, atol=5e-4)
    assert (light["intrinsics"] is None) == (camera.kind != "pinhole")
    # The points that space.js makes of the numbers are those of exports.surface.
    u, v = np.array(space["u"]), np.array(space["v"])[:, None]
    for name, surface in (("before", Surface.of(made, "initial")), ("after", Surface.of(made))):
        packed_surface = space[name]
        codes = unpacked(packed_surface["codes"], len(space["v"]), len(space["u"]))
        z = np.exp(packed_surface["offset"] + packed_surface["step"] * codes)
        one = np.ones_like(z)
        found = {
            "orthographic": (u * one, v * one, -z),
            "pinhole": (z * u, z * v, -z),
            "spherical": (z * np.cos(v) * np.sin(u), z * np.sin(v), -z * np.cos(v) * np.cos(u)),
        }[camera.kind]
        columns = np.arange(SIZE[1] + camera.closed)
        expected = surface.points(np.arange(SIZE[0]), columns)
        known = codes != UNKNOWN
        # The relief of a panorama is torn where its edges meet.
        assert known[:, 2:-2].all()
        assert known.all() == (camera.kind != "spherical")
        np.testing.assert_allclose(np.stack(found, axis=-1)[known], expected[known], atol=3e-4)
        cells = unpacked(packed_surface["cells"], len(space["v"]) - 1, len(space["u"]) - 1)
        assert cells[:, 2:-2].all()


def test_what_is_unknown_or_torn_is_no_surface() -> None:
    holes = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    holes[..., :20, :10] = True
    made = result(holes=holes)
    data = data_of(page_of(made))
    first = unpacked(data["light"]["after"][0], *SIZE)
    assert np.array_equal(first == UNKNOWN, np.isnan(made.normals_after[..., 0]))
    space = data["space"]
    codes = unpacked(space["after"]["codes"], *SIZE)
    cells = unpacked(space["after"]["cells"], SIZE[0] - 1, SIZE[1] - 1)
    assert (codes[:20, :10] == UNKNOWN).all()
    assert cells[:20, :10].sum() == 0
    assert cells[20:, 10:].all()
    assert "13.0 %" not in page_of(result())
    unknown = dict(map(tuple, data["facts"]["rows"]))["Unknown"]
    assert f"{100 * made.unknown.mean():.1f} % of the photo" in unknown


def test_metres_are_said_where_they_are_known() -> None:
    fit = MetricFit(scale=0.5, shift=0.1, points=3, inliers=3, residual=0.0, confidence=1.0)
    made = result(PINHOLE, metric_fit=fit)
    space = data_of(page_of(made))["space"]
    assert space["unit"] == "metres"
    codes = unpacked(space["before"]["codes"], *SIZE)
    metres = np.exp(space["before"]["offset"] + space["before"]["step"] * codes)
    np.testing.assert_allclose(metres, 1 / (0.5 * made.initial + 0.1), rtol=1e-4)
    assert data_of(page_of(result(PINHOLE)))["space"]["unit"] == "relative"


def test_uncertainty_is_shown_where_there_are_several_members() -> None:
    for members in (1, 3):
        data = data_of(page_of(result(members=members)))
        names = [picture["name"] for picture in data["pictures"]]
        assert names[:3] == ["photo", "initial", "refined"]
        assert ("uncertainty" in names) == (members > 1)
        assert f"{members} member" in data["facts"]["subtitle"]


@pytest.mark.parametrize(
    ("photo", "embedded"), [((48, 64), (48, 64)), ((1600, 800), (1500, 750)), ((1000, 3100), (484, 1500))]
)
def test_photos_are_reduced_to_1500_pixels(photo: tuple[int, int], embedded: tuple[int, int]) -> None:
    data = data_of(page_of(result(photo_size=photo)))
    assert (data["height"], data["width"]) == embedded
    for picture in data["pictures"][:3]:
        jpeg = base64.b64decode(picture["src"].partition(",")[2])
        assert Image.open(io.BytesIO(jpeg)).size == embedded[::-1]
    assert len(data["space"]["v"]) * len(data["space"]["u"]) < 165_000


@pytest.mark.parametrize("size", [(1, 8), (8, 1), (1, 1)])
def test_a_photo_of_one_row_or_column_has_a_page(size: tuple[int, int]) -> None:
    data = data_of(page_of(result(size=size)))
    assert (len(data["space"]["v"]), len(data["space"]["u"])) == size
    assert unpacked(data["space"]["after"]["codes"], *size).shape == size


@pytest.mark.slow
@pytest.mark.parametrize("factors", [(0.99, 1.01), (0.1, 2.0)], ids=["noisy", "noise"])
def test_the_worst_photo_stays_below_the_limit(factors: tuple[float, float]) -> None:
    """Noise in the photo and in every map, over a relief or instead of it."""
    size = (1500, 1500)
    made = result(size=size, members=2)
    draw = np.random.default_rng(0)
    made.photo[:] = draw.random(made.photo.shape, np.float32)
    outcome = made.outcome
    for maps in (outcome.initial, outcome.members, outcome.initial_depth, outcome.member_depths):
        maps.mul_(torch.from_numpy(draw.uniform(*factors, maps.shape).astype(np.float32)))
    size_of_page = len(page_of(made).encode())
    assert 0.7 * viewer.BYTES < size_of_page < viewer.BYTES


# --- one file, no markup from outside -------------------------------------------------------------


class Tags(HTMLParser):
    """Counts what a parser of HTML sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_hostile_name_becomes_no_markup() -> None:
    plain, hostile = (page_of(result(source=name)) for name in ("a.png", f"photos\\{HOSTILE}"))
    tags = [[tag for tag, _ in Tags(page).tags] for page in (plain, hostile)]
    assert tags[0] == tags[1]
    title = data_of(hostile)["facts"]["title"]
    assert title.endswith("img src=x onerror=alert(1)>{{data}} \u2028 & \" '.png")
    assert f'<h1 id="title">{html.escape(title)}</h1>' in hostile


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = page_of(result())
    for tag, attributes in Tags(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert not {"src", "srcset", "style", "onclick"} & set(attributes), (tag, attributes)
        assert attributes.get("href", "#").startswith("#")
    policy = next(
        attributes["content"] or ""
        for tag, attributes in Tags(page).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    packed_three = re.search(r'id="redepth-three">(.*?)</script>', page)
    assert packed_three
    three = gzip.decompress(base64.b64decode(packed_three[1])).decode()
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    for text in (*scripts, three, style[1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(scripts) == 1


def test_the_bundle_is_the_pinned_three_with_its_licence() -> None:
    manifest = json.loads((ASSETS.parent / "bundling" / "package.json").read_text())
    lock = json.loads((ASSETS.parent / "bundling" / "package-lock.json").read_text())
    version = manifest["devDependencies"]["three"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert lock["packages"]["node_modules/three"]["version"] == version
    assert lock["packages"]["node_modules/three"]["integrity"].startswith("sha512-")
    licence = (ASSETS / "three.LICENSE.txt").read_text()
    assert licence.startswith(f"three.js {version}\n\nThe MIT License")
    assert (ASSETS / "three.min.js").read_text().startswith(f"/*! {licence.strip()}\n*/")


def test_the_page_is_the_same_every_time() -> None:
    assert page_of(result(members=2)) == page_of(result(members=2))
