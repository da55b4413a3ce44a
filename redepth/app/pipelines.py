"""Loaded pipelines: the last one is kept for the next run, and is adjusted to its settings."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from redepth.config import Preset
from redepth.optim.refiner import Refiner
from redepth.pipeline import Pipeline
from redepth.runtime.allocator import give_back_freed_memory


@dataclass(frozen=True)
class _Kept:
    name: str
    pipeline: Pipeline
    prior: dict[str, Any]

    @classmethod
    def loaded(cls, name: str, device: str) -> _Kept:
        """Load a preset."""
        pipeline = Pipeline(name, device=device)
        return cls(name, pipeline, pipeline.refiner.prior.describe())

    @property
    def is_as_loaded(self) -> bool:
        """Whether the prior is what it was: a run in half precision may have switched it to float32."""
        return self.pipeline.refiner.prior.describe() == self.prior


class Pipelines:
    """Lends loaded pipelines, and keeps one that is not lent: that of the last run.

    Args:
        device: as for `Pipeline`.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def is_loaded(self, name: str) -> bool:
        """Return whether the pipeline of a preset is kept."""
        with self._lock:
            return self._kept is not None and self._kept.name == name

    @contextmanager
    def lent(self, name: str, preset: Preset) -> Iterator[Pipeline]:
        """Lend a pipeline for one run.

        Args:
            name: of the preset, which says what is loaded.
            preset: resolved: that preset with other members, steps, limits, prompt or files.

        Raises:
            RedepthError: the preset cannot be loaded.
        """
        used = self._taken(name) or _Kept.loaded(name, self.device)
        yield adjusted(used.pipeline, preset)
        # After an error it is not kept: memory may have run out, or a component may be in disorder.
        if used.is_as_loaded:
            self._keep(used)

    def release(self) -> None:
        """Forget the pipeline that is kept, and free its memory."""
        self._keep(None)

    def _taken(self, name: str) -> _Kept | None:
        """Take the pipeline that is kept; one of another preset is dropped before the next is loaded.

        If None is returned, the memory of all former runs is free: also of one that failed.
        """
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None and kept.name == name:
            return kept
        del kept
        _free()
        return None

    def _keep(self, kept: _Kept | None) -> None:
        with self._lock:
            former, self._kept = self._kept, kept
        if former is not None:
            del former
            _free()


def adjusted(pipeline: Pipeline, preset: Preset) -> Pipeline:
    """Return a pipeline of the same loaded components for a preset that differs in members, steps and limits.

    Args:
        pipeline: stays as it is, but for the execution of its components, which the new refiner tunes.
        preset: resolved, with the same components and objectives.
    """
    former = pipeline.refiner
    changed = copy.copy(pipeline)
    changed.preset = preset
    changed.refiner = Refiner(
        former.depth_model, former.renderer, former.prior, preset.optim, former.objectives, former.device
    )
    changed.components = pipeline.components | {"execution": changed.refiner.execution}
    return changed


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back_freed_memory()
