"""The published depth models by short name: class, checkpoint, licence. Plain data: it imports no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

APACHE, MIT, NC, RAIL = "Apache-2.0", "MIT", "CC-BY-NC-4.0", "CreativeML OpenRAIL++-M"

# The metric checkpoints' model cards name no licence, or not their family's: see docs/depth_models.md.
FAMILY_APACHE, FAMILY_NC = f"{APACHE} (the family's)", f"{NC} (the family's)"


DISPARITY, DEPTH, METRES = "disparity", "depth", "depth in metres"


@dataclass(frozen=True)
class Published:
    """One depth model under its short name.

    Attributes:
        name: of the component.
        target: ``module:Class`` under ``redepth.depth_models``.
        what: the model in words, for the listing.
        predicts: its output in words, for the listing.
        checkpoint: hub id; empty where there are no weights.
        licence: of the weights.
        millions: number of parameters, in millions.
        options: further options that replace defaults of the class.
    """

    name: str
    target: str
    what: str
    predicts: str
    checkpoint: str = ""
    licence: str = ""
    millions: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The model and its output, as one line."""
        return f"{self.what}: {self.predicts}"

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that replace defaults of the class."""
        return ({"checkpoint": self.checkpoint} if self.checkpoint else {}) | dict(self.options)


_DA, _DPT = "depth_anything:DepthAnything", "dpt:DPT"
_ZOE, _GLPN = "zoedepth:ZoeDepth", "glpn:GLPN"
_MOGE = "moge:MoGe"
_PROMPT, _MARIGOLD = "prompt_depth_anything:PromptDepthAnything", "marigold:Marigold"
_LOTUS = "lotus:Lotus"


def _v1(scale: str, millions: float) -> Published:
    name, checkpoint = f"depth-anything-v1-{scale}", f"LiheYoung/depth-anything-{scale}-hf"
    return Published(name, _DA, f"Depth Anything V1 {scale.title()}", DISPARITY, checkpoint, APACHE, millions)


def _v2(scale: str, licence: str, millions: float) -> Published:
    name, checkpoint = f"depth-anything-v2-{scale.lower()}", f"depth-anything/Depth-Anything-V2-{scale}-hf"
    return Published(name, _DA, f"Depth Anything V2 {scale}", DISPARITY, checkpoint, licence, millions)


def _metric(scene: str, scale: str, licence: str, millions: float) -> Published:
    name = f"depth-anything-v2-metric-{scene}-{scale}".lower()
    checkpoint = f"depth-anything/Depth-Anything-V2-Metric-{scene}-{scale}-hf"
    what = f"Depth Anything V2 {scale}, {scene.lower()} scenes"
    return Published(name, _DA, what, METRES, checkpoint, licence, millions)


def _any_view(scale: str, checkpoint: str, licence: str, millions: float) -> Published:
    name, target = f"depth-anything-3-{scale}", "depth_anything_3:DepthAnything3AnyView"
    what = f"Depth Anything 3 {scale.title()}, which estimates the field of view too"
    return Published(name, target, what, DEPTH, f"depth-anything/{checkpoint}", licence, millions)


def _midas(name: str, encoder: str, licence: str, millions: float) -> Published:
    what = f"MiDaS 3.x, {encoder}"
    return Published(f"dpt-{name}", _DPT, what, DISPARITY, f"Intel/dpt-{name}", licence, millions)


def _moge(name: str, what: str, predicts: str, checkpoint: str, licence: str, millions: float) -> Published:
    options = {"refine_steps": 3} if name.startswith("moge-3") else {}
    target = f"Ruicheng/{checkpoint}"
    return Published(name, _MOGE, f"{what} (package moge)", predicts, target, licence, millions, options)


CATALOG = (
    Published(
        "depth-anything",
        _DA,
        "Depth Anything V1, V2, relative or metric (transformers); default V2 Small",
        DISPARITY,
        "depth-anything/Depth-Anything-V2-Small-hf",
        APACHE,
        24.8,
    ),
    _v1("small", 24.8),
    _v1("base", 97.5),
    _v1("large", 335.3),
    _v2("Small", APACHE, 24.8),
    _v2("Base", NC, 97.5),
    _v2("Large", NC, 335.3),
    _metric("Indoor", "Small", FAMILY_APACHE, 24.8),
    _metric("Indoor", "Base", FAMILY_NC, 97.5),
    _metric("Indoor", "Large", FAMILY_NC, 335.3),
    _metric("Outdoor", "Small", FAMILY_APACHE, 24.8),
    _metric("Outdoor", "Base", FAMILY_NC, 97.5),
    _metric("Outdoor", "Large", FAMILY_NC, 335.3),
    Published(
        "depth-anything-3-mono",
        "depth_anything_3:DepthAnything3",
        "Depth Anything 3 Mono Large (package depth-anything-3)",
        DEPTH,
        "depth-anything/DA3MONO-LARGE",
        APACHE,
        350,
    ),
    Published(
        "depth-anything-3-metric",
        "depth_anything_3:DepthAnything3Metric",
        "Depth Anything 3 Metric Large (package depth-anything-3)",
        "depth, in metres if the camera is given",
        "depth-anything/DA3METRIC-LARGE",
        APACHE,
        334.2,
    ),
    _any_view("small", "DA3-SMALL", APACHE, 34.3),
    _any_view("base", "DA3-BASE", APACHE, 135.4),
    _any_view("large", "DA3-LARGE-1.1", NC, 410.9),
    _any_view("giant", "DA3-GIANT-1.1", NC, 1355.7),
    Published(
        "dpt", _DPT, "MiDaS 3.x (transformers); default ViT-L", DISPARITY, "Intel/dpt-large", APACHE, 344
    ),
    _midas("large", "ViT-L", APACHE, 344),
    Published(
        "dpt-hybrid",
        _DPT,
        "MiDaS 3.x, ResNet-50 and ViT-B",
        DISPARITY,
        "Intel/dpt-hybrid-midas",
        APACHE,
        123,
        {"revision": "refs/pr/5"},  # the branch that has the weights as safetensors
    ),
    _midas("beit-base-384", "BEiT-B", MIT, 112),
    _midas("beit-large-384", "BEiT-L", MIT, 344),
    _midas("beit-large-512", "BEiT-L", MIT, 345),
    _midas("swinv2-tiny-256", "Swin V2-T", MIT, 42),
    _midas("swinv2-base-384", "Swin V2-B", MIT, 102),
    _midas("swinv2-large-384", "Swin V2-L", MIT, 213),
    Published(
        "zoedepth",
        _ZOE,
        "ZoeDepth with a head for rooms and one for roads (transformers)",
        METRES,
        "Intel/zoedepth-nyu-kitti",
        MIT,
        345,
    ),
    Published("zoedepth-nyu", _ZOE, "ZoeDepth, rooms", METRES, "Intel/zoedepth-nyu", MIT, 345),
    Published("zoedepth-kitti", _ZOE, "ZoeDepth, roads", METRES, "Intel/zoedepth-kitti", MIT, 345),
    Published("glpn", _GLPN, "GLPN, rooms (transformers)", METRES, "vinvino02/glpn-nyu", APACHE, 61),
    Published(
        "glpn-kitti",
        _GLPN,
        "GLPN, roads",
        METRES,
        "vinvino02/glpn-kitti",
        APACHE,
        61,
        {"longer_side": 1216},
    ),
    Published(
        "depth-pro",
        "depth_pro:DepthPro",
        "Depth Pro, which estimates the focal length too (transformers)",
        "disparity in 1 / metres",
        "apple/DepthPro-hf",
        "Apple AMLR (research only)",
        952,
    ),
    _moge("moge-2", "MoGe-2 Large with normals", METRES, "moge-2-vitl-normal", MIT, 331),
    _moge("moge-2-base", "MoGe-2 Base with normals", METRES, "moge-2-vitb-normal", MIT, 104),
    _moge("moge-2-small", "MoGe-2 Small with normals", METRES, "moge-2-vits-normal", MIT, 35),
    _moge("moge-2-without-normals", "MoGe-2 Large", METRES, "moge-2-vitl", MIT, 326),
    _moge("moge-1", "MoGe-1 Large", "depth up to scale", "moge-vitl", APACHE, 314),
    _moge("moge-3", "MoGe-3 Large, for a GPU", METRES, "moge-3-vitl", MIT, 370),
    _moge("moge-3-giant", "MoGe-3 Giant, for a GPU", METRES, "moge-3-vitg", MIT, 1250),
    Published(
        "prompt-depth-anything",
        _PROMPT,
        "Prompt Depth Anything Small (transformers)",
        "depth, in metres if a coarse depth is its prompt",
        "depth-anything/prompt-depth-anything-vits-hf",
        APACHE,
        25,
    ),
    Published(
        "prompt-depth-anything-large",
        _PROMPT,
        "Prompt Depth Anything Large",
        "depth, in metres if a coarse depth is its prompt",
        "depth-anything/prompt-depth-anything-vitl-hf",
        APACHE,
        340,
    ),
    Published(
        "marigold",
        _MARIGOLD,
        "Marigold v1.1, a diffusion model (diffusers)",
        DEPTH,
        "prs-eth/marigold-depth-v1-1",
        RAIL,
        1290,
    ),
    Published(
        "marigold-lcm",
        _MARIGOLD,
        "Marigold LCM v1.0, for few steps",
        DEPTH,
        "prs-eth/marigold-depth-lcm-v1-0",
        APACHE,
        1290,
    ),
    Published(
        "e2e-ft",
        "one_step:E2EFT",
        "Marigold fine-tuned end to end, in one step without noise (diffusers)",
        DEPTH,
        "GonzaloMG/marigold-e2e-ft-depth",
        APACHE,
        1290,
    ),
    Published(
        "lotus",
        _LOTUS,
        "Lotus G v2.1, generative, in one step (diffusers)",
        DISPARITY,
        "jingheya/lotus-depth-g-v2-1-disparity",
        APACHE,
        1290,
    ),
    Published(
        "lotus-d",
        _LOTUS,
        "Lotus D v2.0, discriminative, in one step without noise",
        DISPARITY,
        "jingheya/lotus-depth-d-v2-0-disparity",
        APACHE,
        1290,
    ),
    Published(
        "precomputed",
        "precomputed:Precomputed",
        "a map of any other tool from a file (npy, npz, pfm, exr, 16-bit png, tiff)",
        "disparity, depth or depth in metres",
    ),
)


def hub_id(checkpoint: str) -> str:
    """Return the hub id of a short name, anything else unchanged."""
    known = {row.name: row.checkpoint for row in CATALOG if row.checkpoint}
    return known.get(checkpoint, checkpoint)
