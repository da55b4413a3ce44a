"""Where a prior's score points, against where it should: by prior, score rule, guidance and noise level.

    python -m benchmarks.accuracy.score_direction run [--scenes 4] [--draws 6] [--priors captioned ...]
    python -m benchmarks.accuracy.score_direction summary
    python -m benchmarks.accuracy.score_direction plot
    python -m benchmarks.accuracy.score_direction rank

A scene is re-lit from the depth that the embedded model predicts, x, and from its true depth, x*, under the
same random lights. What a score rule back-propagates into x is compared with the way from x to x*, as
cosines:

- ``picture``: of the score and x* - x, the mean over lights and noises;
- ``depth``: after both are pulled back to the logarithm of the depth, where x* - x gives the gradient of the
  oracle loss |x - x*|^2 / 2, likewise;
- ``mean depth``: of the means of these gradients over all lights and noises, as many steps of an optimiser
  sum them up;
- ``embeddings``: of these means pulled back further, to the embeddings of the depth model.

Of no prior are the rows ``flatter surface``: the way from x to the composite of the predicted depth with its
relief blurred and halved. A score that points there alone looks like help wherever the prediction is rough.

``rank`` asks whether a prior finds the truth likelier at all: it compares its denoising errors of x and x*
under the same noise. Its rows go to benchmarks/results/accuracy/score_ranking.jsonl.

A cosine of 1 is the oracle, 0 is no help, and below 0 the score pulls away from the truth. Reported scenes
have the seeds of reported results, and each prior sees the same lights and noises. Rows go to
benchmarks/results/accuracy/score_direction.jsonl, one per prior, scenes, noise level and rule.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.contracts import Illumination, Renderer
from redepth.data.datasets import Sample
from redepth.data.datasets.synthetic import UNSHIFTED
from redepth.experiments.planning import DEFAULT_SIZE, base_preset
from redepth.experiments.study import EVALUATION_SEED, open_scenes
from redepth.experiments.teacher import surface_between
from redepth.ops.filters import gaussian_blur
from redepth.optim.problem import Problem
from redepth.pipeline import Pipeline
from redepth.priors.distillation import StepInputs
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.schedule import TIMESTEPS
from redepth.priors.scores import Branch
from redepth.viz.library import import_matplotlib
from training.loop import json_lines

STORED = Path(__file__).parents[1] / "results" / "accuracy"
RESULT, RANKING = STORED / "score_direction.jsonl", STORED / "score_ranking.jsonl"

SPLITS: dict[str, tuple[str, ...]] = {
    "relief": (),
    "shapes": (),
    "unseen-rooms": ("renderer.camera=pinhole",),
}
"""Scenes -> overrides of the preset: rooms are seen by a pinhole."""

FLATTER, FLATTER_SIGMA = "flatter surface", 2.0
LIGHT_SEED, NOISE_SEED = 200_000, 210_000
LEVELS = (100, 300, 500, 700, 900)
GUIDANCE = (1.0, 3.0, 7.5, 15.0, 50.0)
MEASURES = ("picture", "depth", "mean depth", "embeddings")


@dataclass(frozen=True)
class Measured:
    """A prior that is measured.

    Attributes:
        options: of `PixelDiffusion`.
        rules: pairs of a score rule and a guidance scale.
        prompt: what it is told in place of the scene's caption.
    """

    options: Mapping[str, Any]
    rules: Sequence[tuple[str, float]]
    prompt: str = ""


SDS = [("sds", scale) for scale in GUIDANCE]
CONTRASTS = [("csd", 1.0), ("nfsd", 1.0), ("nfsd", 7.5), ("sds-bridge", 1.0)]
DDS, SDI = [("dds", 1.0), ("dds", 7.5), ("dds", 50.0)], [("sdi", 1.0), ("sdi", 7.5)]
FEW = [("sds", 1.0), ("sds", 7.5), ("sds", 50.0), ("csd", 1.0)]
CAPTIONED = {"checkpoint": "embedded:captioned-prior"}
PRIORS: dict[str, Measured] = {
    "re-lighting": Measured({}, [*SDS[:3], ("csd", 1.0), *DDS[:2], *SDI]),
    "re-lighting, told nothing": Measured({"condition_on": "nothing"}, SDS[:1]),
    "captioned": Measured(CAPTIONED | {"condition_on": "prompt"}, [*SDS, *CONTRASTS, *DDS, *SDI]),
    "captioned, light in words": Measured(CAPTIONED | {"condition_on": "prompt+light"}, [*SDS, *CONTRASTS]),
    "captioned, told nothing": Measured(CAPTIONED | {"condition_on": "nothing"}, SDS[:1]),
    "of posters": Measured({"checkpoint": "embedded:captioned-poster-prior", "condition_on": "prompt"}, FEW),
    "random weights": Measured(CAPTIONED | {"condition_on": "prompt", "weights": "random"}, FEW),
}
"""The priors, by name. Guidance starts from the prediction without conditions: 1 is none of it."""

SHOWN = (
    (FLATTER, "none", 0.0),
    ("re-lighting", "sds", 3.0),
    ("captioned", "sds", 1.0),
    ("captioned", "sds", 50.0),
    ("captioned, light in words", "sds", 50.0),
    ("of posters", "sds", 50.0),
    ("random weights", "sds", 50.0),
)
"""The priors, rules and guidance scales of the plot."""


class Remembering(PixelDiffusion):
    """A prior that keeps its predictions, because several rules need the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kept: dict[tuple[str, str], Tensor] = {}

    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict the branches that are not known yet."""
        key = hashlib.sha256(noisy.numpy().tobytes() + timestep.numpy().tobytes()).hexdigest()
        missing = [branch for branch in branches if (key, branch) not in self.kept]
        if missing:
            found = super().predict(noisy, timestep, inputs, missing)
            self.kept |= {(key, branch): found[branch] for branch in missing}
        return {branch: self.kept[key, branch] for branch in branches}


# --- a scene ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A scene re-lit from the predicted depth, and the direction to its true composites.

    Attributes:
        problem: the photo and the prediction.
        caption: of the scene.
        maps: the embeddings, leaves of the graph.
        surface: (1, 1, H, W) the log depth, computed from the embeddings.
        log_depth: (N, 1, H, W) the same for every light, a leaf.
        relit: (N, 3, H, W) x, computed from ``log_depth``.
        direction: (N, 3, H, W) x* - x.
        lights: N.
    """

    problem: Problem
    caption: str
    maps: list[Tensor]
    surface: Tensor
    log_depth: Tensor
    relit: Tensor
    direction: Tensor
    lights: Illumination

    def pulled_back(self, gradient: Tensor) -> dict[str, Tensor]:
        """Pull a gradient by x, (N, 3, H, W), back to depth, to its mean over lights, and to embeddings."""
        (by_light,) = torch.autograd.grad(self.relit, self.log_depth, gradient, retain_graph=True)
        mean = by_light.mean(dim=0, keepdim=True)
        by_maps = torch.autograd.grad(self.surface, self.maps, mean, retain_graph=True)
        embeddings = torch.cat([part.flatten() for part in by_maps])[None]
        return {"picture": gradient, "depth": by_light, "mean depth": mean, "embeddings": embeddings}


