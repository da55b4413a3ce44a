"""The pipeline of a preset: its components are built and loaded once, then it refines photo after photo."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth import components, io
from redepth.captions import write_captions
from redepth.components import Components
from redepth.config import DEFAULT_PRESET, Overrides, Preset, load_preset, merged_overrides
from redepth.contracts import DepthModel, FollowsPhoto, LeavesHoles, LightsAlbedo
from redepth.depth_models.marigold_normals import MARIGOLD, check_frame
from redepth.depth_models.precomputed import GIVEN_ARRAY
from redepth.errors import ConfigError, InputError, cut
from redepth.ground_truth import GroundTruth
from redepth.guidance import Anchors, Given, NormalMap, PhotoData, Planes
from redepth.literals import AlbedoName, CameraName, MapKind, NormalsFrame
from redepth.metrics.metric_fit import MetricFit, fit_metric
from redepth.ops.camera import SPHERICAL, Camera
from redepth.optim.objectives import GUIDE_WEIGHTS
from redepth.optim.outcome import OnStep, Outcome
from redepth.optim.planning import run_within_limits
from redepth.optim.prediction import tell_photo
from redepth.optim.progress import Progress, run_with_progress
from redepth.optim.refiner import Refiner
from redepth.optim.warm import WarmStart
from redepth.photo_inputs import (
    ChosenCamera,
    DecodedPhoto,
    anchor_data,
    choose_camera,
    decode,
    normal_data,
    plane_data,
    sky_data,
)
from redepth.priors.prompts import Prompt
from redepth.refinement import Refinement
from redepth.renderers.albedo import GIVEN_ARRAY as GIVEN_ALBEDO
from redepth.runtime.device import choose_device

log = logging.getLogger(__name__)


class Pipeline:
    """The components of a preset, loaded once.

    Args:
        preset: a name, a YAML file, a mapping or a `Preset`; or the `Components` already built of one.
        overrides: of the preset: ``key.path=value`` texts, or a mapping with dotted or nested keys.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: the preset or an override is wrong.
        WeightsError: weights are missing and unreachable, before anything is loaded.
    """

    def __init__(
        self,
        preset: str | Path | Mapping[str, Any] | Preset | Components = DEFAULT_PRESET,
        *,
        overrides: Overrides = (),
        device: str = "auto",
    ) -> None:
        started = time.perf_counter()
        self.device = choose_device(device)
        if isinstance(preset, Components):
            if overrides:
                raise ConfigError("overrides change a preset; these components are built already")
            built = preset
        else:
            built = components.build(preset_with(preset, overrides), self.device)
        loaded = built.load(self.device)
        self.preset = loaded.preset
        self._captioner = loaded.captioner
        self._normals = loaded.normals
        self.refiner = Refiner(
            loaded.depth_model,
            loaded.renderer,
            loaded.prior,
            self.preset.optim,
            loaded.objectives,
            self.device,
        )
        self._first_photo = ""
        self.components = self._describe()
        self.load_seconds = time.perf_counter() - started

    def __repr__(self) -> str:
        return f"Pipeline({self.preset!r}, device={str(self.device)!r})"

    def refine(
        self,
        photo: str | Path | ArrayLike | DecodedPhoto,
        *,
        prompt: str | Prompt | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        progress: Progress = False,
        ground_truth: GroundTruth | None = None,
        max_pixels: int = io.MAX_PIXELS,
        sky_mask: ArrayLike | None = None,
        camera: Camera | CameraName | ChosenCamera | None = None,
        panorama: bool = False,
        data: Sequence[PhotoData] = (),
        depth: ArrayLike | None = None,
        anchors: Anchors | str | Path | ArrayLike | None = None,
        normals: NormalMap | str | Path | ArrayLike | None = None,
        normals_frame: NormalsFrame = "redepth",
        planes: Planes | str | Path | ArrayLike | None = None,
        albedo: ArrayLike | None = None,
        start: WarmStart | None = None,
    ) -> Refinement:
        """Refine one photo; the arguments are those of the function `refine`.

        Without a prompt the preset's captioner writes one (`captions`). Each call loads the captioner anew:
        for several photos, write all captions first.

        ``depth`` is a map for a preset whose depth model takes one (``depth_model.name=precomputed``,
        ``depth_model.path=<array>``), and ``albedo`` the albedo for one with ``renderer.albedo=<array>``.
        Where ``renderer.albedo`` is one file, it belongs to the first photo, and another one is refused.
        ``start`` is the warm start of a frame of a clip (`redepth.clips`).

        Raises:
            InputError: if the photo or what is given with it cannot be read or used.
            ConfigError: for a map or an albedo that the preset's components do not take, or a missing one.
        """
        decoded = decode(photo, max_pixels)
        chosen = choose_camera(_with_panorama(camera, panorama), decoded)
        if sky_mask is not None:
            data = [*data, sky_data(sky_mask, decoded)]
        if anchors is not None:
            data = [*data, anchor_data(anchors, decoded, max_pixels)]
        if normals is not None:
            data = [*data, normal_data(normals, decoded, normals_frame, max_pixels)]
        if planes is not None:
            data = [*data, plane_data(planes, decoded, max_pixels)]
        if ground_truth is not None:
            ground_truth.check(*decoded.size)
        wanted = None if any(isinstance(record, NormalMap) for record in data) else self._normals
        if wanted is not None:
            wanted.check_camera(chosen.camera)
        model = self._model_of(decoded, depth)
        self._next_albedo(decoded, albedo)
        pixels = decoded.values
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if prompt is None:
            (prompt,) = write_captions(self._captioner, [decoded])
        elif isinstance(prompt, str):
            prompt = Prompt(prompt)
        if wanted is not None:
            data = [*data, wanted.estimate(_as_tensor(pixels), seed, self.device)]
        # Components may read files of the photo, such as its map.
        with io.pixel_limit(max_pixels):
            outcome = run_with_progress(
                lambda each_step: run_within_limits(
                    self.refiner,
                    _as_tensor(pixels),
                    prompt=prompt.text,
                    seed=seed,
                    on_step=each_step,
                    given=Given(chosen.camera, tuple(data)),
                    start=start,
                ),
                progress,
                optim=self.refiner.optim,
                name=_name(decoded),
                on_step=on_step,
            )
        holes = model.holes if isinstance(model, LeavesHoles) else None
        return Refinement(
            photo=pixels,
            outcome=outcome,
            preset=self.preset,
            seed=seed,
            prompt=prompt.text,
            prompt_origin=prompt.origin,
            device=str(self.device),
            source=None if decoded.source is None else io.as_text(decoded.source.resolve()),
            # Described anew: the prior's precision may have changed during the run.
            components={
                **self.components,
                "prior": self.refiner.prior.describe(),
                "normals": None if wanted is None else wanted.describe(),
                **self._renderer(),
            },
            timings={"began": began, "load_seconds": self.load_seconds},
            ground_truth=ground_truth,
            holes=holes,
            camera_origin=chosen.origin,
            metric_fit=_metric_fit(outcome, data),
        )

    def _model_of(self, photo: DecodedPhoto, depth: ArrayLike | None) -> DepthModel:
        """Return the depth model, after it was told which photo comes next, and its map."""
        model = self.refiner.depth_model
        tell_photo(model, photo.source, None if depth is None else np.asarray(depth))
        return model

    def _next_albedo(self, photo: DecodedPhoto, albedo: ArrayLike | None) -> None:
        """Tell the renderer which photo comes next, and its albedo."""
        renderer = self.refiner.renderer
        if isinstance(renderer, FollowsPhoto):
            renderer.next_photo(photo.source)
        if isinstance(renderer, LightsAlbedo):
            self._check_same_photo(renderer, photo)
            renderer.take_albedo(None if albedo is None else np.asarray(albedo))
        elif albedo is not None:
            raise ConfigError(f"the renderer {self.preset.renderer.name} takes no albedo: leave out albedo=")

    def _check_same_photo(self, renderer: LightsAlbedo, photo: DecodedPhoto) -> None:
        """Refuse a second photo where the albedo is one file, which belongs to the first one."""
        if renderer.albedo in (*get_args(AlbedoName), GIVEN_ALBEDO):
            return
        content = hashlib.sha256(f"{photo.size}".encode())
        content.update(np.ascontiguousarray(photo.values).data)
        self._first_photo = self._first_photo or content.hexdigest()
        if content.hexdigest() != self._first_photo:
            renderer.check_albedo(photo.source, *photo.size, photos=2)

    def _renderer(self) -> dict[str, Any]:
        """Return the run record's entry about the renderer: where its albedo is from."""
        renderer = self.refiner.renderer
        return {"renderer": renderer.describe()} if isinstance(renderer, LightsAlbedo) else {}

    def captions(
        self, photos: Sequence[str | Path | ArrayLike | DecodedPhoto], *, max_pixels: int = io.MAX_PIXELS
    ) -> list[Prompt]:
        """Return a caption of each photo by the preset's captioner; empty prompts where it has none.

        Raises:
            InputError: if a photo cannot be read or used.
            WeightsError: if the captioner's weights cannot be loaded.
        """
        return write_captions(self._captioner, photos, max_pixels)

    def _describe(self) -> dict[str, Any]:
        """Return the run record's entries about the components, the machine and the software."""
        cuda = self.device.type == "cuda"
        return {
            "depth_model": self.refiner.depth_model.describe(),
            "prior": self.refiner.prior.describe(),
            "execution": self.refiner.execution,
            "hardware": {
                "name": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
                "threads": torch.get_num_threads(),
            },
            "versions": components.versions() | components.component_versions(self.preset),
        }


