"""The arms of the experiment `adapt`."""

from __future__ import annotations

from redepth.config import Preset
from redepth.config.adaptation import AdaptMethod
from redepth.experiments.arms import NO_PRIOR, RANDOM_WEIGHTS, Arm, no_random_weights
from redepth.experiments.unlabelled import FEWER, KEPT, MORE, PHOTOS, Adaptation

PER_PHOTO = "per photo"
SCORE_STEPS = 100
"""Steps of the method ``score``, each of which takes as long as several of ``distil``."""
ANY_REFINEMENT = ("adapt.trust.flagged=true", "adapt.trust.least=0")


def adapt_arms(preset: Preset) -> list[Arm]:
    """Return refinement photo by photo, and the ways to adapt the depth model once for all photos."""
    return [
        Arm(PER_PHOTO),
        _arm("distil", "distil"),
        *(_arm(f"distil, {count} photos", "distil", photos=count) for count in FEWER),
        _arm("score", "score"),
        *(arm for method in ("distil", "score") for arm in _controls(preset, method)),
        _arm("distil + per photo", "distil", refine=True),
        *(_arm(f"distil, {count} photos", "distil", photos=count, extra=True) for count in MORE),
        _arm("distil, nothing kept", "distil", keep=0, extra=True),
    ]


def _controls(preset: Preset, method: AdaptMethod) -> list[Arm]:
    """Return a method without what the prior knows; it learns from refinements that are flagged, too.

    The diagnostics flag nearly all of them, and nothing would be left to learn from.
    """
    obstacle = no_random_weights(preset.prior.name)
    random, none = (*RANDOM_WEIGHTS, *ANY_REFINEMENT), (*NO_PRIOR, *ANY_REFINEMENT)
    return [
        _arm(f"{method}, random weights", method, "random weights", random, obstacle=obstacle),
        _arm(f"{method}, smoothness only", method, "smoothness only", none),
    ]


def _arm(
    name: str,
    method: AdaptMethod,
    prior: str = "trained",
    overrides: tuple[str, ...] = (),
    *,
    photos: int = PHOTOS,
    keep: int = KEPT,
    refine: bool = False,
    extra: bool = False,
    obstacle: str = "",
) -> Arm:
    model = f"{method}, {prior}, {photos} photos, {keep} kept"
    adaptation = Adaptation(name=model, prior=prior, photos=photos, keep=keep, refine=refine)
    steps = (f"adapt.steps={SCORE_STEPS}",) if method == "score" else ()
    overrides = (f"adapt.method={method}", *steps, *overrides)
    varied = method == "distil" and prior == "trained" and keep == KEPT and not refine
    return Arm(
        name,
        overrides,
        factor="photos" if varied else "",
        extra=extra,
        obstacle=obstacle,
        adapt=adaptation,
    )
