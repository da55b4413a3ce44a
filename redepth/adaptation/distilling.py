"""The method ``distil``: learn refined photos, stay near the start on them, and stay as it is on others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from redepth.adaptation.lessons import TOTAL, LoadedPhoto, Place, Predictor
from redepth.adaptation.losses import distil_loss, drift, keep_loss, relative_depth_in
from redepth.adaptation.targets import TargetRow, load_target
from redepth.config.adaptation import Adapt
from redepth.contracts import DepthModel, Renderer, UsesCamera
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.optim.refiner import unit_of


class Distil:
    r"""A `lessons.PhotoLoss`: `distil_loss` to the refinement of a photo, and the anchor to its start.

    .. math:: \mathrm{total} = \mathrm{distil} + w \, \mathrm{drift}

    with `Anchor.weight` w. The losses are ``distil``, ``drift`` unless w is 0, and ``total``.

    Args:
        model: the depth model, for the constants of its relative depth.
        folder: of the refinements.
        rows: name of a photo -> its row, for all photos that are learned from.
        settings: tolerance of trust, and anchor.
    """

    def __init__(
        self, model: DepthModel, folder: Path, rows: Mapping[str, TargetRow], settings: Adapt
    ) -> None:
        self._constants, self._folder, self._rows = model, folder, dict(rows)
        self._tolerance, self._anchor = settings.trust.tolerance, settings.anchor

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        """Return the losses of a photo; nothing is random. Raises InputError if its refinement is gone."""
        target = load_target(self._folder, self._rows[photo.name], self._tolerance).to(model.device)
        raw = model.predict(model.prepare(photo.tensor(model.device)))
        distil = distil_loss(raw, target, relative_depth_in(self._constants, target.unit))
        if not self._anchor.weight:
            return {"distil": distil, TOTAL: distil}
        low = drift(raw, target.initial, self._anchor.scale)
        return {"distil": distil, "drift": low, TOTAL: distil + self._anchor.weight * low}


class Keep:
    """A `lessons.PhotoLoss`: `keep_loss` to the prediction of the starting model, on photos of ``--keep``.

    Args:
        start: the starting model, loaded on the device and frozen; not the one that is trained.
        renderer: whose camera the normals are seen with.
    """

    def __init__(self, start: DepthModel, renderer: Renderer) -> None:
        self._start = start
        self._own = renderer.own_camera if isinstance(renderer, UsesCamera) else ORTHOGRAPHIC

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        """Return the loss of a photo; nothing is random."""
        image = model.prepare(photo.tensor(model.device))
        with torch.no_grad():
            initial = self._start.decode(self._start.encode(image))
        relative_depth = relative_depth_in(self._start, unit_of(self._start, initial))
        camera = self._own.of_picture(*photo.pixels.shape[-2:])
        return {TOTAL: keep_loss(model.predict(image), initial, relative_depth, camera)}
