"""The result of a refinement: its arrays, what they mean, and the files that are written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import exports, io, viz
from redepth.config import Preset
from redepth.contracts import Invariance, Predicts
from redepth.errors import PartlyWrittenError
from redepth.exports.intrinsics import camera_record
from redepth.exports.source import MEANINGS, MapName, inverted
from redepth.exports.surface import Surface
from redepth.exports.viewer import page_of
from redepth.exports.viewer.facts import title_of
from redepth.ground_truth import GroundTruth
from redepth.metrics import Evaluation, clip_warnings
from redepth.metrics.diagnostics import Signature, diagnose
from redepth.metrics.metric_fit import MetricFit
from redepth.ops import color, geometry
from redepth.ops.camera import Camera
from redepth.optim.outcome import Outcome
from redepth.runtime.allocator import paged_array

if TYPE_CHECKING:
    import trimesh
    from matplotlib.figure import Figure
    from PIL import Image

Array = NDArray[np.float32]

KEPT_PIXELS = 25_000_000
"""Maps of a larger photo are made anew each time that they are needed, one at a time, 0.1 GB or more each."""

_SOURCES = {"depth": "refined_depth"}
_GUIDED = ("initial", "refined", "initial_depth", "depth")
"""The maps that follow the photo's edges under ``output.upsample: guided``: both sides of a comparison do."""


def holes_at(holes: Tensor | None, height: int, width: int) -> NDArray[np.bool_] | None:
    """Return where half of a pixel or more is a hole, (height, width), from (1,1,h,w); None: no hole."""
    if holes is None:
        return None
    share = geometry.resize(holes.float(), height, width, antialias=True)
    return (share >= 0.5)[0, 0].numpy()