def refine(
    photo: str | Path | ArrayLike,
    preset: str | Path | Mapping[str, Any] | Preset = DEFAULT_PRESET,
    *,
    prompt: str | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    device: str = "auto",
    on_step: OnStep | None = None,
    progress: Progress = False,
    ground_truth: GroundTruth | None = None,
    max_pixels: int = io.MAX_PIXELS,
    sky_mask: ArrayLike | None = None,
    camera: Camera | CameraName | None = None,
    panorama: bool = False,
    data: Sequence[PhotoData] = (),
    depth: ArrayLike | None = None,
    predicts: MapKind | None = None,
    anchors: Anchors | str | Path | ArrayLike | None = None,
    guide: bool = False,
    normals: NormalMap | str | Path | ArrayLike | None = None,
    normals_frame: NormalsFrame = "redepth",
    planes: Planes | str | Path | ArrayLike | None = None,
    albedo: str | Path | ArrayLike | None = None,
) -> Refinement:
    """Refine the depth of one photo; for several photos, make a `Pipeline` once.

    Args:
        photo: path, or array of sRGB in [0, 1] or uint8: (H, W, 3), grey (H, W), or with alpha (H, W, 4),
            which is composited over white, as for files.
        preset: name, YAML file, mapping or `Preset`.
        prompt: conditions a text-conditioned prior; without it the preset's captioner writes one.
        seed: the same seed gives the same result.
        overrides: of the preset: texts such as ``"optim.members=3"``, or a mapping with dotted or nested keys
            such as ``{"optim.members": 3, "prior": {"guidance_scale": 5}}``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        on_step: called after each step with a `StepReport`.
        progress: True shows a progress bar, in a terminal or a notebook; or a class like ``tqdm.tqdm``.
        ground_truth: to measure against.
        max_pixels: refuse photos, and maps that the depth model reads, with more pixels than this.
        sky_mask: (H, W), of the photo's size, above 0 where there is sky; without it the sky is detected.
        camera: the photo's; ``orthographic``, ``exif`` (35 mm equivalent in the photo's file) or ``model``
            (the depth model's estimate). Without it the camera of the preset's renderer.
        panorama: whether the photo shows all directions (equirectangular, 360 x 180 degrees, twice as wide
            as high). Depth is then the distance along the ray, and the left and right edge fit together.
        data: further data of the photo for objectives.
        depth: (h, w), a finished map to refine in place of a prediction, of the photo's aspect ratio.
        predicts: what ``depth`` is: ``disparity``, ``depth`` or ``metric-depth``.
        anchors: known points, which give metres: a file (`io.load_known_points`), a COLMAP folder, a sparse
            map (H, W) in metres, or rows of x, y, metres and, optionally, sigma.
        guide: whether they also pull on the surface, by the objective ``anchors``.
        normals: (H, W, 3) or a file (`io.load_normals`); or ``marigold``: a diffusion model estimates them.
            It adds the objective ``normals``.
        normals_frame: their frame: ``redepth``, ``opencv`` or ``opengl``.
        planes: (H, W) integers or a file (`io.load_labels`), 0 for no plane, every other value one plane;
            adds the objective ``planes``.
        albedo: what is re-lit in place of the photo: ``photo``, ``grey``, ``marigold-intrinsics``, a file, or
            an array (h, w, 3) of the photo's aspect ratio, linear floats or sRGB uint8; without it the
            preset's ``renderer.albedo``.

    Raises:
        RedepthError: ConfigError, InputError or WeightsError, each with what to do about it.
    """
    # A bad photo or mask is found before the weights are loaded, which takes seconds or minutes.
    decoded = decode(photo, max_pixels)
    chosen = choose_camera(_with_panorama(camera, panorama), decoded)
    if sky_mask is not None:
        sky_data(sky_mask, decoded)
    if (depth is None) != (predicts is None):
        raise ConfigError("depth and predicts (disparity, depth or metric-depth) go together")
    of_map = [] if predicts is None else map_overrides(GIVEN_ARRAY, predicts)
    of_prompt = [] if prompt is None else ["prompt.captioner=none"]
    if anchors is not None:
        anchors = anchor_data(anchors, decoded, max_pixels)
    estimated = isinstance(normals, str) and normals == MARIGOLD
    if estimated:
        check_frame(normals_frame)
        normals = None
    if normals is not None:
        normals = normal_data(normals, decoded, normals_frame, max_pixels)
    if planes is not None:
        planes = plane_data(planes, decoded, max_pixels)
    named = isinstance(albedo, str | Path)
    of_albedo = [] if albedo is None else albedo_overrides(str(albedo) if named else GIVEN_ALBEDO)
    resolved = components.resolve(preset_with(preset, of_map, overrides, of_prompt, of_albedo))
    components.check_camera(resolved, chosen.camera)
    with io.pixel_limit(max_pixels):
        components.check_albedo(resolved, decoded.source, *decoded.size)
    resolved = guided(
        resolved,
        anchors=anchors is not None,
        guide=guide,
        normals=normals is not None,
        planes=planes is not None,
        estimated_normals=estimated,
    )
    pipeline = Pipeline(resolved, device=device)
    return pipeline.refine(
        decoded,
        prompt=prompt,
        seed=seed,
        on_step=on_step,
        progress=progress,
        ground_truth=ground_truth,
        max_pixels=max_pixels,
        sky_mask=sky_mask,
        camera=chosen,
        data=data,
        depth=depth,
        anchors=anchors,
        normals=normals,
        planes=planes,
        albedo=None if albedo is None or named else np.asarray(albedo),
    )


