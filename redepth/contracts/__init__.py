"""The protocols DepthModel, Renderer, Prior and Objective, and the records that pass between them.

The data flow, for a batch whose rows are the members of an ensemble::

    image (1,3,H,W) sRGB [0,1] -> DepthModel.encode -> Features -> DepthModel.decode -> raw (B,1,H,W)
      -> ops.geometry -> relative depth (B,1,H,W) -> Renderer -> relit (B,L,3,H,W)
      -> Prior -> loss (B*L,)

All random numbers come from ``Renderer.draw`` and ``Prior.draw``: a step is a deterministic function of its
`StepDraws`, so a run can be recorded, replayed, split and joined.

Light directions, normals and view vectors are in one frame everywhere: x right, y up, z towards the viewer.
"""

from __future__ import annotations

from redepth.contracts.abilities import (
    Adaptable,
    BatchesDecoders,
    Execution,
    FollowsCamera,
    FollowsPhoto,
    GoesAround,
    HasBackends,
    HasNeeds,
    HoldsMemory,
    LearnsByMember,
    LeavesHoles,
    LightsAlbedo,
    NeedsDevice,
    PredictsCamera,
    TakesMap,
    Tunable,
    Upcasts,
    UsesCamera,
)
from redepth.contracts.draws import (
    Draw,
    Illumination,
    Material,
    Noise,
    StepDraws,
)
from redepth.contracts.families import (
    Condition,
    DepthModel,
    Features,
    Invariance,
    Objective,
    Prior,
    Renderer,
    Scale,
    Surface,
)
from redepth.literals import Predicts

__all__ = [
    "Adaptable",
    "BatchesDecoders",
    "Condition",
    "DepthModel",
    "Draw",
    "Execution",
    "Features",
    "FollowsCamera",
    "FollowsPhoto",
    "GoesAround",
    "HasBackends",
    "HasNeeds",
    "HoldsMemory",
    "Illumination",
    "Invariance",
    "LearnsByMember",
    "LeavesHoles",
    "LightsAlbedo",
    "Material",
    "NeedsDevice",
    "Noise",
    "Objective",
    "Predicts",
    "PredictsCamera",
    "Prior",
    "Renderer",
    "Scale",
    "StepDraws",
    "Surface",
    "TakesMap",
    "Tunable",
    "Upcasts",
    "UsesCamera",
]
