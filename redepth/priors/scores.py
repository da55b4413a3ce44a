r"""Score distillation rules: from a frozen model's predictions to a gradient, and its loss.

Notation: x the clean picture or latent, eps the noise, x_t = a_t x + s_t eps (`schedule.Schedule`),
e_y(x_t) the noise that the frozen model predicts under condition y, g the guidance scale, w(t) a weighting.

Each rule is a pure function of predictions and a small class that runs the model for them. A branch is a
prediction under one condition: ``text`` the prompt (or photo and light of a re-lighting model), ``uncond``
the unconditional side of guidance (the negative prompt, by default empty; or no condition), ``negative`` a
prompt of unwanted properties, ``source`` a prompt that describes the photo, ``artefacts`` a prompt that
describes the unrefined picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from redepth.priors.schedule import Schedule

GuidanceBase = Literal["text", "uncond"]
Weighting = Literal["uniform", "sds", "fantasia3d", "x0"]
Reduction = Literal["mean", "sum"]
Annealing = Literal["constant", "linear", "sqrt"]
Score = Literal["sds", "sds-x0", "csd", "nfsd", "ism", "sdi", "dds", "sds-bridge", "vsd", "rfds", "flow-sds"]

Branch = str
Predict = Callable[[Tensor, Tensor, Sequence[Branch]], Mapping[Branch, Tensor]]


@dataclass(frozen=True)
class Settings:
    """The options of the rules; `distillation.DiffusionPrior` documents them."""

    guidance_scale: float
    guidance_base: GuidanceBase
    weighting: Weighting
    negative_scale: float
    inversion_steps: int
    inversion_guidance: float
    interval: int


@dataclass(frozen=True)
class Query:
    """The inputs of a rule: a batch of pictures and the frozen model, without gradients.

    Attributes:
        x: (N, ...) clean pictures or latents.
        noise: eps of the same shape.
        timestep: (N,) t.
        progress: (N,) share of the run that is done, in [0, 1).
        schedule: of the frozen model.
        predict: (x_t, t, branches) -> branch -> predicted noise.
        velocity: (x_t, t, branches) -> branch -> predicted velocity; of flow-matching models.
        photo: returns the original photo in the model's space, cut and sampled like x.
        settings: the options.
    """

    x: Tensor
    noise: Tensor
    timestep: Tensor
    progress: Tensor
    schedule: Schedule
    predict: Predict
    velocity: Predict
    photo: Callable[[], Tensor]
    settings: Settings

    @property
    def noisy(self) -> Tensor:
        """Return x_t."""
        return self.schedule.add_noise(self.x, self.noise, self.timestep)

    @property
    def weights(self) -> Tensor:
        """Return w(t), shaped to multiply x."""
        return weight(*self.schedule.at(self.timestep, self.x), self.settings.weighting)

    def guided(
        self, noisy: Tensor, timestep: Tensor, *, branch: Branch = "text", predict: Predict | None = None
    ) -> Tensor:
        """Return the guided prediction, `guide`; without guidance only the branch is predicted.

        Args:
            noisy: x_t (N, ...).
            timestep: t (N,).
            branch: that is guided away from the unconditional one.
            predict: `predict`, which is the default, or `velocity`.
        """
        predict = predict or self.predict
        scale, base = self.settings.guidance_scale, self.settings.guidance_base
        if scale == (0.0 if base == "text" else 1.0):
            return predict(noisy, timestep, (branch,))[branch]
        predicted = predict(noisy, timestep, (branch, "uncond"))
        return guide(predicted[branch], predicted["uncond"], scale, base)


def guide(conditioned: Tensor, unconditioned: Tensor, scale: float, base: GuidanceBase = "text") -> Tensor:
    r"""Classifier-free guidance.

    .. math:: e = e_{base} + g \, (e_{text} - e_{uncond})

    ``base="text"`` is the paper's implementation's form, ``"uncond"`` the usual one (Ho and Salimans,
    arXiv 2207.12598): guidance g over "text" is guidance g + 1 over "uncond".
    """
    start = conditioned if base == "text" else unconditioned
    return start + scale * (conditioned - unconditioned)


def weight(a: Tensor, s: Tensor, weighting: Weighting) -> Tensor:
    r"""Return w(t) of the noise level (a, s).

    ``uniform`` 1; ``sds`` s^2, which is 1 - alpha_bar (DreamFusion, arXiv 2209.14988); ``fantasia3d`` a s^2
    (arXiv 2303.13873); ``x0`` s / a, which makes the sds gradient x - x0_pred, the distance to the
    model's one-step reconstruction.
    """
    if weighting == "uniform":
        return torch.ones_like(a)
    if weighting == "sds":
        return s**2
    if weighting == "fantasia3d":
        return a * s**2
    return s / a.clamp(min=1e-3)


def sds(guided: Tensor, noise: Tensor) -> Tensor:
    r"""Score distillation sampling: e - eps (DreamFusion, arXiv 2209.14988, equation 3)."""
    return guided - noise


def sds_x0(x: Tensor, reconstruction: Tensor) -> Tensor:
    r"""Score distillation in its reconstruction form: x - x0_pred, with x0_pred = (x_t - s e) / a.

    The same direction as `sds`, times s / a: the loss is half the squared distance to the model's
    reconstruction (HiFA, arXiv 2305.18766, equation 8).
    """
    return x - reconstruction


def csd(text: Tensor, uncond: Tensor, scale: float) -> Tensor:
    r"""Classifier score distillation: g (e_text - e_uncond), the guidance term alone.

    Source: Yu et al., arXiv 2310.19415, equation 5.
    """
    return scale * (text - uncond)


def csd_negative(
    text: Tensor, uncond: Tensor, negative: Tensor, scale: float, negative_scale: Tensor | float
) -> Tensor:
    r"""Classifier score distillation away from a negative prompt.

    .. math:: \omega_1 e_{text} + (\omega_2 - \omega_1) e_{uncond} - \omega_2 e_{negative}

    with omega_1 = g. Source: Yu et al., arXiv 2310.19415, equation 8; the paper anneals omega_2 towards 0.
    """
    return scale * text + (negative_scale - scale) * uncond - negative_scale * negative


def nfsd(text: Tensor, uncond: Tensor, negative: Tensor, timestep: Tensor, scale: float) -> Tensor:
    r"""Noise-free score distillation: delta_D + g (e_text - e_uncond).

    delta_D = e_uncond for t < 200, where the model's noise is nearly the true one and cancels, and
    e_uncond - e_negative above. Source: Katzir et al., arXiv 2310.17590, equations 8 and 9.
    """
    small = (timestep < 200).view(-1, *[1] * (text.dim() - 1))
    domain = torch.where(small, uncond, uncond - negative)
    return domain + scale * (text - uncond)


def ism(guided: Tensor, inverted: Tensor) -> Tensor:
    r"""Interval score matching: e_text(x_t, t) - e_uncond(x_s, s), both on the inverted path.

    Source: LucidDreamer, arXiv 2311.11284, equation 17.
    """
    return guided - inverted


def dds(guided: Tensor, source: Tensor) -> Tensor:
    r"""Delta denoising score: the guided prediction minus that of the photo at the same t and noise.

    The model's bias, its change of the photo itself, cancels. Source: Hertz et al., arXiv 2304.07090,
    equation 3.
    """
    return guided - source


def bridge(text: Tensor, artefacts: Tensor, scale: float) -> Tensor:
    r"""Score distillation as a bridge: g (e_text - e_artefacts), from the unrefined picture to the prompt.

    Source: McAllister et al., arXiv 2406.09417, equation 11, its second stage.
    """
    return scale * (text - artefacts)


def vsd(guided: Tensor, learned: Tensor) -> Tensor:
    r"""Variational score distillation: the guided prediction minus that of a model of the current pictures.

    Source: ProlificDreamer, arXiv 2305.16213, equation 9.
    """
    return guided - learned


def rfds(velocity: Tensor, path: Tensor) -> Tensor:
    r"""Rectified flow distillation sampling: u_guided - (eps - x).

    Half the gradient of the squared distance between the predicted velocity and the one of the straight path
    from x to the noise; the model's Jacobian is left out. Source: Yang et al., arXiv 2406.03293, equation 8.
    FlowDreamer (Li et al., arXiv 2408.05008) calls the same gradient vector field distillation sampling, and
    others SDS with a velocity: the score ``flow-sds`` is this one.

    For a model that predicts velocities, `sds` is 1 - sigma times this gradient, and `sds_x0` sigma times it.

    Args:
        velocity: u_guided, as the model's time runs: from the picture to the noise.
        path: eps - x.
    """
    return velocity - path


class Rule(ABC):
    """A score rule: the branches that it needs, and the gradient by x.

    Attributes:
        branches: that the rule needs.
        flow_only: whether it is only defined for flow-matching models.
        contrast: whether it is 0 for an unconditional model.
        learns: whether it trains a copy of the model on the fly.
    """

    branches: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond"})
    flow_only: ClassVar[bool] = False
    contrast: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    @abstractmethod
    def gradient(self, query: Query) -> Tensor:
        """Return the gradient by x, weighted, (N, ...)."""


class SDS(Rule):
    """`sds`, the paper's."""

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (e - eps)."""
        return query.weights * sds(query.guided(query.noisy, query.timestep), query.noise)


class SDSX0(Rule):
    """`sds_x0`."""

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (x - x0_pred)."""
        noisy = query.noisy
        guided = query.guided(noisy, query.timestep)
        return query.weights * sds_x0(query.x, query.schedule.sample_of(guided, noisy, query.timestep))


