"""The arms of a generic prior: told a caption of the scene and never the photo, as the paper's is."""

from __future__ import annotations

from redepth.config import Preset
from redepth.experiments.arms import NO_PRIOR, RANDOM_WEIGHTS, Arm, foreign_checkpoint

RE_LIGHTING = "re-lighting"
"""The preset's own prior, which the others are compared with."""

GUIDANCE = (1.0, 3.0, 7.5, 15.0, 50.0)
RULES = ("csd", "nfsd", "sdi", "dds", "sds-bridge")
RULE_GUIDANCE = 7.5
NOISE = {"low noise": (0.02, 0.5), "high noise": (0.5, 0.98)}


def generic_arms(preset: Preset) -> list[Arm]:
    """Return the preset's prior, and captioned ones by guidance, score rule, noise and what they learned.

    ``guidance G`` is sds at the preset's noise levels. The rules have guidance 7.5, which only scales csd and
    sds-bridge. Low and high noise are sds at guidance 7.5, and so are the priors of other knowledge.
    """
    foreign = foreign_checkpoint(preset.prior.name)

    def captioned(name: str, *changes: str, checkpoint: str = "captioned-prior", extra: bool = False) -> Arm:
        overrides = (
            f"prior.checkpoint=embedded:{checkpoint}",
            "prior.revision=null",
            "prior.condition_on=prompt",
            *changes,
        )
        return Arm(name, overrides, obstacle=foreign, extra=extra)

    def guided(scale: float) -> str:
        return f"prior.guidance_scale={scale:g}"

    usual = guided(RULE_GUIDANCE)
    return [
        Arm(RE_LIGHTING),
        *(captioned(f"guidance {scale:g}", guided(scale)) for scale in GUIDANCE),
        *(captioned(rule, f"prior.score={rule}", usual) for rule in RULES),
        *(
            captioned(name, f"prior.t_min={low}", f"prior.t_max={high}", usual)
            for name, (low, high) in NOISE.items()
        ),
        captioned("told the light", "prior.condition_on=prompt+light", usual),
        captioned("told nothing", "prior.condition_on=nothing", guided(1)),
        captioned("of posters", usual, checkpoint="captioned-poster-prior"),
        captioned("random weights", *RANDOM_WEIGHTS, usual),
        Arm("smoothness only", NO_PRIOR),
        Arm("oracle", teacher=1.0),
    ]
