"""The pipeline of a preset: its components are built and loaded once, then it refines photo after photo."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth import components, io
from redepth.components import Components
from redepth.config import DEFAULT_PRESET, Preset, load_preset
from redepth.contracts import FollowsPhoto, LeavesHoles
from redepth.errors import ConfigError, InputError
from redepth.ground_truth import GroundTruth
from redepth.guidance import Given, PhotoData, SkyMask
from redepth.optim.outcome import OnStep
from redepth.optim.planning import run_within_limits
from redepth.optim.refiner import Refiner
from redepth.priors.prompts import Captioner, Prompt
from redepth.refinement import Refinement
from redepth.runtime.device import choose_device

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DecodedPhoto:
    """The pixels of a photo, and the file that they are from.

    Attributes:
        pixels: (H, W, 3) sRGB, float32 in [0, 1] or uint8.
        source: the file; None for an array.
    """

    pixels: NDArray[np.float32] | NDArray[np.uint8]
    source: Path | None = None

    @property
    def values(self) -> NDArray[np.float32]:
        """The pixels as float32 in [0, 1]."""
        values = self.pixels.astype(np.float32, copy=False)
        if self.pixels.dtype == np.uint8:
            values /= 255.0  # in place: a second copy of 100 megapixels would take another 1.2 GB
        return values


class Pipeline:
    """The components of a preset, loaded once.

    Args:
        preset: a name, a YAML file, a mapping or a `Preset`; or the `Components` already built of one.
        overrides: ``key.path=value`` strings.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: the preset or an override is wrong.
        WeightsError: weights are missing and unreachable, before anything is loaded.
    """

    def __init__(
        self,
        preset: str | Path | Mapping[str, Any] | Preset | Components = DEFAULT_PRESET,
        *,
        overrides: Sequence[str] = (),
        device: str = "auto",
    ) -> None:
        started = time.perf_counter()
        self.device = choose_device(device)
        if isinstance(preset, Components):
            if overrides:
                raise ConfigError("overrides change a preset; these components are built already")
            built = preset
        else:
            built = components.build(_with_overrides(preset, overrides), self.device)
        loaded = built.load(self.device)
        self.preset = loaded.preset
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
        photo: str | Path | ArrayLike | DecodedPhoto,
        *,
        prompt: str | Prompt | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        ground_truth: GroundTruth | None = None,
        max_pixels: int = io.MAX_PIXELS,
        sky_mask: ArrayLike | None = None,
        data: Sequence[PhotoData] = (),
    ) -> Refinement:
        """Refine one photo: a path, or an array (H, W, 3) of sRGB in [0, 1] or uint8.

        Without a prompt the preset's captioner writes one (`captions`). Each call loads the captioner anew:
        for several photos, write all captions first.

        ``sky_mask`` is (H, W), of the photo's size, above 0 where there is sky. Without it the sky is
        detected. ``data`` are further records for the objectives.

        Raises:
            InputError: if the photo or the mask cannot be read or used.
        """
        decoded = decode(photo, max_pixels)
        pixels = decoded.values
        known = list(data)
        if sky_mask is not None:
            known.append(SkyMask(_sky_tensor(sky_mask, *pixels.shape[:2])))
        if ground_truth is not None:
            ground_truth.check(*pixels.shape[:2])
        if isinstance(model := self.refiner.depth_model, FollowsPhoto):
            model.next_photo(decoded.source)
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if prompt is None:
            (prompt,) = write_captions(self._captioner, [decoded])
        elif isinstance(prompt, str):
            prompt = Prompt(prompt)
        # The depth model may read files of the photo, such as its map.
        with io.pixel_limit(max_pixels):
            outcome = run_within_limits(
                self.refiner,
                _as_tensor(pixels),
                prompt=prompt.text,
                seed=seed,
                on_step=on_step,
                given=Given(data=tuple(known)),
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
            components=self.components | {"prior": self.refiner.prior.describe()},
            timings={"began": began, "load_seconds": self.load_seconds},
            ground_truth=ground_truth,
            holes=holes,
        )

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
        prompt: conditions a text-conditioned prior; without it the preset's captioner writes one.
        seed: the same seed gives the same result.
        overrides: ``key.path=value`` strings, such as ``"optim.members=3"``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        on_step: called after each step with a `StepReport`.
        ground_truth: to measure against.
        max_pixels: refuse photos, and maps that the depth model reads, with more pixels than this.
        sky_mask: (H, W), of the photo's size, above 0 where there is sky; without it the sky is detected.

    Raises:
        RedepthError: ConfigError, InputError or WeightsError, each with what to do about it.
    """
    # A bad photo or mask is found before the weights are loaded, which takes seconds or minutes.
    decoded = decode(photo, max_pixels)
    if sky_mask is not None:
        _sky_tensor(sky_mask, *decoded.pixels.shape[:2])
    if prompt is not None:
        overrides = [*overrides, "prompt.captioner=none"]
    pipeline = Pipeline(preset, overrides=overrides, device=device)
    return pipeline.refine(
        decoded,
        prompt=prompt,
        seed=seed,
        on_step=on_step,
        ground_truth=ground_truth,
        max_pixels=max_pixels,
        sky_mask=sky_mask,
    )


def decode(photo: str | Path | ArrayLike | DecodedPhoto, max_pixels: int = io.MAX_PIXELS) -> DecodedPhoto:
    """Read a photo from its file, or check an array; a decoded photo is returned unchanged.

    Raises:
        InputError: if it cannot be read or used.
    """
    if isinstance(photo, DecodedPhoto):
        return photo
    if isinstance(photo, str | Path):
        return DecodedPhoto(io.load_photo(photo, max_pixels=max_pixels), Path(photo))
    pixels = np.asarray(photo)
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / 255.0
    if pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < 2:
        raise InputError(f"a photo array must be (H, W, 3), got {pixels.shape}")
    if not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"a photo array must be uint8 or floating, got {pixels.dtype}")
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise InputError("a floating photo array must hold finite sRGB values in [0, 1]")
    return DecodedPhoto(pixels.astype(np.float32))


def write_captions(
    captioner: Captioner | None,
    photos: Sequence[str | Path | ArrayLike | DecodedPhoto],
    max_pixels: int = io.MAX_PIXELS,
) -> list[Prompt]:
    """Return a caption of each photo, one decoded at a time; empty prompts without a captioner.

    Raises:
        InputError: if a photo cannot be read or used.
        WeightsError: if the captioner's weights cannot be loaded.
    """
    if captioner is None:
        return [Prompt("", {"from": "none"}) for _ in photos]
    return captioner.captions(decode(photo, max_pixels).values for photo in photos)


def _with_overrides(preset: str | Path | Mapping[str, Any] | Preset, overrides: Sequence[str]) -> Preset:
    if isinstance(preset, Preset):
        if not overrides:
            return preset
        preset = preset.model_dump()
    return load_preset(preset, overrides)


def _as_tensor(pixels: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def _sky_tensor(mask: ArrayLike, height: int, width: int) -> Tensor:
    """Return a sky mask as (1, 1, H, W) bool."""
    values = np.asarray(mask)
    io.check_size("sky mask", values.shape, height, width)
    return torch.from_numpy(values > 0)[None, None]