class CSD(Rule):
    """`csd`, or `csd_negative` where ``negative_scale`` is above 0; that falls linearly to 0 over the run."""

    contrast = True

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) g (e_text - e_uncond), with the negative prompt's term."""
        scale, start = query.settings.guidance_scale, query.settings.negative_scale
        if not start:
            predicted = query.predict(query.noisy, query.timestep, ("text", "uncond"))
            return query.weights * csd(predicted["text"], predicted["uncond"], scale)
        predicted = query.predict(query.noisy, query.timestep, ("text", "uncond", "negative"))
        away = start * (1 - query.progress).view(-1, *[1] * (query.x.dim() - 1))
        parts = predicted["text"], predicted["uncond"], predicted["negative"]
        return query.weights * csd_negative(*parts, scale, away)


class NFSD(Rule):
    """`nfsd`."""

    branches = frozenset({"text", "uncond", "negative"})

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (delta_D + g (e_text - e_uncond))."""
        predicted = query.predict(query.noisy, query.timestep, ("text", "uncond", "negative"))
        parts = predicted["text"], predicted["uncond"], predicted["negative"]
        return query.weights * nfsd(*parts, query.timestep, query.settings.guidance_scale)


class ISM(Rule):
    """`ism`: x is inverted to s = t - ``interval`` in ``inversion_steps`` steps without prompt, then to t.

    s is at least 0; for a model that predicts clean pictures at least the level of `Schedule.raised`, or t.
    """

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (e_guided(x_t) - e_uncond(x_s))."""
        before = query.schedule.raised(query.timestep - query.settings.interval)
        before = torch.minimum(before, query.timestep)

        def unconditional(noisy: Tensor, timestep: Tensor) -> Tensor:
            return query.predict(noisy, timestep, ("uncond",))["uncond"]

        noisy = invert(query, before, unconditional)
        inverted = unconditional(noisy, before)
        noisy = query.schedule.step(noisy, inverted, before, query.timestep)
        return query.weights * ism(query.guided(noisy, query.timestep), inverted)


