"""The result of a refinement: its arrays, what they mean, and the files that are written of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import io
from redepth.config import Preset
from redepth.contracts import Invariance, Predicts
from redepth.errors import InputError
from redepth.metrics import Evaluation, LeftOut, beyond_gap, clip_warnings, evaluate, stored_no_hits
from redepth.metrics.diagnostics import Signature, diagnose
from redepth.ops import geometry
from redepth.optim.outcome import Outcome

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[np.float32]
log = logging.getLogger(__name__)

MEANINGS = {
    ("disparity", "affine"): "affine-invariant disparity: a * D + b is inverse depth for some unknown "
    "a > 0 and b; larger is nearer",
    ("depth", "affine"): "affine-invariant depth: a * D + b is depth for some unknown a > 0 and b; "
    "larger is farther",
    ("disparity", "metric"): "metric disparity in 1 / metres; larger is nearer",
    ("depth", "metric"): "metric depth in metres; larger is farther",
}


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of a photo, for metrics.

    Args:
        values: (H, W), the photo's size; unknown where 0, negative, not finite or a no-hit value
            (`redepth.metrics.stored_no_hits`, `redepth.metrics.beyond_gap`).
        kind: whether the values are depth or disparity (in any unit).
        mask: (H, W) bool, where to measure; None is wherever it is known.
    """

    values: Array
    kind: Predicts = "depth"
    mask: NDArray[np.bool_] | None = None

    def check(self, height: int, width: int) -> None:
        """Raise InputError unless a photo of this size can be measured against it."""
        for name, array in (("ground truth", self.values), ("mask", self.mask)):
            if array is not None:
                io.check_size(name, array.shape, height, width)
        # Measure the ground truth against itself, so that an unusable one fails here.
        depth = self.depth
        evaluate(depth, depth, self._mask, predicts="depth")

    @property
    def _mask(self) -> Tensor | None:
        return None if self.mask is None else torch.from_numpy(self.mask)

    @property
    def depth(self) -> Tensor:
        """The ground truth as depth, (H, W), 0 where unknown."""
        return self._known[0]

    @property
    def left_out(self) -> LeftOut:
        """What of it is not measured, and why."""
        return self._known[1]

    @cached_property
    def _known(self) -> tuple[Tensor, LeftOut]:
        return _known_depth(self)