def _with_panorama(
    camera: Camera | CameraName | ChosenCamera | None, panorama: bool
) -> Camera | CameraName | ChosenCamera | None:
    if panorama and camera is not None:
        raise ConfigError("panorama=True gives the camera: leave out camera=")
    return SPHERICAL if panorama else camera


def guided(
    preset: Preset,
    *,
    anchors: bool = False,
    guide: bool = False,
    normals: bool = False,
    planes: bool = False,
    temporal: bool = False,
    estimated_normals: bool = False,
) -> Preset:
    """Return a resolved preset with the objectives of what is given; it may set their weights itself.

    Args:
        preset: resolved.
        anchors: whether known points are given.
        guide: whether they pull on the surface.
        normals: whether normals are given.
        planes: whether planes are given.
        temporal: whether frames of a clip follow one another.
        estimated_normals: whether a diffusion model estimates the normals.

    Raises:
        ConfigError: points shall guide, and none are given.
    """
    if guide and not anchors:
        raise ConfigError("no known points to guide: add --anchors FILE (anchors= in Python)")
    oriented = normals or estimated_normals
    wanted = {"anchors": guide, "normals": oriented, "planes": planes, "temporal": temporal}
    added = [name for name, given in wanted.items() if given and name not in preset.optim.objectives]
    overrides = [f"optim.objectives.{name}.weight={GUIDE_WEIGHTS[name]:g}" for name in added]
    if estimated_normals:
        overrides.append(f"optim.objectives.normals.source={MARIGOLD}")
    return components.resolve(preset_with(preset, overrides)) if overrides else preset


