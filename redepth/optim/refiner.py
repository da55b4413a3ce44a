"""The refiner: a depth model, a renderer and a prior of any kind, and the functions of one step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from redepth.config import Optim
from redepth.contracts import (
    Condition,
    DepthModel,
    Features,
    GoesAround,
    HoldsMemory,
    LightsAlbedo,
    Objective,
    PredictsCamera,
    Prior,
    Renderer,
    StepDraws,
    Surface,
    UsesCamera,
)
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.guidance import NOTHING, UNGUIDED, Frame, Given, Guidance, PhotoData, Previous, SkyMask
from redepth.ops import color, geometry, panorama
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.ops.sky import sky_mask
from redepth.optim import component_checks as checks
from redepth.optim import execution
from redepth.optim.group import FUSED_DEVICES
from redepth.optim.loop import Loop, Watch
from redepth.optim.outcome import OnStep, Outcome, closed
from redepth.optim.parameterizations import Parameterization, check_supported
from redepth.optim.plan import Plan
from redepth.optim.prediction import predict, tell_camera
from redepth.optim.problem import Problem, State
from redepth.optim.step_graph import Advance, Eager, StepGraph
from redepth.optim.warm import WarmStart
from redepth.runtime.device import free_cached, indexed, numerics

log = logging.getLogger(__name__)


class Refiner:
    """Refines the depth of one photo by optimising what a parameterization makes learnable.

    Each step, for member i and light j: ``total_i = prior_weight * mean_j prior_ij + sum_k w_k
    objective_ik``. The sum over members is differentiated, so members never influence each other.

    The constructor tunes the components for this refiner; another refiner on the same components tunes them
    again.

    Limits of time and memory (``optim.budget``, ``optim.vram``) are kept by `planning.run_within_limits`,
    which measures a few steps, chooses a `Plan` and passes it to `run`.

    Args:
        depth_model: loaded.
        renderer: any `Renderer`.
        prior: loaded.
        optim: settings of the optimisation.
        objectives: name -> (weight, objective).
        device: where tensors live.
    """

    def __init__(
        self,
        depth_model: DepthModel,
        renderer: Renderer,
        prior: Prior,
        optim: Optim,
        objectives: dict[str, tuple[float, Objective]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_supported(optim.parameterization, depth_model)
        self.depth_model = depth_model
        self.renderer = renderer
        self.prior = prior
        self.optim = optim
        self.objectives = objectives or {}
        self.device = indexed(device)
        automatic = optim.members_per_batch == "auto"
        self.members_per_batch = optim.members if automatic else int(optim.members_per_batch)
        """Members that advance together. A run that halves it lowers it for all later photos."""
        self.execution = execution.tune(optim, self.device, depth_model, prior, renderer)
        """The decisions about `optim.performance`, as plain data."""

    def predict(self, photo: Tensor) -> tuple[Tensor, Features, Tensor]:
        """Return `prediction.predict` of this refiner's depth model, on its device."""
        return predict(self.depth_model, photo, self.device)

    def make_problem(self, photo: Tensor, prompt: str = "", given: Given = NOTHING, seed: int = 0) -> Problem:
        """Prepare one photo: predict its depth, find its albedo, condition the prior, choose camera and sky.

        Args:
            photo: (1,3,H,W) sRGB in [0, 1], any size.
            prompt: text that the prior is conditioned on.
            given: its camera and data; without a `SkyMask`, `ops.sky.sky_mask` detects the sky. Under a
                spherical camera the problem is that of the photo extended by `ops.panorama.extend`.
            seed: of an estimated albedo.

        Raises:
            RedepthError: if the prediction is not finite or has no scale.
            InputError: if what is given does not fit the photo.
        """
        photo, given = self._around(photo, given)
        known = given.camera if isinstance(given.camera, Camera) else None
        tell_camera(self.depth_model, known, *photo.shape[-2:])
        image, features, prediction = self.predict(photo)
        camera = self._camera(given.camera, *photo.shape[-2:])
        albedo = self._albedo(photo, image, camera, seed)
        condition = self.prior.condition(image, prompt)
        checks.check_condition(checks.title("prior", self.prior), condition)
        if self.optim.parameterization != "full":
            self.depth_model.release_encoder()
        unit = self._unit_of(prediction, given)
        initial = prediction / unit
        model = self.depth_model
        metric = model.invariance == "metric"
        frame = Frame(image, initial, unit, model.predicts, metric, camera)
        guidance = Guidance.prepare(self._with_sky(given.data, frame), frame)
        previous = guidance.get(Previous)
        if previous is not None and previous.adjustment is not None:
            initial = previous.adjustment(initial)
            prediction = initial * unit
        return Problem(
            image=image,
            linear=color.srgb_to_linear(image),
            features=features,
            prediction=prediction,
            initial=initial,
            unit=unit,
            condition=condition,
            camera=camera,
            guidance=guidance,
            albedo=albedo,
        )

    @torch.no_grad()
    def find_albedo(self, photo: Tensor, given: Given = NOTHING, seed: int = 0) -> None:
        """Find a photo's albedo before its run: the renderer keeps an estimate, and the run finds it again.

        Args:
            photo: as for `make_problem`, like ``given`` and ``seed``.
            given: its camera and data.
            seed: of an estimate.

        Raises:
            InputError: the albedo cannot be read or does not fit.
        """
        if isinstance(self.renderer, LightsAlbedo):
            photo, given = self._around(photo, given)
            camera = given.camera if isinstance(given.camera, Camera) else ORTHOGRAPHIC
            self._albedo(photo, self.depth_model.prepare(photo.to(self.device, torch.float32)), camera, seed)

    @torch.no_grad()
    def _albedo(self, photo: Tensor, image: Tensor, camera: Camera, seed: int) -> Tensor | None:
        """Return the albedo that the renderer lights; None if that is the photo."""
        if not isinstance(self.renderer, LightsAlbedo):
            return None
        return self.renderer.find_albedo(photo, image, camera.margin, seed)

    def _unit_of(self, prediction: Tensor, given: Given) -> float:
        """Return the unit of a photo; the frames of a clip share that of the first one."""
        previous = next((record for record in given.data if isinstance(record, Previous)), None)
        return self.unit(prediction) if previous is None else previous.unit

    def _around(self, photo: Tensor, given: Given) -> tuple[Tensor, Given]:
        """Extend a panorama beyond one turn, so that the answers at its edges can be fitted together."""
        camera, model = given.camera, self.depth_model
        height, width = photo.shape[-2:]
        columns = 0
        if isinstance(camera, Camera) and camera.closed:
            try:
                panorama.check_shape(height, width)
            except ValueError as error:
                raise InputError(str(error)) from None
            columns = panorama.margin_columns(width)
        margin = columns / width
        if isinstance(model, GoesAround):
            model.go_around(margin)
        if not columns:
            return photo, given
        return panorama.extend(photo, columns), replace(given, camera=Camera(spherical=True, margin=margin))

    def _camera(self, given: Camera | Literal["model"] | None, height: int, width: int) -> Camera:
        """Return the camera of a photo of this size, and make the renderer look through it."""
        renderer, model = self.renderer, self.depth_model
        camera = given
        if camera == "model":
            camera, problem = None, "estimates no camera"
            if isinstance(model, PredictsCamera):
                camera, problem = model.predicted_camera, "found no camera for this photo"
            if camera is None:
                raise InputError(
                    f"the depth model {type(model).__name__} {problem}: give a field of view or intrinsics"
                )
        own = renderer.own_camera if isinstance(renderer, UsesCamera) else ORTHOGRAPHIC
        # The photo's pixels are square; the network's are not, because its sides are rounded.
        chosen = (camera or own).of_picture(height, width)
        if isinstance(renderer, UsesCamera):
            renderer.look_through(chosen)
        elif camera is not None:
            log.warning(
                "the renderer %s has no camera: only normals and exports use it", type(renderer).__name__
            )
        return chosen

    def _with_sky(self, data: Sequence[PhotoData], frame: Frame) -> Sequence[PhotoData]:
        if any(isinstance(record, SkyMask) for record in data):
            return data
        return [*data, SkyMask(sky_mask(frame.image, frame.initial, frame.predicts), given=False)]

    @property
    def preset_plan(self) -> Plan:
        """All members and steps of the settings, as many members together as fitted so far."""
        return Plan(self.optim.members, self.optim.steps, self.members_per_batch)

    def run(
        self,
        photo: Tensor,
        *,
        prompt: str = "",
        seed: int = 0,
        on_step: OnStep | None = None,
        draws: Sequence[StepDraws] | None = None,
        given: Given = NOTHING,
        plan: Plan | None = None,
        watch: Watch | None = None,
        start: WarmStart | None = None,
    ) -> Outcome:
        """Refine one photo.

        Ctrl-C (KeyboardInterrupt) ends the run. Once at least one step is taken, the run then returns its
        finished steps, marked partial.

        Args:
            photo: (1,3,H,W) sRGB in [0, 1], any size.
            prompt: text that the prior is conditioned on.
            seed: of all members' random streams, and of an estimated albedo.
            on_step: called after each step of each group of members.
            draws: recorded draws to replay, a record per step with a row per member.
            given: the camera and the data of the photo; without a `SkyMask` the sky is detected in the photo
                and the initial output (`ops.sky.sky_mask`). A panorama (`ops.camera.SPHERICAL`) is extended
                for the run, also in the reports of its steps; the outcome is one turn without a seam.
            plan: members, steps and members together; without it `preset_plan`.
            watch: called after each step; ends the run where it returns a reason. The outcome then has the
                finished steps and is not partial; its plan says under ``cut`` whether steps are missing.
            start: the warm start of a frame of a clip; its own ``plan`` is not read here.

        Raises:
            ConfigError: if the settings limit time or memory, and no plan is given.
            RedepthError: if a replay does not fit, the first step already gives no finite loss or
                gradient, or one member alone does not fit into memory.
        """
        if plan is None:
            self._check_unlimited()
        fast = self.optim.performance
        with numerics(self.device, tf32=fast.tf32, cudnn_benchmark=fast.cudnn_benchmark):
            began = time.perf_counter()
            problem = self.make_problem(photo, prompt, given, seed)
            size = plan or self.preset_plan
            loop = Loop(
                self, problem, size, seed=seed, on_step=on_step, replay=draws, watch=watch, start=start
            )
            try:
                loop.run()
            finally:
                if loop.members_per_batch < size.members_per_batch:
                    self.members_per_batch = min(self.members_per_batch, loop.members_per_batch)
            outcome = closed(loop.outcome(time.perf_counter() - began))
        return outcome if plan is not None else replace(outcome, fit=None)

    def _check_unlimited(self) -> None:
        for name, limit in (("budget", self.optim.budget), ("vram", self.optim.vram)):
            if limit is not None:
                raise ConfigError(
                    f"optim.{name}={limit} needs a plan: refine through redepth.Pipeline or "
                    f"redepth.optim.planning.run_within_limits, pass plan=, or set optim.{name}=null"
                )

    def step(
        self,
        state: State,
        image: Tensor,
        linear: Tensor,
        condition: Condition,
        draws: StepDraws,
        guidance: Guidance = UNGUIDED,
    ) -> tuple[dict[str, Tensor], Surface, Tensor]:
        """One deterministic forward pass: losses per member, the surface and the re-lit pictures.

        Args:
            state: the members' learnable state.
            image: (1,3,H,W) the photo at network size, sRGB.
            linear: (1,3,H,W) the same in linear colours.
            condition: of the prior.
            draws: the random numbers of the step, on the device.
            guidance: what is known of the photo besides its pixels.

        Raises:
            RedepthError: a component returns another layout than its contract says, or no gradient.
        """
        raw = state.raw()
        members = state.members
        checks.check_raw(checks.title("depth model", self.depth_model), raw, members, image)
        depth = self.relative_depth(raw, state.offset)
        relit = self.renderer(depth, linear, draws.illumination)
        checks.check_relit(checks.title("renderer", self.renderer), relit, self.renderer.lights, depth)
        surface = Surface(raw, depth, image, self.depth_model.predicts, guidance)
        losses: dict[str, Tensor] = {}
        total = raw.new_zeros(len(raw))
        # The prior takes nearly all of a step's time: without weight it is not evaluated.
        if self.optim.prior_weight:
            scored = self.prior(
                relit.flatten(0, 1), condition, draws.illumination.flatten(), draws.noise.flatten()
            )
            pictures = relit.shape[0] * relit.shape[1]
            who = checks.title("prior", self.prior)
            checks.check_loss(who, scored, pictures, "picture", relit, gradient=True)
            losses["prior"] = scored.view(relit.shape[:2]).mean(dim=1)
            total = total + self.optim.prior_weight * losses["prior"]
        for name, (weight, objective) in self.objectives.items():
            losses[name] = objective(surface)
            who = checks.objective_title(name, objective)
            checks.check_loss(who, losses[name], members, "member", raw, gradient=False)
            total = total + weight * losses[name]
        losses["total"] = total
        return losses, surface, relit

    def unit(self, initial: Tensor) -> float:
        """Return `unit_of` the photo's raw outputs."""
        return unit_of(self.depth_model, initial)

    def relative_depth(self, raw: Tensor, offset: Tensor | float) -> Tensor:
        """Return `relative_depth_of` a raw output in its unit."""
        return relative_depth_of(self.depth_model, raw, offset)

    def make_optimizer(self, state: Parameterization) -> torch.optim.Optimizer:
        """Return AdamW (torch's defaults) with one learning rate per group of parameters.

        It is fused where possible: one kernel for all parameters of a group. Where steps become CUDA graphs,
        the rates are tensors, because a graph reads these again at each replay.
        """
        rates = self.optim.learning_rates.model_dump()
        graphs = self.execution["cuda_graphs"] == "step"
        groups = [
            {"params": params, "lr": self._rate(rates[name], graphs), "base": rates[name]}
            for name, params in state.groups().items()
        ]
        fused = self.device.type in FUSED_DEVICES
        decay = self.optim.weight_decay
        return torch.optim.AdamW(groups, weight_decay=decay, fused=fused, capturable=graphs)

    def _rate(self, rate: float, as_tensor: bool) -> float | Tensor:
        return torch.full((), rate, device=self.device) if as_tensor else rate

    def stepper(self, advance: Advance) -> StepGraph | Eager:
        """Return a callable that takes the steps of a group: as CUDA graphs, or eagerly."""
        if execution.captures_steps(self.execution, self.device):
            return StepGraph(advance, self.device)
        return Eager(advance)

    def release_memory(self) -> None:
        """Free the device memory that is kept for batches of another size."""
        if isinstance(self.prior, HoldsMemory):
            self.prior.release_memory()
        free_cached(self.device)

    def rate_factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rates at a 0-based step of a run of so many steps."""
        if self.optim.schedule == "constant":
            return 1.0
        progress = step / max(steps - 1, 1)
        low = self.optim.final_rate
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def unit_of(model: DepthModel, initial: Tensor) -> float:
    """Return the unit of a photo's raw outputs: 1 unless the depth model's scale is ``auto``.

    Args:
        model: loaded.
        initial: (1,1,H,W) its first prediction of the photo.

    Raises:
        RedepthError: if the first prediction has no scale.
    """
    if model.scale != "auto":
        return 1.0
    try:
        return geometry.auto_unit(initial, predicts=model.predicts, margin=model.margin)
    except ValueError as error:
        raise RedepthError(f"scale=auto finds no scale in the depth model's prediction: {error}") from None


def relative_depth_of(model: DepthModel, raw: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Return the relative depth of a raw output that is divided by its unit, with the model's constants."""
    scale = geometry.AUTO_SCALE if model.scale == "auto" else model.scale
    return geometry.relative_depth(
        raw, predicts=model.predicts, scale=scale, margin=model.margin, offset=offset
    )
