"""A preset made runnable: components checked, built and loaded once, then photo after photo."""

from __future__ import annotations

import ctypes
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth import depth_models, io, priors, renderers
from redepth.config import DEFAULT_PRESET, Component, Preset, Term, load_preset, preset_names
from redepth.contracts import FollowsPhoto, HasNeeds, Objective
from redepth.data import datasets
from redepth.device import choose_device
from redepth.errors import ConfigError, InputError
from redepth.optim import budget, objectives
from redepth.optim.refiner import OnStep, Refiner
from redepth.priors.prompts import Captioner, Prompt
from redepth.protocols import load_protocol, protocol_names
from redepth.refinement import GroundTruth, Refinement
from redepth.registry import Registry

log = logging.getLogger(__name__)

FAMILIES: dict[str, Registry] = {
    "depth-models": depth_models.REGISTRY,
    "renderers": renderers.REGISTRY,
    "priors": priors.REGISTRY,
    "objectives": objectives.REGISTRY,
}


def list_components(family: str) -> dict[str, str]:
    """Return name -> one-line summary of a family's components, third-party ones included.

    ``family`` is ``presets``, ``depth-models``, ``renderers``, ``priors``, ``objectives``, ``datasets`` or
    ``protocols``.

    Raises:
        ConfigError: for another family.
    """
    if family == "presets":
        return {name: load_preset(name).description for name in preset_names()}
    if family == "protocols":
        return {name: load_protocol(name).description for name in protocol_names()}
    registries = {**FAMILIES, "datasets": datasets.REGISTRY}
    if family not in registries:
        raise ConfigError(f"unknown family '{family}' (valid: presets, {', '.join(registries)}, protocols)")
    return {name: entry.summary for name, entry in registries[family].entries().items()}


def resolve(preset: Preset) -> Preset:
    """Check every component's options and write its defaults out.

    Raises:
        ConfigError: naming the key, what is wrong with it and the nearest valid one.
        MissingDependencyError: if a component needs a package that is not installed.
    """

    def checked(registry: Registry, component: Component) -> Component:
        options = registry.check(component.name, component.options, also=("name",))
        return Component.model_validate({"name": component.name, **options})

    terms = {}
    for name, term in preset.optim.objectives.items():
        where = f"optim.objectives.{name}"
        options = objectives.REGISTRY.check(name, term.options, where=where, also=("weight",))
        terms[name] = Term.model_validate({"weight": term.weight, **options})
    if not preset.optim.prior_weight and not terms:
        raise ConfigError(
            "optim.prior_weight is 0 and optim.objectives is empty: nothing is left to optimise; add "
            "optim.objectives.smoothness.weight, or give the prior a weight"
        )
    return preset.model_copy(
        update={
            "depth_model": checked(depth_models.REGISTRY, preset.depth_model),
            "renderer": checked(renderers.REGISTRY, preset.renderer),
            "prior": checked(priors.REGISTRY, preset.prior),
            "optim": preset.optim.model_copy(update={"objectives": terms}),
        }
    )


class Pipeline:
    """The components of a preset, loaded once.

    Args:
        preset: a name, a YAML file, a mapping or a `Preset`.
        overrides: ``key.path=value`` strings.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: the preset or an override is wrong.
        WeightsError: weights are missing and unreachable, before anything is loaded.
    """

    def __init__(
        self,
        preset: str | Path | Mapping[str, Any] | Preset = DEFAULT_PRESET,
        *,
        overrides: Sequence[str] = (),
        device: str = "auto",
    ) -> None:
        started = time.perf_counter()
        self.device = choose_device(device)
        if isinstance(preset, Preset):
            preset = preset.model_dump()
        self.preset = resolve(load_preset(preset, overrides))
        budget.check_possible(self.preset.optim, self.device)
        depth_model = _built(depth_models.REGISTRY, self.preset.depth_model)
        renderer = _built(renderers.REGISTRY, self.preset.renderer)
        prior = _built(priors.REGISTRY, self.preset.prior)
        for component in (depth_model, renderer, prior):
            if isinstance(component, HasNeeds):
                component.ensure_available()
        self._captioner = captioner_of(self.preset, self.device)
        if self._captioner is not None:
            self._captioner.ensure_available()
        self.refiner = Refiner(
            depth_model.load(self.device),
            renderer,
            prior.load(self.device),
            self.preset.optim,
            _weighted_objectives(self.preset),
            self.device,
        )
        self.components = self._describe()
        self.load_seconds = time.perf_counter() - started

    def refine(
        self,
        photo: str | Path | ArrayLike,
        *,
        prompt: str | Prompt | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        ground_truth: GroundTruth | None = None,
        max_pixels: int = io.MAX_PIXELS,
        sky_mask: ArrayLike | None = None,
    ) -> Refinement:
        """Refine one photo: a path, or an array (H, W, 3) of sRGB in [0, 1] or uint8.

        Without a prompt the preset's captioner writes one (`captions`); for several photos, let it write all
        first, as it is loaded anew by each call.

        ``sky_mask`` is (H, W), of the photo's size, above 0 where there is sky; without it the sky is looked
        for.

        Raises:
            InputError: if the photo or the mask cannot be read or used.
        """
        pixels = _pixels(photo, max_pixels)
        sky = None if sky_mask is None else _sky_tensor(sky_mask, *pixels.shape[:2])
        if ground_truth is not None:
            ground_truth.check(*pixels.shape[:2])
        if isinstance(model := self.refiner.depth_model, FollowsPhoto):
            model.next_photo(Path(photo) if isinstance(photo, str | Path) else None)
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if prompt is None:
            (prompt,) = self.captions([pixels])
        elif isinstance(prompt, str):
            prompt = Prompt(prompt)
        outcome = self.refiner.run(
            _as_tensor(pixels), prompt=prompt.text, seed=seed, on_step=on_step, sky=sky
        )
        return Refinement(
            photo=pixels,
            outcome=outcome,
            preset=self.preset,
            seed=seed,
            prompt=prompt.text,
            prompt_origin=prompt.origin,
            device=str(self.device),
            source=str(Path(photo).resolve()) if isinstance(photo, str | Path) else None,
            # Asked again: the prior's precision may have changed on the way.
            components=self.components | {"prior": self.refiner.prior.describe()},
            timings={"began": began, "load_seconds": self.load_seconds},
            ground_truth=ground_truth,
        )

    def captions(
        self, photos: Sequence[str | Path | ArrayLike], *, max_pixels: int = io.MAX_PIXELS
    ) -> list[Prompt]:
        """Return what the preset's captioner says of each photo; empty prompts where it has none.

        Raises:
            InputError: if a photo cannot be read or used.
            WeightsError: if the captioner's weights cannot be loaded.
        """
        if self._captioner is None:
            return [Prompt("", {"from": "none"}) for _ in photos]
        return self._captioner.captions(_pixels(photo, max_pixels) for photo in photos)

    def _describe(self) -> dict[str, Any]:
        """Return what a run record must name about the components, the machine and the software."""
        cuda = self.device.type == "cuda"
        return {
            "depth_model": self.refiner.depth_model.describe(),
            "prior": self.refiner.prior.describe(),
            "execution": self.refiner.execution,
            "hardware": {
                "name": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
                "threads": torch.get_num_threads(),
            },
            "versions": versions(),
        }