def _metric_fit(outcome: Outcome, data: Sequence[PhotoData]) -> MetricFit | None:
    """Fit the answer to the known points, if there are some.

    Where it contradicts them, the fit is that of the initial output, which did not.
    """
    anchors = next((record for record in data if isinstance(record, Anchors)), None)
    if anchors is None:
        return None
    try:
        return fit_metric(outcome.refined[0, 0], anchors, outcome.predicts, outcome.invariance)
    except InputError as error:  # after minutes of work, which must not be lost
        log.warning("metres have the scale and shift of the initial depth: after refinement %s", error)
        return fit_metric(outcome.initial[0, 0], anchors, outcome.predicts, outcome.invariance)


def map_overrides(path: str, predicts: MapKind) -> list[str]:
    """Return the overrides that refine a finished map in place of a prediction.

    Args:
        path: the map's file, a folder with one per photo, or `GIVEN_ARRAY`.
        predicts: the kind of map.
    """
    return [
        "depth_model.name=precomputed",
        f"depth_model.path={json.dumps(path)}",
        f"depth_model.predicts={predicts}",
        "optim.parameterization=low-rank",
    ]


def albedo_overrides(source: str) -> list[str]:
    """Return the overrides that light another albedo: a name or path of ``renderer.albedo``."""
    return [f"renderer.albedo={json.dumps(source)}"]


def preset_with(preset: str | Path | Mapping[str, Any] | Preset, *overrides: Overrides) -> Preset:
    """Return a preset with several sets of overrides, loaded if it is not; the later ones win."""
    changes = merged_overrides(*overrides)
    if isinstance(preset, Preset):
        if not changes:
            return preset
        preset = preset.model_dump()
    return load_preset(preset, changes)


def _name(photo: DecodedPhoto) -> str:
    """Return a photo's name for a progress bar, cut to leave room for the bar."""
    return "refine" if photo.source is None else cut(io.displayed(photo.source.name), 24)


def _as_tensor(pixels: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