@dataclass(frozen=True)
class Refinement:
    """A refined photo. Arrays are float32 at the photo's size.

    `predicts` and `invariance` say what ``initial``, ``refined`` and ``uncertainty`` hold. They are resized
    as in the paper's code (bilinear, corners aligned). ``depth`` is relative depth, larger is farther.

    Attributes:
        photo: (H, W, 3) sRGB in [0, 1].
        outcome: everything at network size, member by member, with the history of losses.
        preset: resolved.
        seed: of the run.
        prompt: of the run.
        prompt_origin: where the prompt is from: ``from`` is ``user``, ``none`` or a captioner, with its
            checkpoint.
        device: of the run.
        source: the photo's path, if it came from a file.
        components: checkpoints, revisions, precision, hardware, versions.
        timings: when the run began (UTC) and how long loading took.
        ground_truth: what it was measured against.
    """

    photo: Array
    outcome: Outcome
    preset: Preset
    seed: int = 0
    prompt: str = ""
    prompt_origin: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    source: str | None = None
    components: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    ground_truth: GroundTruth | None = None

    @property
    def predicts(self) -> Predicts:
        """``disparity`` or ``depth``: what `initial` and `refined` hold."""
        return self.outcome.predicts

    @property
    def invariance(self) -> Invariance:
        """``affine`` (known up to scale and shift) or ``metric``."""
        return self.outcome.invariance

    @property
    def meaning(self) -> str:
        """What the numbers mean, in a sentence."""
        return MEANINGS[self.predicts, self.invariance]

    @property
    def partial(self) -> bool:
        """Whether the run ended early; the arrays are those of the steps that were done."""
        return self.outcome.partial

    @cached_property
    def initial(self) -> Array:
        """The output of the depth model before refinement, (H, W)."""
        return self._at_photo_size(self.outcome.initial)

    @cached_property
    def refined(self) -> Array:
        """The refined output, (H, W): the mean of the members' raw outputs, or `optim.blend` of it."""
        return self._at_photo_size(self.outcome.refined)

    @cached_property
    def uncertainty(self) -> Array:
        """Standard deviation over the members, (H, W)."""
        return self._at_photo_size(self.outcome.uncertainty)

    @cached_property
    def depth(self) -> Array:
        """The ensemble's relative depth, (H, W), larger is farther."""
        return self._at_photo_size(self.outcome.refined_depth)

    @cached_property
    def normals_before(self) -> Array:
        """Unit normals of the initial surface at network size, (h, w, 3), x right, y up, z to the viewer."""
        return _display_normals(self.outcome.initial_depth)

    @cached_property
    def normals_after(self) -> Array:
        """Unit normals of the refined surface at network size, (h, w, 3)."""
        return _display_normals(self.outcome.refined_depth)

    @property
    def turn(self) -> float:
        """Mean angle between the normals before and after, in degrees."""
        cosine = (self.normals_before * self.normals_after).sum(axis=-1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """``initial`` and ``refined`` under the paper's protocol; empty without ground truth."""
        truth = self.ground_truth
        if truth is None:
            return {}
        return {
            name: evaluate(torch.from_numpy(raw), truth.depth, truth._mask, predicts=self.predicts)
            for name, raw in (("initial", self.initial), ("refined", self.refined))
        }

    @cached_property
    def diagnostics(self) -> dict[str, Signature]:
        """The failure signatures of this refinement by name (`redepth.metrics.diagnostics`)."""
        outcome = self.outcome
        return diagnose(
            torch.from_numpy(self.photo).permute(2, 0, 1)[None],
            outcome.initial,
            outcome.members,
            refined=outcome.refined,
            predicts=self.predicts,
            sky=outcome.sky,
        )

    @property
    def warnings(self) -> list[str]:
        """A line for each flagged failure signature, and for what of the ground truth was not measured."""
        lines = [signature.warning for signature in self.flagged]
        if self.ground_truth is not None:
            lines += self.ground_truth.left_out.warnings()
            lines += clip_warnings(max(evaluation.clipped for evaluation in self.evaluations.values()))
        return lines

    @property
    def flagged(self) -> list[Signature]:
        """The failure signatures above their thresholds."""
        return [signature for signature in self.diagnostics.values() if signature.flagged]

    def comparison(self) -> Image.Image:
        """Draw photo, initial, refined, difference and the normals before and after."""
        from redepth import viz

        truth = self.ground_truth
        # The comparison shows disparity for every kind of model: near is bright.
        before, after = (
            raw if self.predicts == "disparity" else _inverted(raw) for raw in (self.initial, self.refined)
        )
        spread = self.uncertainty if len(self.outcome.members) > 1 else None
        return viz.comparison(
            self.photo,
            before,
            after,
            self.normals_before,
            self.normals_after,
            uncertainty=spread,
            ground_truth=None if truth is None else _inverted(truth.depth.numpy()),
            title=Path(self.source).name if self.source else "refinement",
            subtitle=self._subtitle(),
        )

    def show(self) -> None:
        """Open the comparison in the system's picture viewer."""
        self.comparison().show()

    def save(self, folder: str | Path) -> Path:
        """Write all files of the refinement to a folder, each atomically, and return the folder.

        ``{predicts}.npy``, ``{predicts}.png`` (16 bit), ``initial.npy``, ``uncertainty.npy``,
        ``normals.png``, ``comparison.png``, ``points.ply``, ``run.json``. Where the surface is so rough that
        every point would be removed as a flying pixel, there is no ``points.ply``: a warning is logged, and
        ``run.json`` holds ``points: 0``.
        """
        from redepth import viz

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        io.save_npy(folder / f"{self.predicts}.npy", self.refined)
        io.save_npy(folder / "initial.npy", self.initial)
        io.save_npy(folder / "uncertainty.npy", self.uncertainty)
        encoding = io.save_disparity_png(folder / f"{self.predicts}.png", self.refined, kind=self.predicts)
        height, width = self.refined.shape
        normals = viz.normals_to_rgb(_resized_normals(self.normals_after, height, width))
        io.save_png(folder / "normals.png", normals)
        io.save_png(folder / "comparison.png", self.comparison())
        points = self._save_points(folder / "points.ply")
        io.save_json(folder / "run.json", self.record() | {"png": encoding, "points": points})
        return folder

    def _save_points(self, path: Path) -> int:
        try:
            return io.save_points(path, self.depth, self.photo)
        except InputError as error:
            log.warning("no point cloud: %s", error)
            path.unlink(missing_ok=True)
            return 0

    def record(self) -> dict[str, Any]:
        """Return everything that identifies the run, and its losses, as JSON-compatible data."""
        height, width = self.photo.shape[:2]
        outcome = self.outcome
        record: dict[str, Any] = {
            "photo": {"source": self.source, "height": height, "width": width},
            "network_size": list(outcome.initial.shape[-2:]),
            "output": {
                "predicts": self.predicts,
                "invariance": self.invariance,
                "meaning": self.meaning,
                "unit": outcome.unit,
                "blend": self._blend_record(),
            },
            "partial": self.partial,
            "reason": outcome.reason,
            "seed": self.seed,
            "prompt": self.prompt,
            "prompt_origin": dict(self.prompt_origin),
            "device": self.device,
            "members_done": len(outcome.members),
            "members_per_batch": outcome.members_per_batch,
            "steps_done": outcome.steps_done,
            "fit": None if outcome.fit is None else outcome.fit.record(),
            "timings": {**self.timings, "optimise_seconds": outcome.seconds},
            "scale_offsets": outcome.offsets.tolist(),
            "sky_mask": "given" if outcome.sky_given else "looked for",
            "diagnostics": {name: signature.record() for name, signature in self.diagnostics.items()},
            **self.components,
            "preset": self.preset.model_dump(),
            "losses": outcome.history,
        }
        if self.ground_truth is not None:
            record["ground_truth"] = self.ground_truth.left_out.record()
        for name, evaluation in self.evaluations.items():
            record.setdefault("metrics", {})[name] = {
                **evaluation.metrics,
                "clipped_share": evaluation.clipped,
            }
        return record

    def _blend_record(self) -> dict[str, Any]:
        outcome = self.outcome
        if outcome.blend == "none":
            return {"rule": "none", "refined": "mean of the members"}
        if outcome.blend == "detail":
            return {
                "rule": "detail",
                "refined": "initial + c - G * c, c = mean of the members - initial, "
                "G a Gaussian of sigma = scale x shorter side",
                "scale": outcome.blend_scale,
            }
        return {
            "rule": outcome.blend,
            "refined": "initial + w (mean of the members - initial), w = 1 / (1 + (std / (t spread))^2)",
            "t": outcome.blend_tolerance,
            "mean_w": float(outcome.blend_weight.mean()),
        }

    def _subtitle(self) -> str:
        outcome = self.outcome
        parts = [
            self.preset.name,
            f"{len(outcome.members)} members, {max(outcome.steps_done)} steps, seed {self.seed}",
        ]
        if self.partial:
            parts.append("PARTIAL")
        if self.evaluations:
            before, after = (self.evaluations[k].metrics["silog"] for k in ("initial", "refined"))
            parts.append(f"SI-log {before:.2f} to {after:.2f}")
        if self.flagged:
            parts.append("FLAGGED: " + ", ".join(signature.title for signature in self.flagged))
        return " · ".join(parts)

    def _at_photo_size(self, values: Tensor) -> Array:
        height, width = self.photo.shape[:2]
        resized = geometry.resize(values.float(), height, width, align_corners=True)
        return resized[0, 0].numpy()


def _known_depth(truth: GroundTruth) -> tuple[Tensor, LeftOut]:
    """Return a ground truth as depth, (H, W) float64, 0 where unknown, and what is not measured.

    Raises:
        InputError: it has several magnitudes.
    """
    values = np.asarray(truth.values)
    known = np.isfinite(values) & (values > 0)
    no_hit = np.zeros(known.shape, dtype=np.bool_)
    if truth.kind == "depth":
        no_hit |= stored_no_hits(values)
    depth = np.where(known & ~no_hit, values, 1.0).astype(np.float64)
    if truth.kind == "disparity":
        np.divide(1.0, depth, out=depth)
    no_hit |= beyond_gap(depth, known & ~no_hit)
    depth[~known | no_hit] = 0.0
    return torch.from_numpy(depth), LeftOut.of(values, no_hit, truth.mask)


def _display_normals(depth: Tensor) -> Array:
    normals = geometry.normals_from_depth(depth)
    return normals[0].permute(1, 2, 0).numpy()


def _resized_normals(normals: Array, height: int, width: int) -> Array:
    tensor = torch.from_numpy(normals).permute(2, 0, 1)[None]
    resized = geometry.resize(tensor, height, width, align_corners=True)[0].permute(1, 2, 0)
    return torch.nn.functional.normalize(resized, dim=-1).numpy()


def _inverted(depth: NDArray[Any]) -> Array:
    """Return depth as disparity for display, NaN where it is unknown or not positive."""
    known = depth > 0
    return np.where(known, 1.0 / np.where(known, depth, 1.0), np.nan).astype(np.float32)