class SDI(Rule):
    r"""Score distillation via inversion: sds with the noise that inverting x yields instead of a random one.

    .. math:: w(t) \big(e(x_t) - \kappa\big), \qquad \kappa = \frac{x_t - a_t x}{s_t}

    with x_t from x by DDIM inversion under the guidance ``inversion_guidance``. Source: Lukoianov et al.,
    arXiv 2405.15891, equations 12 and 13.
    """

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (e_guided(x_t) - kappa)."""
        scale = query.settings.inversion_guidance

        def guided(noisy: Tensor, timestep: Tensor) -> Tensor:
            predicted = query.predict(noisy, timestep, ("text", "uncond"))
            return guide(predicted["text"], predicted["uncond"], scale, "uncond")

        noisy = invert(query, query.timestep, guided)
        a, s = query.schedule.at(query.timestep, noisy)
        kappa = (noisy - a * query.x) / s
        return query.weights * sds(query.guided(noisy, query.timestep), kappa)


class DDS(Rule):
    """`dds`: the source branch is the photo under ``source_prompt``, by default the prompt."""

    branches = frozenset({"text", "uncond", "source"})

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (e_guided(x_t) - e_guided(photo_t))."""
        photo = query.schedule.add_noise(query.photo(), query.noise, query.timestep)
        source = query.guided(photo, query.timestep, branch="source")
        return query.weights * dds(query.guided(query.noisy, query.timestep), source)


