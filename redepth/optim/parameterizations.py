"""What is learnable at test time: embeddings, decoder, both, everything, the output map or a correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import BatchesDecoders, DepthModel, Features
from redepth.errors import ConfigError, nearest
from redepth.runtime.device import SideStreams

PARAMETERIZATIONS: dict[str, frozenset[str]] = {
    "embeddings+decoder": frozenset({"embeddings", "decoder"}),
    "embeddings": frozenset({"embeddings"}),
    "decoder": frozenset({"decoder"}),
    "full": frozenset({"encoder", "decoder"}),
    "depth": frozenset({"depth"}),
    "low-rank": frozenset({"correction"}),
}
"""Name -> the groups of parameters it makes learnable."""

COARSEST, LEVELS = 4, 5
"""Cells along the longer side of the coarsest correction grid, and how many grids: 4, 8, 16, 32, 64 cells."""


def check_supported(name: str, model: DepthModel) -> None:
    """Raise ConfigError, with what is possible, unless the model can be refined in this way."""
    if name not in PARAMETERIZATIONS:
        valid = ", ".join(PARAMETERIZATIONS)
        raise ConfigError(
            f"unknown parameterization '{name}'{nearest(name, PARAMETERIZATIONS)} (valid: {valid})"
        )
    if name not in model.supports:
        raise ConfigError(
            f"{type(model).__name__} cannot be refined through '{name}'; "
            f"it supports: {', '.join(sorted(model.supports))}"
        )


def correction_grids(height: int, width: int) -> list[tuple[int, int]]:
    """Return the (rows, columns) of the correction grids of a map, coarse to fine, square cells.

    The longer side has `COARSEST` cells, then twice as many, `LEVELS` times; no side has more cells than
    pixels or fewer than 2, and grids that become equal by that are one.
    """
    longer = max(height, width)
    sides = [COARSEST * 2**level for level in range(LEVELS)]
    found = [
        (min(max(round(n * height / longer), 2), height), min(max(round(n * width / longer), 2), width))
        for n in sides
    ]
    return list(dict.fromkeys(found))


def corrected(initial: Tensor, grids: Sequence[Tensor]) -> Tensor:
    r"""Return a map under a coarse-to-fine correction that starts at none and keeps its sign.

    .. math:: D = D_0 \, \exp\Big( \sum_l \mathrm{up}(g_l) \Big)

    with bilinear upsampling, corners aligned. A factor on disparity is its reciprocal on depth, so the
    correction means the same for both; what is 0, such as the disparity of the sky, stays 0.

    Args:
        initial: D_0, (1, 1, H, W).
        grids: g_l, (B, 1, rows, columns) each, 0 for no correction.

    Returns:
        (B, 1, H, W).
    """
    size = initial.shape[-2:]
    ups = [F.interpolate(g, size=size, mode="bilinear", align_corners=True) for g in grids]
    return initial * torch.stack(ups).sum(dim=0).exp()


class Parameterization:
    """The learnable state of a group of members; row i of every output is member i's.

    All of it is batched over the members, so that an optimizer has few tensors to go through. Network
    weights have the members as a further axis in front. The depth model says whether its decoder takes them
    so (`contracts.BatchesDecoders`); one that does not runs member by member, as encoders always do.

    Args:
        name: one of `PARAMETERIZATIONS`.
        model: the shared depth model.
        image: (1,3,H,W) photo at network size.
        features: the encoder's features of it, batch 1.
        initial: (1,1,H,W) raw output of them, divided by ``unit``.
        members: rows.
        unit: what the model's raw outputs are divided by.
        streams: of a GPU, in which members' decoders run beside each other where they run one by one.
    """

    def __init__(
        self,
        name: str,
        model: DepthModel,
        image: Tensor,
        features: Features,
        initial: Tensor,
        members: int,
        unit: float = 1.0,
        streams: int = 1,
    ) -> None:
        check_supported(name, model)
        self.learns = PARAMETERIZATIONS[name]
        self.members = members
        self._unit = unit
        # What an encoder gives is freed on the way back while other streams may still read it; what is
        # learned directly, or stays, is not.
        self._streams = SideStreams(image.device, 1 if "encoder" in self.learns else streams)
        self._model = model
        self._image = image
        self._features = features
        self.offset = nn.Parameter(initial.new_zeros(members, 1, 1, 1))
        self._embeddings = [
            nn.Parameter(_repeat(w, members)) for w in features.maps if "embeddings" in self.learns
        ]
        self._depth = [nn.Parameter(_repeat(initial, members)) for _ in self.learns & {"depth"}]
        self._initial = initial
        sizes = correction_grids(*initial.shape[-2:]) if "correction" in self.learns else []
        self._correction = [nn.Parameter(initial.new_zeros(members, 1, *size)) for size in sizes]
        self._decoder = self._copies("decoder", model.decoder_parameters)
        self._encoder = self._copies("encoder", model.encoder_parameters)

    def _copies(self, group: str, source: Callable[[], dict[str, Tensor]]) -> dict[str, nn.Parameter]:
        """Return name -> (members, ...): every row is a copy in the memory layout of the original."""
        weights = source() if group in self.learns else {}
        copies = {}
        for name, weight in weights.items():
            strides = (weight.numel(), *torch.empty_like(weight).stride())
            rows = weight.new_empty_strided((self.members, *weight.shape), strides)
            copies[name] = nn.Parameter(rows.copy_(weight.detach()))
        return copies

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the learnable parameters by group name, the scale offset included."""
        found: dict[str, list[nn.Parameter]] = {"offset": [self.offset]}
        batched = {"depth": self._depth, "correction": self._correction, "embeddings": self._embeddings}
        found |= {name: params for name, params in batched.items() if params}
        for name, weights in (("decoder", self._decoder), ("encoder", self._encoder)):
            if weights:
                found[name] = list(weights.values())
        return found

    def raw(self) -> Tensor:
        """Return the members' current raw outputs in the unit, (members, 1, H, W)."""
        if self._depth:
            return self._depth[0].clamp(min=0.0)
        if self._correction:
            return corrected(self._initial, self._correction)
        return self._decoded() / self._unit

    def _decoded(self) -> Tensor:
        if not self._decoder:
            return self._model.decode(self._features_of(self._embeddings))
        encoded = [self._model.encode(self._image, own) for own in _by_member(self._encoder)]
        if isinstance(self._model, BatchesDecoders) and self._model.batches_decoders:
            return self._model.decode(_beside(encoded) if encoded else self._each(), self._decoder)
        if not encoded:
            maps = [w.split(1) for w in self._embeddings]
            encoded = [self._features_of([w[i] for w in maps]) for i in range(self.members)]
        decoders = _by_member(self._decoder)
        turns = zip(encoded, decoders, strict=True)
        return torch.cat(self._streams.run([partial(self._model.decode, *own) for own in turns]))

    def _features_of(self, maps: Sequence[Tensor]) -> Features:
        return self._features.with_maps(maps) if maps else self._features

    def _each(self) -> Features:
        """Return features with a row for each member, learned or not."""
        shared = (w.expand(self.members, *w.shape[1:]) for w in self._features.maps)
        return self._features.with_maps(self._embeddings or tuple(shared))


def _beside(encoded: Sequence[Features]) -> Features:
    """Return the features of several encoders as rows of one record."""
    maps, constants = (
        tuple(torch.cat(rows) for rows in zip(*parts, strict=True))
        for parts in ([f.maps for f in encoded], [f.constants for f in encoded])
    )
    return replace(encoded[0], maps=maps, constants=constants)


def _by_member(weights: dict[str, nn.Parameter]) -> list[dict[str, Tensor]]:
    """Return each member's weights by name; on the way back, gradients are stacked once."""
    rows = zip(*(weight.unbind() for weight in weights.values()), strict=True)
    return [dict(zip(weights, row, strict=True)) for row in rows]


def _repeat(values: Tensor, members: int) -> Tensor:
    return values.detach().expand(members, *values.shape[1:]).clone()
