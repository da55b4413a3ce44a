"""The method ``score``: the loss of refinement itself, averaged over photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.adaptation.lessons import TOTAL, LoadedPhoto, Place, Predictor
from redepth.adaptation.photos import PhotoFile
from redepth.contracts import Prior
from redepth.errors import ConfigError
from redepth.optim.draws import draw_step
from redepth.optim.refiner import Refiner
from redepth.priors.distillation import DiffusionPrior


@dataclass(frozen=True)
class _Prediction:
    """The state of one member whose output is that of a network; the offset stays 0."""

    output: Tensor
    members: int = 1

    @property
    def offset(self) -> Tensor:
        return self.output.new_zeros(1, 1, 1, 1)

    def raw(self) -> Tensor:
        return self.output


def check_prior(prior: Prior) -> None:
    """Raise ConfigError if a prior learns while it scores (``vsd``), which is a matter of one photo."""
    if isinstance(prior, DiffusionPrior) and prior.learns:
        raise ConfigError(
            "adapt.method=score cannot use prior.score=vsd, whose adapters learn one photo: set "
            "prior.score=sds, or adapt.method=distil"
        )


class Score:
    r"""A `lessons.PhotoLoss`: what `Refiner.step` gives for the trained model's prediction of a photo.

    .. math:: \mathrm{total} = \mathrm{step}(D / k) + w \, \mathrm{anchor}(D / k, D_0 / k)

    with the prediction D, and D_0 and the unit k of the starting model. Light and noise are drawn anew for
    each photo of each step. The losses are those of the step, ``anchor``, and ``total``.

    Args:
        refiner: on the starting model, frozen: it shares no weights with the one that is trained.
        prompt: returns the prompt of a photo.
        anchor: further loss of both raw outputs; None for none.
        anchor_weight: w.

    Raises:
        ConfigError: as `check_prior`.
    """

    def __init__(
        self,
        refiner: Refiner,
        prompt: Callable[[PhotoFile], str] = lambda photo: "",
        anchor: Callable[[Tensor, Tensor], Tensor] | None = None,
        anchor_weight: float = 1.0,
    ) -> None:
        check_prior(refiner.prior)
        self._refiner, self._prompt = refiner, prompt
        self._anchor, self._weight = (anchor if anchor_weight else None), anchor_weight

    def __call__(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        """Return the losses of a photo. Raises RedepthError: a component returns what it should not."""
        refiner = self._refiner
        with torch.no_grad():
            problem = refiner.make_problem(photo.tensor(model.device), self._prompt(photo.file))
        draws = draw_step(
            refiner.renderer, refiner.prior, place.generator(), place.progress, check=place.step == 0
        )
        raw = model.predict(problem.image) / problem.unit
        losses, _, _ = refiner.step(
            _Prediction(raw),
            problem.image,
            problem.linear,
            problem.condition,
            draws.to(model.device),
            problem.guidance,
        )
        named = {name: values[0] for name, values in losses.items()}
        if self._anchor is not None:
            named["anchor"] = self._anchor(raw, problem.initial)
            named[TOTAL] = named[TOTAL] + self._weight * named["anchor"]
        return named
