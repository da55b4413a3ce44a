"""The section of a preset about adapting its depth model to many photos."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from redepth.config.section import Section

AdaptMethod = Literal["distil", "score"]
"""How a depth model learns from photos without labels."""

Learned = Literal["decoder", "low-rank", "all"]
"""The weights of a depth model that are learned."""

TrainingPrecision = Literal["auto", "float32", "bfloat16"]

Share = Annotated[float, Field(ge=0, le=1)]


class Trust(Section):
    """Which refined photos, and which of their pixels, the method ``distil`` learns from.

    Held-out photos are chosen by the same rules. Refinements are stored, so another choice refines nothing
    anew.

    Attributes:
        flagged: whether photos whose diagnostics show a failure are learned from, too. The preset's
            thresholds decide, also where they are not calibrated for it (`diagnostics.calibrated_for`); they
            may then leave out too many photos or too few.
        tolerance: standard deviation of the members' answers, each blended, at which a pixel counts half, as
            a share of the range of the photo's initial map. Of a single member all pixels count.
        least: photos whose mean trust is below this share are left out.
    """

    flagged: bool = False
    tolerance: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    least: Share = 0.2


class Anchor(Section):
    """What keeps the adapted model near the one that it started from.

    Attributes:
        weight: of the change of the low frequencies on the photos that are learned from (`losses.drift`).
        scale: sigma of the Gaussian that defines them, as a share of the shorter side.
        keep_weight: of any change on the photos of ``--keep``, on which the model shall stay as it is.
        keep_photos: number of these photos in a step.
    """

    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    scale: Annotated[float, Field(ge=1e-4, le=1)] = 0.2
    keep_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    keep_photos: Annotated[int, Field(ge=1, le=4096)] = 4


class Adapt(Section):
    """How the depth model learns from many photos without labels (``redepth adapt``, docs/adapt.md).

    Attributes:
        method: ``distil`` refines each photo and learns from what can be trusted; ``score`` minimises the
            loss of refinement itself, averaged over the photos.
        learns: the ``decoder``, ``low-rank`` adapters of all layers (LoRA), or ``all`` weights.
        rank: of the low-rank adapters.
        steps: number of steps at most.
        batch: number of photos in a step, over all processes.
        learning_rate: of AdamW at its peak.
        warm_up: number of steps in which the rate rises to its peak; then it falls to 0 as a cosine.
        weight_decay: weight decay of AdamW.
        clip_norm: largest norm of the gradient.
        ema: decay of the exponential moving average of the weights, which is the result.
        precision: of the depth model's forward pass: ``float32``, ``bfloat16``, or what suits the device.
        held_out: share of the photos that is not learned from and decides when to stop.
        most_held_out: number of held-out photos at most.
        validate_every: number of steps between two validations.
        patience: number of validations without improvement after which the training stops.
        loaders: number of processes that read photos; 0 reads them in the training process.
        trust: which refined photos ``distil`` learns from.
        anchor: what keeps the model near its start.
    """

    method: AdaptMethod = "distil"
    learns: Learned = "all"
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 400
    batch: Annotated[int, Field(ge=1, le=65_536)] = 8
    learning_rate: Annotated[float, Field(ge=1e-12, le=1)] = 1e-5
    warm_up: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: TrainingPrecision = "auto"
    held_out: Share = 0.1
    most_held_out: Annotated[int, Field(ge=1, le=100_000)] = 16
    validate_every: Annotated[int, Field(ge=1, le=1_000_000)] = 25
    patience: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    loaders: Annotated[int, Field(ge=0, le=256)] = 0
    trust: Trust = Trust()
    anchor: Anchor = Anchor()