def refine(
    photo: str | Path | ArrayLike,
    preset: str | Path | Mapping[str, Any] | Preset = DEFAULT_PRESET,
    *,
    prompt: str | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    device: str = "auto",
    on_step: OnStep | None = None,
    ground_truth: GroundTruth | None = None,
    max_pixels: int = io.MAX_PIXELS,
    sky_mask: ArrayLike | None = None,
) -> Refinement:
    """Refine the depth of one photo; for several photos, make a `Pipeline` once.

    Args:
        photo: path, or array (H, W, 3) of sRGB in [0, 1] or uint8.
        preset: name, YAML file, mapping or `Preset`.
        prompt: what a text-conditioned prior is told about the photo; none: what the preset's captioner says.
        seed: the same seed gives the same result.
        overrides: ``key.path=value`` strings, such as ``"optim.members=3"``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        on_step: called after each step with a `StepReport`.
        ground_truth: to measure against.
        max_pixels: refuse photos with more pixels than this.
        sky_mask: (H, W), of the photo's size, above 0 where there is sky; looked for without it.

    Raises:
        RedepthError: ConfigError, InputError or WeightsError, each with what to do about it.
    """
    # A bad photo or mask is found before seconds or minutes go into loading weights.
    pixels = _pixels(photo, max_pixels)
    if sky_mask is not None:
        _sky_tensor(sky_mask, *pixels.shape[:2])
    if prompt is not None:
        overrides = [*overrides, "prompt.captioner=none"]
    pipeline = Pipeline(preset, overrides=overrides, device=device)
    return pipeline.refine(
        photo,
        prompt=prompt,
        seed=seed,
        on_step=on_step,
        ground_truth=ground_truth,
        max_pixels=max_pixels,
        sky_mask=sky_mask,
    )


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next use; return whether the C library can (glibc).

    On a CPU each step allocates and frees the same large tensors. By default each one is mapped anew, page by
    page, and the kernel clears it. Call it where the process is yours.
    """
    map_at_most, trim_above = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(allocator(map_at_most, 0) and allocator(trim_above, 1 << 30))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("redepth", "torch", "numpy", "transformers", "diffusers", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def captioner_of(preset: Preset, device: torch.device) -> Captioner | None:
    """Return the captioner that a preset names, not loaded."""
    chosen = preset.prompt
    if chosen.captioner == "none":
        return None
    return Captioner(
        chosen.captioner,
        device,
        checkpoint=chosen.checkpoint,
        revision=chosen.revision,
        local_files_only=chosen.local_files_only,
        dtype=chosen.dtype,
        fallback=chosen.fallback,
    )


def _built(registry: Registry, component: Component) -> Any:
    # The preset is resolved: its options have been checked and their defaults written out.
    return registry.get(component.name)(**component.options)


def _weighted_objectives(preset: Preset) -> dict[str, tuple[float, Objective]]:
    return {
        name: (term.weight, objectives.REGISTRY.build(name, term.options))
        for name, term in preset.optim.objectives.items()
    }


def _pixels(photo: str | Path | ArrayLike, max_pixels: int) -> NDArray[np.float32]:
    if isinstance(photo, str | Path):
        return io.load_photo(photo, max_pixels=max_pixels)
    pixels = np.asarray(photo)
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / 255.0
    if pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < 2:
        raise InputError(f"a photo array must be (H, W, 3), got {pixels.shape}")
    if not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"a photo array must be uint8 or floating, got {pixels.dtype}")
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise InputError("a floating photo array must hold finite sRGB values in [0, 1]")
    return pixels.astype(np.float32)


def _as_tensor(pixels: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def _sky_tensor(mask: ArrayLike, height: int, width: int) -> Tensor:
    """Return a sky mask as (1, 1, H, W) bool."""
    values = np.asarray(mask)
    io.check_size("sky mask", values.shape, height, width)
    return torch.from_numpy(values > 0)[None, None]
