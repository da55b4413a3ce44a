"""Measure the failure signatures of healthy refinements and of constructed failures, for their thresholds.

    python -m benchmarks.accuracy.calibration

It writes docs/results/diagnostics.json and the tables in docs/diagnostics.md.

Healthy refinements are runs of the embedded preset that optimise the embeddings alone (`MILD`), on photos
of scikit-image. Each of them is then spoiled on purpose (`FAILURES`), and some photos are refined with
settings that are known to fail (`BAD_SETTINGS`). The tests check the same constructed failures on procedural
scenes. The record also has the preset as it ships, on photos mostly outside its domain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import typer
from torch import Generator, Tensor

from redepth.contracts import Predicts
from redepth.data.scenes.canvas import Canvas, with_slope
from redepth.data.scenes.photographs import narrow_photograph
from redepth.data.scenes.relief import BROAD
from redepth.data.scenes.synthetic import Scenes
from redepth.metrics.diagnostics import THRESHOLDS, Signature, diagnose
from redepth.ops.color import luma
from redepth.ops.filters import gaussian_blur
from redepth.ops.statistics import spread

DOCS = Path(__file__).parents[2] / "docs"
RESULT, PAGE = DOCS / "results" / "diagnostics.json", DOCS / "diagnostics.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

PHOTOS = tuple(
    name if "." in name else f"{name}.png"
    for line in (
        "astronaut brick camera cell chelsea clock_motion coffee coins grass gravel",
        "horse hubble_deep_field.jpg ihc moon motorcycle_left page retina.jpg rocket.jpg text",
    )
    for name in line.split(" ")
)
MILD = ["optim.parameterization=embeddings", "prior.t_min=0.55", "renderer.lights=1", "optim.members=5"]
BAD_SETTINGS: dict[str, list[str]] = {
    "full fine-tuning, rate 1e-3": [
        *MILD,
        "optim.parameterization=full",
        "optim.learning_rates.encoder=1e-3",
        "optim.learning_rates.decoder=1e-3",
    ],
    "embeddings, rate 1e-1": [*MILD, "optim.learning_rates.embeddings=1e-1", "optim.schedule=constant"],
    "random prior, rate 5e-2": [
        *MILD,
        "prior.weights=random",
        "optim.learning_rates.embeddings=5e-2",
        "optim.schedule=constant",
    ],
}
BAD_PHOTOS = ("camera.png", "chelsea.png", "coins.png", "gravel.png")
SKY_PHOTO, SKY_OBJECTIVE = "camera.png", "optim.objectives.sky.weight=1"


class Case(NamedTuple):
    """A refinement as `diagnose` takes it."""

    photo: Tensor
    initial: Tensor
    members: Tensor
    sky: Tensor | None = None
    predicts: Predicts = "disparity"

    def diagnose(self) -> dict[str, Signature]:
        return diagnose(self.photo, self.initial, self.members, predicts=self.predicts, sky=self.sky)

    @property
    def shorter(self) -> int:
        return min(self.initial.shape[-2:])

    @property
    def relief(self) -> float:
        return float(spread(self.initial))


# --- healthy cases on procedural scenes -----------------------------------------------------------


def relief(seed: int, members: int = 5, side: int = 140) -> Case:
    """A scene whose shading is that of its relief; the members add detail that the initial depth lacks.

    Of fractal relief: it has detail at every scale and no symmetry, so that blur takes something away
    and its mirror image is another surface.
    """
    generator = torch.Generator().manual_seed(seed)
    canvas = Canvas(1, side, side, generator)
    depth = (1 - with_slope(BROAD["fractal"](canvas), canvas.uniform(0.3, 0.7)))[:, None]
    truth = Scenes(narrow_photograph(canvas, depth), depth)
    initial = gaussian_blur(truth.disparity, 0.015 * side)
    return Case(truth.image, initial, _ensemble(0.5 * (initial + truth.disparity), members, generator))


def outdoors(seed: int = 0, members: int = 5, *, blue: bool = True) -> Case:
    """Ground, hills and a clouded sky, which is the truth in ``sky``; 140 x 196."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 140, 196
    v = torch.linspace(0, 1, height)[:, None].expand(height, width)
    u = torch.linspace(0, 1, width).expand(height, width)
    horizon = 0.45 + 0.08 * torch.sin(9 * u + seed) + 0.04 * torch.sin(23 * u)
    sky = v < horizon
    clouds = _noise(1, height, width, 6, generator)[0] * 0.02 + 0.15 * (v - 0.2)
    tint = torch.tensor([0.35, 0.55, 0.85] if blue else [0.8, 0.82, 0.85]).view(3, 1, 1)
    ground = torch.tensor([0.35, 0.33, 0.2]).view(3, 1, 1) + 0.1 * torch.randn(
        1, height, width, generator=generator
    )
    photo = torch.where(sky, tint + clouds, ground).clamp(0, 1)[None]
    disparity = torch.where(sky, 0.0, 0.8 + 6 * (v - horizon))[None, None]
    disparity = disparity + 0.1 * (~sky) * _noise(1, height, width, 20, generator)
    initial = gaussian_blur(disparity, 1.0).clamp(min=0)
    return Case(photo, initial, _ensemble(initial, members, generator).clamp(min=0), sky[None, None])


