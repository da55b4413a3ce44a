"""How far redepth is from the arrays recorded from the authors' implementation.

    python -m benchmarks.accuracy.parity

It measures every comparison and writes docs/results/parity.json and docs/parity.md.

``MEASURES`` maps each comparison to a function that returns its relative error, and to its bound, which
``tests/benchmarks/test_parity.py`` checks.

The authors' frame has x to the left and y down: `half_turn` converts their lights to redepth's frame, and
redepth's normals to theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

from redepth.config import Optim, Term
from redepth.contracts import Features, Illumination, Material, Noise, StepDraws, Surface
from redepth.depth_models.depth_anything import resize_position_embeddings
from redepth.metrics import evaluate
from redepth.ops import color, geometry, shading
from redepth.optim.objectives import Smoothness
from redepth.optim.outcome import StepReport
from redepth.optim.parameterizations import Parameterization
from redepth.optim.refiner import Refiner
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.helpers import CPU, GOLDEN, golden, photo, relative_error, tiny_depth_model

DOCS = Path(__file__).parents[2] / "docs"
METRICS = ("a1", "a2", "a3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log_10", "silog")
BOUND, AMPLIFIED_BOUND = 1e-5, 1e-4


@cache
def shading_errors(case: str) -> dict[str, float]:
    """Normals, relit picture, and the gradient by depth."""
    recorded = golden("shading", case)
    depth = recorded("depth")[:, None].requires_grad_()
    normals = geometry.normals_from_depth(depth)
    diffuse, specular = recorded("diffuse_specular").expand(len(depth), 2).unbind(1)
    linear = shading.blinn_phong(
        normals,
        color.srgb_to_linear(recorded("image_srgb")),
        geometry.half_turn(recorded("light"))[:, None],
        diffuse[:, None],
        specular[:, None],
        recorded("shininess").expand(len(depth), 1),
    )
    relit = shading.develop(linear)[:, 0]
    (relit * recorded("cotangent")).sum().backward()
    return {
        "normals": relative_error(geometry.half_turn(normals, dim=1), recorded("normals")),
        "relit": relative_error(relit, recorded("relit_srgb")),
        "gradient": relative_error(depth.grad[:, 0], recorded("grad_depth")),
    }


@cache
def smoothness_errors(case: str) -> dict[str, float]:
    """The regulariser and its gradient."""
    recorded = golden("smoothness", case)
    raw = recorded("raw")[:, None].requires_grad_()
    loss = Smoothness()(Surface(raw, raw, raw)).mean()
    loss.backward()
    return {
        "loss": relative_error(loss, recorded("loss")),
        "gradient": relative_error(raw.grad[:, 0], recorded("grad")),
    }


@cache
def evaluation_errors(case: str) -> dict[str, float]:
    """The aligned depth, and the largest error of any metric."""
    recorded = golden("evaluation", case)
    found = evaluate(recorded("raw_disparity"), recorded("gt_depth"), recorded("mask"))
    pairs = [(found.metrics[name], float(recorded(f"metric_{name}"))) for name in METRICS]
    return {
        "aligned": relative_error(found.aligned.float(), recorded("aligned_depth")),
        "metrics": max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs),
    }


def position_embedding_error(case: str) -> float:
    """Position embeddings at another input size."""
    recorded = golden("position_embeddings", case)
    height, width = recorded("height_width").tolist()
    original = torch.from_numpy(np.load(GOLDEN / "position_embeddings.npz")["position_embeddings"])
    return relative_error(resize_position_embeddings(original, height, width, 14), recorded("resized"))


def resize_errors() -> float:
    """How many of the recorded network sizes differ."""
    rows = json.loads((GOLDEN / "resize.json").read_text())
    return float(
        sum(
            geometry.network_size(r["height"], r["width"], target=r["target"], multiple=14, rule=r["method"])
            != (r["out_height"], r["out_width"])
            for r in rows
        )
    )


@cache
def sds_errors(case: str) -> dict[str, float]:
    """Text embeddings, loss, and the gradient by the picture, at guidance 50."""
    recorded, texts = golden("sds", case), np.load(GOLDEN / "sds.npz")
    weighting: Any = str(texts[f"{case}_weighting"])
    prior = StableDiffusion(checkpoint=str(GOLDEN / "tiny-random-sd"), weighting=weighting).load(CPU)
    rgb = recorded("rgb").requires_grad_()
    condition = prior.condition(rgb, str(texts[f"{case}_prompt"]))
    noise = {
        "timestep": recorded("timesteps"),
        "posterior": recorded("vae_noise"),
        "noise": recorded("noise"),
    }
    loss = prior(rgb, condition, Illumination(), Noise(noise))
    loss.sum().backward()
    return {
        "text": relative_error(condition.tensors["text"], recorded("text_embeddings_cond")),
        "no text": relative_error(condition.tensors["uncond"], recorded("text_embeddings_uncond")),
        "loss": relative_error(loss[0], recorded("loss")),
        "gradient": relative_error(rgb.grad, recorded("grad_rgb")),
    }


def _recorded_step(index: int) -> StepDraws:
    step = golden("trace", f"s{index}")
    diffuse, specular = step("diffuse_specular")
    material = Material(
        diffuse.view(1, 1), specular.view(1, 1), shininess=step("shininess").float().view(1, 1)
    )
    light = Illumination.of(geometry.half_turn(step("light"))[None], material)
    noise = {
        "timestep": step("timesteps")[None],
        "posterior": step("vae_noise")[None],
        "noise": step("noise")[None],
    }
    return StepDraws(light, Noise(noise))


class _RecordedStart(Refiner):
    """A refiner that starts from the recorded features and exposes its learnable state."""

    def __init__(self) -> None:
        prior = StableDiffusion(checkpoint=str(GOLDEN / "tiny-random-sd")).load(CPU)
        optim = Optim(steps=2, members=1, objectives={"smoothness": Term()})
        terms = {"smoothness": (1.0, Smoothness())}
        super().__init__(tiny_depth_model(), BlinnPhong(), prior, optim, terms)
        self.state: Any = None

    def predict(self, photo: Tensor) -> tuple[Tensor, Features, Tensor]:
        arrays = np.load(GOLDEN / "trace.npz")
        tokens = [torch.from_numpy(arrays[f"feature_{i}"]) for i in range(4)]
        features = Features(tuple(t[:, 1:] for t in tokens), tuple(t[:, :1] for t in tokens), (4, 5))
        with torch.no_grad():
            return torch.from_numpy(arrays["image"]), features, self.depth_model.decode(features)

    def make_optimizer(self, state: Parameterization) -> torch.optim.Optimizer:
        self.state = state
        return super().make_optimizer(state)


@cache
def trace_errors() -> dict[str, float]:
    """Whole optimisation steps: losses, surfaces, gradients, and the outputs after the last one."""
    refiner, errors = _RecordedStart(), {}

    def on_step(report: StepReport) -> None:
        step, groups = golden("trace", f"s{report.step - 1}"), refiner.state.groups()
        found = {
            "raw": (report.raw[:, 0], "raw"),
            "relative depth": (report.depth[:, 0], "relative_depth"),
            "relit": (report.relit[:, 0], "rgb"),
            "score": (report.losses["prior"][0], "sds"),
            "smoothness": (report.losses["smoothness"][0], "smooth"),
            "gradient of embedding 0": (groups["embeddings"][0].grad, "grad_embedding_0"),
            "gradient of embedding 3": (groups["embeddings"][3].grad, "grad_embedding_3"),
            "gradient of the offset": (groups["offset"][0].grad.view(()), "grad_offset"),
        }
        for name, (ours, key) in found.items():
            errors[f"step {report.step}, {name}"] = relative_error(ours, step(key))

    draws = [_recorded_step(0), _recorded_step(1)]
    outcome = refiner.run(photo(), prompt="a tiger", draws=draws, on_step=on_step)
    final = golden("trace", "final")
    errors["after, raw"] = relative_error(outcome.members[:, 0], final("raw"))
    errors["after, relative depth"] = relative_error(outcome.member_depths[:, 0], final("relative_depth"))
    errors["after, offset"] = relative_error(outcome.offsets[0], final("offset"))
    return errors


Measure = tuple[Callable[[], float], float]


def _measures() -> dict[str, Measure]:
    found: dict[str, tuple[Callable[[], float], float]] = {
        "resize rule, sizes that differ": (resize_errors, 1e-9)
    }

    def add(title: str, errors: Callable[[], dict[str, float]], names: tuple[str, ...], bound: float) -> None:
        for name in names:
            found[f"{title}: {name}"] = (partial(lambda e, n: e()[n], errors, name), bound)

    for case in ("c0", "c1"):
        add(f"shading {case}", partial(shading_errors, case), ("normals", "relit", "gradient"), BOUND)
        add(f"smoothness {case}", partial(smoothness_errors, case), ("loss", "gradient"), BOUND)
        add(f"evaluation {case}", partial(evaluation_errors, case), ("aligned", "metrics"), BOUND)
        add(
            f"score distillation {case}",
            partial(sds_errors, case),
            ("text", "no text", "loss", "gradient"),
            BOUND,
        )
    for case in ("c0", "c1", "c2", "c3"):
        found[f"position embeddings {case}"] = (partial(position_embedding_error, case), BOUND)
    parts = ("raw", "relative depth", "relit", "score", "smoothness")
    gradients = tuple(f"gradient of {what}" for what in ("embedding 0", "embedding 3", "the offset"))
    for step in (1, 2):
        names = tuple(f"step {step}, {name}" for name in (*parts, *gradients))
        add("trace", trace_errors, names, AMPLIFIED_BOUND)
    add("trace", trace_errors, ("after, raw", "after, relative depth", "after, offset"), AMPLIFIED_BOUND)
    return found


MEASURES = _measures()


def main() -> None:
    """Measure everything and write the record and the page."""
    from redepth.components import versions
    from redepth.io import save_json

    rows = [{"what": k, "relative_error": f(), "bound": bound} for k, (f, bound) in MEASURES.items()]
    save_json(DOCS / "results" / "parity.json", {"versions": versions(), "rows": rows})
    lines = [
        "# Parity with the authors' implementation",
        "",
        "We recorded inputs and outputs of the authors' implementation, on the CPU in float32, on",
        "checkpoints of a few channels with random weights. The table compares redepth with these",
        "recordings. The relative error is the norm of the difference divided by the norm of the recorded",
        "array. `python -m benchmarks.accuracy.parity` writes this page. `tests/benchmarks/test_parity.py`",
        "checks each row against its bound.",
        "",
        "| what | relative error | bound |",
        "| --- | --- | --- |",
        *(f"| {r['what']} | {r['relative_error']:.1e} | {r['bound']:.0e} |" for r in rows),
    ]
    (DOCS / "parity.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