@dataclass(frozen=True)
class Refinement:
    """A refined photo. Arrays are float32 at the photo's size.

    `predicts` and `invariance` say what ``initial``, ``refined`` and ``uncertainty`` hold. They are resized
    as in the paper's code (bilinear, corners aligned), those of a panorama across its edge. ``depth`` is
    relative depth, larger is farther. Where the depth model's map had a hole (`unknown`), all are NaN.

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
        identity: hashes of the files that it was made from, and versions of what computed it.
        holes: (1,1,h,w) bool, where the given map had none; any size.
        metric_fit: of the refined output to known points.
        camera_origin: where the camera is from, such as ``--fov``, ``exif``, ``depth model``, ``preset``.
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
    identity: Mapping[str, Any] = field(default_factory=dict)
    holes: Tensor | None = None
    metric_fit: MetricFit | None = None
    camera_origin: str = "preset"

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
        return self._at_photo_size("initial")

    @cached_property
    def refined(self) -> Array:
        """The refined output, (H, W): the mean of the members' raw outputs, or `optim.blend` of it."""
        return self._at_photo_size("refined")

    @cached_property
    def uncertainty(self) -> Array:
        """Standard deviation over the members, (H, W)."""
        return self._at_photo_size("uncertainty")

    @cached_property
    def depth(self) -> Array:
        """The ensemble's relative depth, (H, W), larger is farther."""
        return self._at_photo_size("depth")

    @cached_property
    def initial_depth(self) -> Array:
        """The relative depth before refinement, (H, W), larger is farther."""
        return self._at_photo_size("initial_depth")

    @property
    def camera(self) -> Camera:
        """The camera of the photo."""
        return self.outcome.camera

    @property
    def depth_m(self) -> Array | None:
        """Depth in metres, (H, W), NaN where it is unknown; None if no metres are known.

        They are known from a metric depth model, or from known points (`metric_fit`).
        """
        return self.metres_of("refined")

    def metres_of(self, name: Literal["initial", "refined"]) -> Array | None:
        """Return the depth in metres of one of the two maps, as `depth_m` is of the refined one."""
        if self.metric_fit is not None:
            return self.metric_fit.depth(self.map_of(name), self.predicts)
        if self.invariance != "metric":
            return None
        raw = self.map_of(name)
        return raw if self.predicts == "depth" else inverted(raw)

    @cached_property
    def unknown(self) -> NDArray[np.bool_] | None:
        """Where nothing is known because the depth model's map had a hole, (H, W); None: nowhere."""
        return self.unknown_at(*self.photo.shape[:2])

    @property
    def albedo(self) -> Array | None:
        """What was re-lit in place of the photo, (h, w, 3) sRGB at network size; None: the photo was."""
        if self.outcome.albedo is None:
            return None
        # Without a floor: black stays black.
        return color.linear_to_srgb(self.outcome.albedo, 0.0)[0].permute(1, 2, 0).numpy()

    @cached_property
    def normals_before(self) -> Array:
        """Unit normals of the initial surface at network size, (h, w, 3), x right, y up, z to the viewer.

        NaN in holes.
        """
        return self._normals(self.outcome.initial, self.outcome.initial_depth)

    @cached_property
    def normals_after(self) -> Array:
        """Unit normals of the refined surface at network size, (h, w, 3)."""
        return self._normals(self.outcome.refined, self.outcome.refined_depth)

    @property
    def turn(self) -> float:
        """Mean angle between the normals before and after, in degrees."""
        cosine = (self.normals_before * self.normals_after).sum(axis=-1)
        return float(np.degrees(np.nanmean(np.arccos(np.clip(cosine, -1, 1)))))

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """``initial`` and ``refined`` under the ground truth's protocol; empty without ground truth."""
        truth, outcome = self.ground_truth, self.outcome
        if truth is None:
            return {}
        if not truth.at_photo_size:
            return {
                name: truth.measure_output(raw[0, 0], self.predicts, self.invariance, self.unknown)
                for name, raw in (("initial", outcome.initial), ("refined", outcome.refined))
            }
        return {
            name: truth.measure(self.map_of(name), self.predicts, self.unknown)
            for name in ("initial", "refined")
        }

    @cached_property
    def diagnostics(self) -> dict[str, Signature]:
        """The failure signatures of this refinement by name (`redepth.metrics.diagnostics`)."""
        outcome, settings = self.outcome, self.preset.diagnostics
        return diagnose(
            torch.from_numpy(self.photo).permute(2, 0, 1)[None],
            outcome.initial,
            outcome.members,
            refined=outcome.refined,
            predicts=self.predicts,
            sky=outcome.sky,
            thresholds=settings.thresholds.model_dump(),
            calibrated_for=settings.calibrated_for if self._has_its_length else "",
        )

    @property
    def _has_its_length(self) -> bool:
        """Whether all members took the preset's steps: no limit and no interruption made the run shorter."""
        optim = self.preset.optim
        done = self.outcome.steps_done
        return len(done) == optim.members and (optim.early_stop.enabled or set(done) == {optim.steps})

    @property
    def warnings(self) -> list[str]:
        """A line for each flagged failure signature, for uncertain metres, and for truth left out."""
        lines = [signature.warning for signature in self.flagged]
        if self.metric_fit is not None:
            lines += self.metric_fit.warnings
        if self.ground_truth is not None:
            lines += self.ground_truth.left_out.warnings()
            evaluations = self.evaluations.values()
            lines += clip_warnings(max(evaluation.clipped for evaluation in evaluations))
            lines += dict.fromkeys(line for evaluation in evaluations for line in evaluation.cautions)
        return lines

    @property
    def flagged(self) -> list[Signature]:
        """The failure signatures above their thresholds."""
        return [signature for signature in self.diagnostics.values() if signature.flagged]

    def comparison(self) -> Image.Image:
        """Draw photo, initial, refined, difference and the normals before and after.

        Of a photo longer than `viz.SHEET_SIDE` it draws every k-th pixel of the maps.
        """
        return exports.comparison_of(self)

    def show(self) -> None:
        """Show the comparison: in a notebook below the cell, elsewhere in the system's picture viewer."""
        viz.show_picture(self.comparison())

    def view(self, path: str | Path | None = None) -> None:
        """Show the page with a light to drag, the maps and the surface in three dimensions.

        It appears below the cell of a notebook, and elsewhere in the browser. With a path it is written there
        instead, as one file that needs no other.
        """
        page = page_of(self)
        if path is None:
            viz.show_page(page)
        else:
            io.save_text(path, page)

    @property
    def losses(self) -> dict[str, NDArray[np.float64]]:
        """The losses: name -> (members, steps), NaN after the last step of a member that stopped early.

        The names are ``prior`` unless its weight is 0, each objective (both unweighted) and ``total``.
        """
        return self.outcome.losses

    def plot_losses(self) -> Figure:
        """Draw a panel for each of `losses`: the mean over the members, and each member as a thin line.

        It is a figure of matplotlib that a notebook shows and ``savefig`` writes; pyplot does not hold it.
        """
        return viz.loss_figure(self.losses)

    def points(self, *, max_points: int = 500_000) -> trimesh.PointCloud:
        """Return the refined surface as points with the photo's colours, cut at depth edges.

        The frame is x right, y up, and a camera at the origin that looks along -z; in metres where depth has
        them and the camera is not orthographic, else relative.

        Raises:
            InputError: no pixel is left.
        """
        return exports.points_of(Surface.of(self), self.photo, max_points=max_points)

    def mesh(self, *, faces: int = 200_000, texture_side: int = 2048) -> trimesh.Trimesh:
        """Return the refined surface as a mesh of at most that many triangles, with the photo as its texture.

        It is in the frame and the unit of `points`, which are glTF's.

        Raises:
            InputError: no triangle is left.
        """
        return exports.mesh_of(Surface.of(self), self.photo, faces=faces, texture_side=texture_side)

    def save(self, folder: str | Path) -> Path:
        """Write the chosen files (``preset.output.write``) and ``run.json`` to a folder, and return it.

        `docs/results_folder.md` lists them. One that needs what is not known, such as ``depth`` without
        metres, is left out: ``run.json`` holds why under ``not_written``, and what each file holds and its
        unit under ``contents``.

        After an error or a kill at any moment the folder holds the old result or the new one, whole
        (`redepth.io.replaced_folder`). Files of an earlier result go; other files in the folder stay. A file
        besides the map that cannot be written does not keep the others from being written.

        Raises:
            PartlyWrittenError: such a file failed; the folder holds the new result without it.
            OutputError: the map or the record cannot be written; the folder holds the old result.
        """
        with io.replaced_folder(folder, exports.earlier_files(Path(folder)), exports.RECORD) as new:
            entries = exports.write_files(self, new)
            # Last, because it names the other files with their hashes.
            record = self.record() | entries | {"files": io.manifest(new.iterdir())}
            io.save_json(new / exports.RECORD, record)
        if entries["write_errors"]:
            failures = {name: entries["not_written"][name] for name in entries["write_errors"]}
            raise PartlyWrittenError(str(folder), failures)
        return Path(folder)

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
                "blend": outcome.blend_record(),
            },
            "camera": camera_record(self.camera, self.camera_origin, height, width),
            "metres": None if self.metric_fit is None else self.metric_fit.record(),
            "seed": self.seed,
            "prompt": self.prompt,
            "prompt_origin": dict(self.prompt_origin),
            "device": self.device,
            **outcome.record(),
            "change": self.change,
            "turn_degrees": self.turn,
            "timings": {**self.timings, "optimise_seconds": outcome.seconds},
            "unknown": self._unknown_record(),
            "diagnostics": {name: signature.record() for name, signature in self.diagnostics.items()},
            **self.components,
            "identity": dict(self.identity),
            "preset": self.preset.model_dump(),
            "losses": outcome.history,
        }
        if self.ground_truth is not None:
            truth = self.ground_truth
            record["ground_truth"] = {"every": truth.every, **truth.left_out.record()}
            record["metrics"] = {"protocol": truth.protocol.summary()}
        for name, evaluation in self.evaluations.items():
            record["metrics"][name] = {
                **evaluation.metrics,
                "clipped_share": evaluation.clipped,
            }
        return record

    def __repr__(self) -> str:
        """Return one line without the arrays."""
        outcome, name = self.outcome, title_of(self) if self.source else None
        size = f"{self.photo.shape[:2]}, preset={self.preset.name!r}, members={len(outcome.members)}"
        steps = f"{max(outcome.steps_done)}{', partial=True' if self.partial else ''}"
        flagged = [signature.title for signature in self.flagged]
        end = f"steps={steps}, change={self.change:.3f}, flagged={flagged}"
        return f"Refinement(photo={name!r}, size={size}, {end})"

    def _repr_html_(self) -> str:
        """Return a card for a notebook; `show` has the whole comparison."""
        return exports.card_of(self)

    @property
    def large(self) -> bool:
        """Whether its maps at the photo's size are not kept."""
        return self.photo.shape[0] * self.photo.shape[1] > KEPT_PIXELS

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of the maps in `outcome`."""
        height, width = self.outcome.initial.shape[-2:]
        return height, width

    def map_of(self, name: MapName) -> Array:
        """Return a map at the photo's size; of a large photo it is not kept, unless it is kept already."""
        if name in self.__dict__ or not self.large:
            values: Array = getattr(self, name)
            return values
        return self._at_photo_size(name)

    @property
    def change(self) -> float:
        """Mean absolute change of the raw output, over the range of the initial one; 0 if that is 0.

        It is that of the output at network size where the photo has more than `KEPT_PIXELS` pixels.
        """
        if self.large:
            initial, refined = self.outcome.initial.numpy(), self.outcome.refined.numpy()
        else:
            initial, refined = self.initial, self.refined
        span = float(np.nanmax(initial) - np.nanmin(initial))
        return float(np.nanmean(abs(refined - initial))) / span if span else 0.0

    def _at_photo_size(self, name: MapName) -> Array:
        source: Tensor = getattr(self.outcome, _SOURCES.get(name, name))
        size = self.photo.shape[:2]
        values = paged_array(size) if self.large else np.empty(size, np.float32)
        closed = self.camera.closed
        output = self.preset.output
        if output.upsample == "guided" and name in _GUIDED:
            radius, eps = output.guided_radius, output.guided_eps
            exports.enlarge_guided(values, source, self.photo, radius=radius, eps=eps, closed=closed)
        else:
            exports.enlarge(values, source, closed=closed)
        if self.unknown is not None:
            values[self.unknown] = np.nan
        return values

    def unknown_at(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Return `unknown` at another size: where half of a pixel or more is a hole."""
        return holes_at(self.holes, height, width)

    def _unknown_record(self) -> dict[str, Any] | None:
        if self.unknown is None:
            return None
        return {
            "pixels": int(self.unknown.sum()),
            "share": float(self.unknown.mean()),
            "why": "the given map is not finite there; it was filled for the optimisation",
        }

    def _normals(self, raw: Tensor, depth: Tensor) -> Array:
        if self.predicts == "disparity" and self.invariance == "metric":
            # The relative depth of disparity has a margin, which bends surfaces; this depth is known without.
            depth = torch.where(raw > 0, 1 / raw, torch.nan)
        return viz.normals_of(depth, self.camera, self.unknown_at(*depth.shape[-2:]))