def _ensemble(mean: Tensor, members: int, generator: Generator) -> Tensor:
    """Members that differ as the embedded preset's do: smoothly, by some 3 % of the spread."""
    height, width = mean.shape[-2:]
    return mean + 0.03 * float(spread(mean)) * _noise(members, height, width, 6, generator)


def _noise(count: int, height: int, width: int, cells: int, generator: Generator) -> Tensor:
    """Smooth noise of about unit variance, (count, 1, height, width)."""
    grid = torch.randn(count, 1, cells, cells, generator=generator)
    return F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)


# --- failures, constructed ------------------------------------------------------------------------


def stamped(case: Case, amount: float) -> Case:
    """The photo's texture pressed into every member, its deviation a share of the depth's spread."""
    return case._replace(members=case.members + amount * case.relief * _texture(case))


def stamped_in_part(case: Case, amount: float) -> Case:
    """The same in the left third of the photo alone."""
    left = torch.arange(case.initial.shape[-1]) < case.initial.shape[-1] // 3
    return case._replace(members=case.members + amount * case.relief * _texture(case) * left)


def stamped_by_each(case: Case, amount: float) -> Case:
    """The texture pressed into each member by another amount, inwards or outwards."""
    strength = torch.linspace(-1, 1, len(case.members)).view(-1, 1, 1, 1)
    return case._replace(members=case.members + amount * case.relief * strength * _texture(case))


def _texture(case: Case) -> Tensor:
    bright = luma(F.interpolate(case.photo, case.initial.shape[-2:], mode="bilinear", antialias=True))
    fine = bright - gaussian_blur(bright, 0.03 * case.shorter)
    return fine / fine.std().clamp(min=1e-6)


def blurred(case: Case, amount: float) -> Case:
    """Every member blurred by a share of the shorter side."""
    return case._replace(members=gaussian_blur(case.members, amount * case.shorter))


def blurred_in_the_dark(case: Case, amount: float) -> Case:
    """The same where the photo is dark alone."""
    bright = luma(F.interpolate(case.photo, case.initial.shape[-2:], mode="bilinear", antialias=True))
    return case._replace(members=torch.where(bright < 0.2, blurred(case, amount).members, case.members))


def flattened(case: Case, amount: float) -> Case:
    """The range reduced to a share."""
    mean = case.members.mean(dim=(1, 2, 3), keepdim=True)
    return case._replace(members=mean + amount * (case.members - mean))


def two_planes(case: Case, _: float) -> Case:
    """Near and far only."""
    middle = case.members.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    low, high = case.members.amin(dim=(1, 2, 3), keepdim=True), case.members.amax(dim=(1, 2, 3), keepdim=True)
    return case._replace(members=torch.where(case.members > middle, high, low))


def mirrored(case: Case, _: float) -> Case:
    """Another surface of the same range: the depth upside down."""
    return case._replace(members=case.members.flip(-2))