class SDSBridge(Rule):
    """`bridge`."""

    branches = frozenset({"text", "artefacts"})
    contrast = True

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) g (e_text - e_artefacts)."""
        predicted = query.predict(query.noisy, query.timestep, ("text", "artefacts"))
        return query.weights * bridge(
            predicted["text"], predicted["artefacts"], query.settings.guidance_scale
        )


class VSD(Rule):
    """`vsd`: the branch ``learned`` is a LoRA'd copy that is trained on the pictures (`priors.lora`)."""

    branches = frozenset({"text", "uncond", "learned"})
    learns = True

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (e_guided(x_t) - e_learned(x_t))."""
        noisy = query.noisy
        learned = query.predict(noisy, query.timestep, ("learned",))["learned"]
        return query.weights * vsd(query.guided(noisy, query.timestep), learned)


class RFDS(Rule):
    """`rfds`, also as ``flow-sds``."""

    flow_only = True

    def gradient(self, query: Query) -> Tensor:
        """Return w(t) (u_guided - (eps - x))."""
        noisy, schedule = query.noisy, query.schedule
        velocity = query.guided(noisy, query.timestep, predict=query.velocity)
        target = schedule.target(query.x, query.noise, query.timestep)
        return query.weights * rfds(velocity, schedule.velocity_of(target, noisy, query.timestep))


RULES: dict[str, Rule] = {
    "sds": SDS(),
    "sds-x0": SDSX0(),
    "csd": CSD(),
    "nfsd": NFSD(),
    "ism": ISM(),
    "sdi": SDI(),
    "dds": DDS(),
    "sds-bridge": SDSBridge(),
    "vsd": VSD(),
    "rfds": RFDS(),
    "flow-sds": RFDS(),
}
assert set(RULES) == set(get_args(Score))


def invert(query: Query, end: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Carry x to the noise level ``end`` (N,) by DDIM inversion in ``inversion_steps`` equal steps.

    At each step the noise is predicted at the current level (at the first step: at level 0), or at the least
    one that the model can be asked at, `Schedule.raised`.
    """
    noisy, level = query.x, torch.full_like(end, -1)
    for k in range(1, query.settings.inversion_steps + 1):
        following = ((end + 1) * k) // query.settings.inversion_steps - 1
        predicted = predict(noisy, query.schedule.raised(level))
        noisy = query.schedule.step(noisy, predicted, level, following)
        level = following
    return noisy


def clip(gradient: Tensor, limit: float | None) -> Tensor:
    """Scale rows of a larger root mean square down to ``limit``; a row that is not finite stays so."""
    if limit is None:
        return gradient
    size = gradient.flatten(1).square().mean(dim=1).sqrt().clamp(min=1e-12)
    return gradient * (limit / size).clamp(max=1.0).view(-1, *[1] * (gradient.dim() - 1))


def distillation_loss(x: Tensor, gradient: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""A loss per row whose derivative by x is the gradient (``sum``) or gradient / numel (``mean``).

    .. math:: \mathcal{L} = \tfrac12 \lVert x - \mathrm{sg}(x - g) \rVert^2

    summed or averaged over a row's entries; sg stops the gradient. Returns (N,).
    """
    squares = 0.5 * (x - (x - gradient).detach()) ** 2
    flat = squares.flatten(1)
    return flat.mean(dim=1) if reduction == "mean" else flat.sum(dim=1)
