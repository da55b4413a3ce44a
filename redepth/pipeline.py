"""A preset made runnable: components checked, built and loaded once, then photo after photo."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth import components, io
from redepth.config import DEFAULT_PRESET, Preset, load_preset
from redepth.contracts import FollowsPhoto
from redepth.errors import InputError
from redepth.optim.limits import check_memory_limit
from redepth.optim.outcome import OnStep
from redepth.optim.planning import run_within_limits
from redepth.optim.refiner import Refiner
from redepth.priors.prompts import Prompt
from redepth.refinement import GroundTruth, Refinement
from redepth.runtime.device import choose_device

log = logging.getLogger(__name__)


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
        self.preset = components.resolve(load_preset(preset, overrides))
        check_memory_limit(self.preset.optim, self.device)
        loaded = components.build(self.preset, self.device)
        self._captioner = loaded.captioner
        self.refiner = Refiner(
            loaded.depth_model,
            loaded.renderer,
            loaded.prior,
            self.preset.optim,
            loaded.objectives,
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
        outcome = run_within_limits(
            self.refiner, _as_tensor(pixels), prompt=prompt.text, seed=seed, on_step=on_step, sky=sky
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
            "versions": components.versions(),
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
