"""What a run reports after each step, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth.config import Blend
from redepth.contracts import Invariance, Predicts, StepDraws
from redepth.errors import RedepthError
from redepth.ops import panorama
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from redepth.ops.filters import detail
from redepth.ops.statistics import agreement_weight
from redepth.optim.loss_log import Losses
from redepth.optim.plan import Plan
from redepth.optim.warm import Learned


@dataclass(frozen=True)
class StepReport:
    """The argument of `on_step`, made after each step of a group of members.

    Reading ``losses`` waits for the device; see `optim.performance.read_losses_every`. A step whose losses
    were not read may turn out not to be finite. Where the run continues in another precision, such a step is
    taken again and reported again.

    Attributes:
        step: 1-based index of the finished step.
        steps: number of steps of the run.
        members: indices of the members that advanced.
        of_members: number of members of the ensemble.
        losses: name -> (members,), on the CPU: ``prior`` unless its weight is 0, each objective (both
            unweighted) and ``total``.
        raw: (members,1,H,W) raw output at the start of the step, detached.
        depth: its relative depth, likewise.
        relit: (members,L,3,H,W) the re-lit pictures, likewise.
        draws: the random numbers of the step.
    """

    step: int
    steps: int
    members: range
    of_members: int
    losses: Losses
    raw: Tensor
    depth: Tensor
    relit: Tensor
    draws: StepDraws


OnStep = Callable[[StepReport], None]


class LossesOnDemand(Mapping[str, Tensor]):
    """The losses of one step, read from the device at the first access.

    Args:
        read: returns name -> (members,), on the CPU.
    """

    def __init__(self, read: Callable[[], Losses]) -> None:
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


@dataclass(frozen=True)
class Tie:
    """How the answer of a frame joins that of the last frame: ``share * own + (1 - share) * last``.

    Attributes:
        answer: (1,1,H,W) the last frame's answer, carried to this frame, in the unit of `Outcome.refined`.
        depth: (1,1,H,W) its relative depth.
        share: (1,1,H,W) in (0, 1], of the frame's own answer; 1 where the last frame does not show the same.
        prediction: (1,1,H,W) D, the frozen model's raw output as it is, before ``scale`` and ``shift``.
        scale: a of ``a D + b``, which brought the frame's raw outputs to the scale of the clip.
        shift: b of it.
    """

    answer: Tensor
    depth: Tensor
    share: Tensor
    prediction: Tensor
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of `Refiner.run`, at network size, on the CPU.

    Attributes:
        predicts: what the raw outputs are.
        invariance: whether they are known up to scale and shift, or metric.
        initial: (1,1,H,W) the frozen model's raw output; of a tied frame in the scale of the clip.
        members: (M,1,H,W) refined raw outputs.
        initial_depth: (1,1,H,W) relative depth of ``initial``.
        member_depths: (M,1,H,W) relative depth of each member, with its learned scale offset.
        offsets: (M,) learned scale offsets o.
        members_per_batch: how many members advanced together.
        history: name -> one list per member with a loss per step taken: ``prior`` unless its weight is 0,
            each objective (both unweighted) and ``total``. Members that stopped early have shorter lists.
        steps_done: steps taken by each member.
        partial: whether the run ended before all members had taken all steps. An early stop and the end of
            a time limit do not make it partial.
        reason: why it is partial, or that the time limit ended it; else empty.
        seconds: wall time of the optimisation.
        unit: what raw outputs were divided by inside the optimisation; 1 unless the scale is ``auto``.
        blend: how the members' mean and the initial output are combined, as in `Optim.blend`.
        blend_tolerance: of ``agreement``.
        blend_scale: of ``detail``, a share of the shorter side; `Optim.detail_scale` of the run's size.
        sky: (1,1,H,W) bool, where the photo shows sky; None if it was not detected.
        sky_given: whether the caller gave the sky mask.
        camera: of the photo.
        support: (1,1,H,W) in [0, 1), in how far known points fix the low frequencies that ``detail`` would
            take from the initial output (`guidance.AnchorTargets.support`); None without known points.
        fit: the plan that the run followed; None if it followed the preset.
        tie: to the last frame of a clip; None for a photo. All maps are then in the scale of the clip.
        learned: what the members learned, on the device; None for a run without a `WarmStart`.
        albedo: (1,3,H,W) linear, what was lit in place of the photo's colours; None: these were.
    """

    predicts: Predicts
    initial: Tensor
    members: Tensor
    initial_depth: Tensor
    member_depths: Tensor
    offsets: Tensor
    history: dict[str, list[list[float]]]
    steps_done: list[int]
    members_per_batch: int
    invariance: Invariance = "affine"
    partial: bool = False
    reason: str = ""
    seconds: float = 0.0
    unit: float = 1.0
    blend: Blend = "none"
    blend_tolerance: float = 0.1
    blend_scale: float = 0.125
    sky: Tensor | None = None
    sky_given: bool = False
    camera: Camera = ORTHOGRAPHIC
    support: Tensor | None = None
    fit: Plan | None = None
    tie: Tie | None = None
    learned: Learned | None = None
    albedo: Tensor | None = None

    @property
    def refined(self) -> Tensor:
        """The ensemble's result, (1,1,H,W): the members' mean, or its blend with the initial output."""
        own = self._blended(self.initial, self.members.mean(dim=0, keepdim=True))
        return own if self.tie is None else _tied(own, self.tie.answer, self.tie)

    @property
    def refined_depth(self) -> Tensor:
        """The mean of the members' relative depths, (1,1,H,W), blended as `refined` is.

        Where the rays of the camera meet in a point the inverse depths are blended, in which planes are flat:
        the change of a far part would outweigh everything near. The result is not farther than both.
        """
        own = self._blended_depth(self.initial_depth, self.member_depths.mean(dim=0, keepdim=True))
        return own if self.tie is None else _tied(own, self.tie.depth, self.tie)

    @cached_property
    def blend_weight(self) -> Tensor:
        """The members' share w in ``refined = initial + w (mean - initial)``, (1,1,H,W) in [0, 1].

        `ops.statistics.agreement_weight` under ``blend: agreement``, 1 everywhere under any other.
        """
        if self.blend == "agreement":
            return agreement_weight(self.initial, self.members, self.blend_tolerance)
        return torch.ones_like(self.initial)

    @cached_property
    def losses(self) -> dict[str, NDArray[np.float64]]:
        """`history` as arrays: name -> (members, steps), NaN after the last step of a member."""
        steps = max(self.steps_done)
        return {
            name: np.array([[*row, *[np.nan] * (steps - len(row))] for row in rows])
            for name, rows in self.history.items()
        }

    def check_whole(self) -> None:
        """Check that the run did not end early, for callers that must not keep a partial result.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended it.
            RedepthError: if anything else ended it, with the reason.
        """
        if self.reason == "interrupted":
            raise KeyboardInterrupt
        if self.partial:
            raise RedepthError(self.reason)

    def record(self) -> dict[str, Any]:
        """Return how the run went, without its losses, as JSON-compatible data."""
        return {
            "partial": self.partial,
            "reason": self.reason,
            "members_done": len(self.members),
            "members_per_batch": self.members_per_batch,
            "steps_done": self.steps_done,
            "fit": None if self.fit is None else self.fit.record(),
            "scale_offsets": self.offsets.tolist(),
            "sky_mask": "given" if self.sky_given else "looked for",
        }

    def blend_record(self) -> dict[str, Any]:
        """Return how `refined` is computed, as JSON-compatible data."""
        if self.blend == "none":
            return {"rule": "none", "refined": "mean of the members"}
        if self.blend == "detail":
            return {
                "rule": "detail",
                "refined": "initial + c - G * c, c = mean of the members - initial, "
                "G a Gaussian of sigma = scale x shorter side",
                "scale": self.blend_scale,
            }
        return {
            "rule": self.blend,
            "refined": "initial + w (mean of the members - initial), w = 1 / (1 + (std / (t spread))^2)",
            "t": self.blend_tolerance,
            "mean_w": float(self.blend_weight.mean()),
        }

    def _blended(self, initial: Tensor, mean: Tensor) -> Tensor:
        if self.blend == "none":
            return mean
        change = mean - initial
        if self.blend == "detail":
            kept = detail(change, self.blend_scale, closed=self.camera.closed)
            if self.support is not None:
                kept = kept + self.support * (change - kept)
            return initial + kept
        return initial + self.blend_weight * change

    def _blended_depth(self, initial: Tensor, mean: Tensor) -> Tensor:
        if self.blend == "none" or self.camera.kind == "orthographic":
            return self._blended(initial, mean)
        farthest = torch.maximum(initial.amax(), mean.amax())
        return 1 / self._blended(1 / initial, 1 / mean).clamp(min=1 / farthest)

    @property
    def uncertainty(self) -> Tensor:
        """Standard deviation of the members' raw outputs, (1,1,H,W); 0 for a single member."""
        return self.members.std(dim=0, correction=0, keepdim=True)