def scene_of(pipeline: Pipeline, sample: Sample, draws: int, seed: int) -> Scene:
    """Re-light a scene under ``draws`` lights from its predicted and from its true depth."""
    refiner = pipeline.refiner
    renderer = refiner.renderer
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None]
    problem = refiner.make_problem(photo)
    maps = [part.detach().requires_grad_() for part in problem.features.maps]
    raw = refiner.depth_model.decode(problem.features.with_maps(maps)) / problem.unit
    surface = refiner.relative_depth(raw, 0.0).log()
    truth = surface_between(pipeline, sample, 1.0).expand(draws, -1, -1, -1)
    lights = renderer.draw(draws, Generator().manual_seed(seed))
    log_depth = surface.detach().repeat(draws, 1, 1, 1).requires_grad_()
    relit = renderer(log_depth.exp(), problem.linear, lights)[:, 0]
    with torch.no_grad():
        direction = renderer(truth, problem.linear, lights)[:, 0] - relit
    return Scene(problem, sample.caption, maps, surface, log_depth, relit, direction, lights.flatten())


def cosines(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the cosine of each measure, the mean over its rows; that of a gradient of zeros is 0."""
    return {
        name: float(F.cosine_similarity(found[name].flatten(1), wanted[name].flatten(1)).mean())
        for name in MEASURES
    }


# --- a prior ----------------------------------------------------------------------------------------------


def measured(
    prior: Remembering, what: Measured, scene: Scene, level: int, seed: int
) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield score rule, guidance and cosines at a noise level."""
    oracle = scene.pulled_back(-scene.direction)
    prior.t_min = prior.t_max = level / TIMESTEPS
    noise = prior.draw(len(scene.relit), Generator().manual_seed(seed))
    for score, scale in what.rules:
        prior.score, prior.guidance_scale = score, scale
        condition = prior.condition(scene.problem.image, what.prompt or scene.caption)
        relit = scene.relit.detach().requires_grad_()
        loss = prior(relit, condition, scene.lights, noise).sum()
        (gradient,) = torch.autograd.grad(loss, relit)
        yield score, scale, cosines(scene.pulled_back(gradient), oracle)
    prior.kept.clear()


def rows_of(
    name: str, what: Measured, split: str, scenes: Sequence[Scene], levels: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Measure a prior on the scenes of a split; yield a row per noise level, rule and guidance."""
    prior = Remembering(guidance_base="uncond", **what.options).load(torch.device("cpu"))
    for level in levels:
        found: dict[tuple[str, float], list[dict[str, float]]] = {}
        for number, scene in enumerate(scenes):
            for score, scale, values in measured(prior, what, scene, level, seed=NOISE_SEED + number):
                found.setdefault((score, scale), []).append(values)
        for (score, scale), values in found.items():
            yield row_of(name, split, level, (score, scale), values)


@torch.no_grad()
def denoising_errors(
    prior: Remembering, what: Measured, scene: Scene, level: int, seed: int
) -> tuple[float, float]:
    """Return the mean squared error of the predicted noise in x and in x*, told all that the prior takes."""
    prior.t_min = prior.t_max = level / TIMESTEPS
    noise = prior.draw(len(scene.relit), Generator().manual_seed(seed))
    condition = prior.condition(scene.problem.image, what.prompt or scene.caption)
    inputs, errors = StepInputs(condition, scene.lights, noise), []
    for relit in (scene.relit, scene.relit + scene.direction):
        noisy = prior.schedule.add_noise(prior.to_model_space(relit, noise), noise["noise"], inputs.timestep)
        predicted = prior.predict(noisy, inputs.timestep, inputs, ("text",))["text"]
        found = prior.schedule.noise_of(predicted, noisy, inputs.timestep)
        errors.append(float(F.mse_loss(found, noise["noise"])))
    prior.kept.clear()
    return errors[0], errors[1]


def ranking_rows(
    name: str, what: Measured, split: str, scenes: Sequence[Scene], levels: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield a row per noise level: the errors of the predicted and of the true composites of each scene."""
    prior = Remembering(**what.options).load(torch.device("cpu"))
    for level in levels:
        pairs = [
            denoising_errors(prior, what, scene, level, NOISE_SEED + i) for i, scene in enumerate(scenes)
        ]
        predicted, true = ([round(value, 6) for value in values] for values in zip(*pairs, strict=True))
        yield {"prior": name, "split": split, "level": level, "predicted": predicted, "true": true}


def row_of(
    name: str, split: str, level: int, rule: tuple[str, float], values: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return the row of a prior, scenes, noise level and rule, from the cosines of each scene."""
    return {
        "prior": name,
        "split": split,
        "level": level,
        "score": rule[0],
        "guidance": rule[1],
        "cosines": {measure: [round(value[measure], 4) for value in values] for measure in MEASURES},
    }


def flatter_row(split: str, scenes: Sequence[Scene], level: int) -> dict[str, Any]:
    """Return the row of `flattened`, the same at every noise level."""
    renderer = pipeline_of(split).refiner.renderer
    values = [flattened(scene, renderer) for scene in scenes]
    return row_of(FLATTER, split, level, ("none", 0.0), values)


def pipeline_of(split: str) -> Pipeline:
    """Load the embedded preset with one light, as it sees a split."""
    return Pipeline(base_preset("embedded-relief", ["renderer.lights=1", *SPLITS[split]]), device="cpu")


def flattened(scene: Scene, renderer: Renderer) -> dict[str, float]:
    """Return the cosines of the way to the composites of a blurred surface of half the height."""
    with torch.no_grad():
        depth = torch.exp(0.5 * gaussian_blur(scene.log_depth, FLATTER_SIGMA))
        lights = scene.lights.map(lambda values: values[:, None])
        way = renderer(depth, scene.problem.linear, lights)[:, 0] - scene.relit
    return cosines(scene.pulled_back(-way), scene.pulled_back(-scene.direction))


def scenes_of(split: str, count: int, draws: int) -> list[Scene]:
    """Return the first scenes of a split, with the seeds of reported results."""
    pipeline = pipeline_of(split)
    strength = None if split in UNSHIFTED else 1.0
    reader = open_scenes(split, strength, count, DEFAULT_SIZE, EVALUATION_SEED)
    samples = [reader.load(name) for name in reader.names()]
    return [scene_of(pipeline, sample, draws, LIGHT_SEED + i) for i, sample in enumerate(samples)]


def run(args: argparse.Namespace, file: Path) -> None:
    """Measure the priors that have no rows in a file yet, and append theirs."""
    done, ranks = {(row["prior"], row["split"]) for row in stored(file)}, args.action == "rank"
    chosen = snapshots(args.snapshots) if args.snapshots else PRIORS
    names = args.priors or [*([] if ranks else [FLATTER]), *chosen]
    for split in args.splits:
        left = [name for name in names if (name, split) not in done]
        scenes = scenes_of(split, args.scenes, args.draws) if left else []
        for name in left:
            if name == FLATTER:
                rows = [flatter_row(split, scenes, level) for level in args.levels]
            else:
                measure = ranking_rows if ranks else rows_of
                rows = list(measure(name, chosen[name], split, scenes, args.levels))
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in rows)


def snapshots(folder: Path) -> dict[str, Measured]:
    """Return the captioned priors of a training's snapshots, exported to folders named by their samples."""
    folders = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name))
    return {
        f"captioned, {int(path.name) // 1000}k pictures": Measured(
            {"checkpoint": str(path / "captioned-prior"), "condition_on": "prompt"}, FEW
        )
        for path in folders
    }


# --- the results ------------------------------------------------------------------------------------------


def stored(file: Path) -> list[dict[str, Any]]:
    """Return the rows that are done."""
    return json_lines(file) if file.is_file() else []


def mean(values: Sequence[float]) -> float:
    """Return the mean of some numbers."""
    return sum(values) / len(values)


def summary(rows: Sequence[dict[str, Any]], measure: str) -> list[str]:
    """Return the lines of a table: each prior and rule, its mean cosine by scenes and noise level."""
    levels = sorted({row["level"] for row in rows})
    lines = [
        f"| {measure}: prior, rule, guidance | scenes | " + " | ".join(f"t = {t}" for t in levels) + " |",
        "| --- | --- |" + " ---: |" * len(levels),
    ]
    groups: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        key = (row["split"], row["prior"], f"{row['score']}, {row['guidance']:g}")
        groups.setdefault(key, {})[row["level"]] = mean(row["cosines"][measure])
    for (split, prior, rule), values in groups.items():
        numbers = " | ".join(f"{values[t]:+.2f}" if t in values else "" for t in levels)
        lines.append(f"| {prior}, {rule} | {split} | {numbers} |")
    return lines


def ranking_summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table: by how much of its error a prior denoises the true composites better."""
    levels = sorted({row["level"] for row in rows})
    lines = [
        "| prior | scenes | " + " | ".join(f"t = {t}" for t in levels) + " |",
        "| --- | --- |" + " ---: |" * len(levels),
    ]
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        change = 100 * (mean(row["true"]) / mean(row["predicted"]) - 1)
        better = sum(true < start for true, start in zip(row["true"], row["predicted"], strict=True))
        cell = f"{change:+.0f} % ({better} of {len(row['true'])})"
        groups.setdefault((row["prior"], row["split"]), {})[row["level"]] = cell
    for (prior, split), cells in groups.items():
        lines.append(f"| {prior} | {split} | " + " | ".join(cells.get(t, "") for t in levels) + " |")
    return lines


def plot(rows: Sequence[dict[str, Any]], file: Path, measure: str) -> None:
    """Draw the mean cosine by noise level: a panel for each split, a line for each prior's rule `SHOWN`."""
    import_matplotlib()
    from matplotlib.figure import Figure

    splits = list(dict.fromkeys(row["split"] for row in rows))
    figure = Figure(figsize=(3.4 * len(splits), 3.2), layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        for prior, score, scale in SHOWN:
            line = [
                (row["level"], mean(row["cosines"][measure]))
                for row in rows
                if (row["split"], row["prior"], row["score"], row["guidance"]) == (split, prior, score, scale)
            ]
            if line:
                axes.plot(
                    *zip(*sorted(line), strict=True), marker="o", ms=3, label=f"{prior}, {score} {scale:g}"
                )
        axes.axhline(0, color="grey", lw=0.8)
        axes.set(title=split, xlabel="noise level t")
    panels[0].set_ylabel(f"cosine, {measure}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)
    figure.savefig(file)


def main() -> None:
    """Measure, or show what is stored."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "rank", "summary", "plot"))
    parser.add_argument("--rows", type=Path, help="where rows are kept")
    parser.add_argument("--scenes", type=int, default=4, help="scenes of each split")
    parser.add_argument("--draws", type=int, default=6, help="lights and noises of each scene and level")
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--priors", nargs="+", help="only these")
    parser.add_argument("--levels", nargs="+", type=int, default=list(LEVELS), help="noise levels t")
    parser.add_argument("--snapshots", type=Path, help="measure exported snapshots in FOLDER/SAMPLES instead")
    parser.add_argument("--measure", choices=MEASURES, default="mean depth")
    parser.add_argument("--out", type=Path, default=Path("score_direction.svg"), help="of plot")
    args = parser.parse_args()
    if args.action == "run":
        run(args, args.rows or RESULT)
    elif args.action == "rank":
        run(args, args.rows or RANKING)
        print("\n".join(ranking_summary(stored(args.rows or RANKING))))
    elif args.action == "summary":
        print("\n".join(summary(stored(args.rows or RESULT), args.measure)))
    else:
        plot(stored(args.rows or RESULT), args.out, args.measure)


if __name__ == "__main__":
    main()
