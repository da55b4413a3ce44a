"""The method ``score``: the loss of refinement itself, averaged over photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from redepth.adaptation.lessons import LoadedPhoto, Place, Predictor
from redepth.adaptation.photos import PhotoFile
from redepth.optim.refiner import Refiner


class Score:
    """A `lessons.PhotoLoss`: what `Refiner.step` gives for the trained model's prediction of a photo.

    Args:
        refiner: on the starting model, frozen, which gives each photo's unit and the sky.
        prompt: returns the prompt of a photo.
        anchor: further loss of (raw output, the starting model's raw output), both divided by the unit; None
            for none.
        anchor_weight: its weight.
    """

    def __init__(
        self,
        refiner: Refiner,
        prompt: Callable[[PhotoFile], str] = lambda photo: "",
        anchor: Callable[[Tensor, Tensor], Tensor] | None = None,
        anchor_weight: float = 1.0,
    ) -> None:
        raise NotImplementedError

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        """Return the losses of a photo."""
        raise NotImplementedError