def _tied(own: Tensor, last: Tensor, tie: Tie) -> Tensor:
    return last + tie.share * (own - last)


def _closed_tie(tie: Tie, margin: float) -> Tie:
    return replace(
        tie,
        answer=panorama.close(tie.answer, margin),
        depth=panorama.close(tie.depth, margin),
        share=panorama.close(tie.share, margin),
        prediction=panorama.close(tie.prediction, margin),
    )


def closed(outcome: Outcome) -> Outcome:
    """Return the outcome of the panorama whose extended picture was refined: one turn, without a seam.

    `ops.panorama.close` closes every map. An outcome whose camera sees no more than one turn is returned
    unchanged.
    """
    margin, sky, support = outcome.camera.margin, outcome.sky, outcome.support
    albedo = outcome.albedo
    if not margin:
        return outcome
    return replace(
        outcome,
        initial=panorama.close(outcome.initial, margin),
        members=panorama.close(outcome.members, margin),
        initial_depth=panorama.close(outcome.initial_depth, margin),
        member_depths=panorama.close(outcome.member_depths, margin),
        sky=None if sky is None else panorama.close(sky.float(), margin) >= 0.5,
        support=None if support is None else panorama.close(support, margin),
        tie=None if outcome.tie is None else _closed_tie(outcome.tie, margin),
        albedo=None if albedo is None else panorama.close(albedo, margin),
        camera=SPHERICAL,
    )