def bumps_in_the_sky(case: Case, amount: float) -> Case:
    """A bump of a share of the spread in the middle of the sky, a sixth of the shorter side wide."""
    assert case.sky is not None
    rows, columns = case.initial.shape[-2:]
    inside = case.sky[0, 0].nonzero()
    row, column = inside[len(inside) // 2].tolist()
    y, x = torch.arange(rows)[:, None] - row, torch.arange(columns) - column
    bump = torch.exp(-0.5 * (x**2 + y**2) / (0.15 * case.shorter) ** 2)
    return case._replace(members=case.members + amount * case.relief * bump)


class Failure(NamedTuple):
    """A way to spoil a refinement, how much, and the signature that has to show it."""

    shows: str
    spoil: Callable[[Case, float], Case]
    amount: float = 0.0

    @property
    def name(self) -> str:
        amount = f" {100 * self.amount:g} %" if self.amount else ""
        return self.spoil.__name__.replace("_", " ") + amount


FAILURES = (
    Failure("hallucinated_edges", stamped, 0.05),
    Failure("hallucinated_edges", stamped, 0.1),
    Failure("hallucinated_edges", stamped_in_part, 0.1),
    Failure("over_smoothing", blurred, 0.02),
    Failure("over_smoothing", blurred, 0.04),
    Failure("geometry_collapse", flattened, 0.2),
    Failure("geometry_collapse", two_planes),
    Failure("geometry_collapse", mirrored),
    Failure("sky_geometry", bumps_in_the_sky, 0.2),
    Failure("sky_geometry", bumps_in_the_sky, 0.4),
)


# --- the record -----------------------------------------------------------------------------------

Values = dict[str, float | None]


def measure() -> dict[str, Any]:
    """Run everything: the values of every case by name."""
    from redepth.components import versions

    healthy = dict(_refined(PHOTOS, MILD))
    alone = {name: case._replace(members=case.members[:1]) for name, case in healthy.items()}
    outside = {
        f"{tint} sky {seed}": outdoors(seed, blue=tint == "blue")
        for seed in range(3)
        for tint in ("blue", "pale")
    }
    spoiled = {
        failure.name: {
            "shows": failure.shows,
            "values": _values(
                {k: failure.spoil(c, failure.amount) for k, c in _fit(failure, healthy, outside)}
            ),
        }
        for failure in FAILURES
    }
    bad = {name: _values(dict(_refined(BAD_PHOTOS, settings))) for name, settings in BAD_SETTINGS.items()}
    kept = {
        name: _values(dict(_refined((SKY_PHOTO,), [*settings, SKY_OBJECTIVE])))[SKY_PHOTO]["sky_geometry"]
        for name, settings in BAD_SETTINGS.items()
    }
    return {
        "versions": versions(),
        "thresholds": THRESHOLDS,
        "healthy": _values(healthy),
        "healthy, one member": _values(alone),
        "healthy, procedural outdoors": _values(outside),
        "constructed failures": spoiled,
        "settings that go wrong": bad,
        "as it ships": _values(dict(_refined(PHOTOS, []))),
        "sky geometry with the sky objective": {"photo": SKY_PHOTO, "values": kept},
    }


def _refined(names: tuple[str, ...], settings: list[str]) -> Iterator[tuple[str, Case]]:
    """Refine photos by the embedded preset with some settings changed."""
    import skimage

    from redepth.pipeline import Pipeline

    pipeline = Pipeline("embedded", overrides=settings, device="cpu")
    for name in names:
        result = pipeline.refine(Path(skimage.__file__).parent / "data" / name)
        outcome = result.outcome
        photo = torch.from_numpy(result.photo).permute(2, 0, 1)[None]
        yield name, Case(photo, outcome.initial, outcome.members, outcome.sky)


def _fit(failure: Failure, *groups: dict[str, Case]) -> list[tuple[str, Case]]:
    """Return the cases that can be spoiled so: bumps need a sky."""
    cases = [item for group in groups for item in group.items()]
    if failure.shows != "sky_geometry":
        return cases
    return [(name, case) for name, case in cases if case.sky is not None and bool(case.sky.any())]


def _values(cases: dict[str, Case]) -> dict[str, Values]:
    return {name: {k: s.value for k, s in case.diagnose().items()} for name, case in cases.items()}


def tables(record: dict[str, Any]) -> str:
    """Return the tables of the page, from the record."""
    groups = [key for key in record if key.startswith("healthy")]
    head = [
        "| signature | threshold | " + " | ".join(f"{g}: worst of {len(record[g])}" for g in groups) + " |"
    ]
    head.append("| --- |" + " --- |" * (len(groups) + 1))
    for name, threshold in record["thresholds"].items():
        most = (_most(record[group].values(), name) for group in groups)
        head.append(f"| {name} | {threshold:g} | " + " | ".join(most) + " |")
    spoiled = ["| constructed failure | signature | least | flagged |", "| --- | --- | --- | --- |"]
    for name, failure in record["constructed failures"].items():
        shows = failure["shows"]
        values = [v[shows] for v in failure["values"].values() if v[shows] is not None]
        flagged = sum(v > record["thresholds"][shows] for v in values)
        spoiled.append(f"| {name} | {shows} | {min(values):.3f} | {flagged} of {len(values)} |")
    bad = ["| settings | photo | " + " | ".join(record["thresholds"]) + " |", "| --- |" + " --- |" * 5]
    for name, photos in record["settings that go wrong"].items():
        for photo, values in photos.items():
            cells = (_cell(value, record["thresholds"][key]) for key, value in values.items())
            bad.append(f"| {name} | {photo} | " + " | ".join(cells) + " |")
    sky = record["sky geometry with the sky objective"]
    kept = [f"| settings, {sky['photo']} | sky_geometry | with `{SKY_OBJECTIVE}` |", "| --- | --- | --- |"]
    for name, value in sky["values"].items():
        before = record["settings that go wrong"][name][sky["photo"]]["sky_geometry"]
        kept.append(f"| {name} | {before:.3f} | {value:.3f} |")
    shipped = [
        "| `embedded` as it ships | " + " | ".join(record["thresholds"]) + " |",
        "| --- |" + " --- |" * 4,
    ]
    for photo, values in record["as it ships"].items():
        cells = (_cell(value, record["thresholds"][key]) for key, value in values.items())
        shipped.append(f"| {photo} | " + " | ".join(cells) + " |")
    return "\n".join([*head, "", *spoiled, "", *bad, "", *kept, "", *shipped])


def _most(values: Any, name: str) -> str:
    found = [v[name] for v in values if v[name] is not None]
    return f"{max(found):.3f}" if found else "-"


def _cell(value: float | None, threshold: float) -> str:
    if value is None:
        return "-"
    return f"**{value:.3f}**" if value > threshold else f"{value:.3f}"


def write_page() -> None:
    """Put the tables of the stored record between the marks of the page."""
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(f"{page[:start]}\n\n{tables(json.loads(RESULT.read_text()))}\n\n{page[end:]}")


def main() -> None:
    """Measure everything and write the record and the tables of the page."""
    from redepth.io import save_json

    save_json(RESULT, measure())
    write_page()


if __name__ == "__main__":
    typer.run(main)
