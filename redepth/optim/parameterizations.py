"""Parameterizations: embeddings, decoder, both, all weights, the output map or a correction is learnable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import BatchesDecoders, DepthModel, Features
from redepth.errors import ConfigError, nearest
from redepth.guidance import Adjustment
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
"""Cells along the longer side of the coarsest correction grid, and number of grids: 4 to 64 cells."""


def check_supported(name: str, model: DepthModel | type[DepthModel]) -> None:
    """Raise ConfigError, with the valid names, unless the model or its class supports it."""
    if name not in PARAMETERIZATIONS:
        valid = ", ".join(PARAMETERIZATIONS)
        raise ConfigError(
            f"unknown parameterization '{name}'{nearest(name, PARAMETERIZATIONS)} (valid: {valid})"
        )
    if name not in model.supports:
        title = model.__name__ if isinstance(model, type) else type(model).__name__
        raise ConfigError(
            f"{title} cannot be refined through '{name}'; it supports: {', '.join(sorted(model.supports))}"
        )


def bytes_of_member(name: str, model: DepthModel) -> int:
    """Return how many bytes the network's weights take that one member learns."""
    learns = PARAMETERIZATIONS[name]
    sources = {"decoder": model.decoder_parameters, "encoder": model.encoder_parameters}
    weights = [weight for group, source in sources.items() if group in learns for weight in source().values()]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def correction_grids(height: int, width: int) -> list[tuple[int, int]]:
    """Return the (rows, columns) of the correction grids of a map, coarse to fine, square cells.

    The longer side has `COARSEST` cells in the first of `LEVELS` grids, and twice as many in each next one.
    No side has more cells than pixels or fewer than 2. Of equal grids only one remains.
    """

    def cells(side: int, along_longer: int) -> int:
        return min(max(round(along_longer * side / max(height, width)), 2), side)

    sizes = [COARSEST * 2**level for level in range(LEVELS)]
    grids = [(cells(height, size), cells(width, size)) for size in sizes]
    return list(dict.fromkeys(grids))


def corrected(initial: Tensor, grids: Sequence[Tensor]) -> Tensor:
    r"""Return a map under a coarse-to-fine correction, which is the identity at 0 and keeps the sign.

    .. math:: D = D_0 \, \exp\Big( \sum_l \mathrm{up}(g_l) \Big)

    with bilinear upsampling, corners aligned. A factor on disparity is its reciprocal on depth, so the
    correction means the same for both. A value of 0, such as the disparity of the sky, stays 0.

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
    """The learnable state of a group of members; row i of every output belongs to member i.

    All parameters are batched over the members, so that the optimizer handles few tensors. Network weights
    have the members as their first axis. A decoder runs with these weights at once if the depth model can
    (`contracts.BatchesDecoders`), else member by member, as encoders always do.

    Args:
        name: one of `PARAMETERIZATIONS`.
        model: the shared depth model.
        image: (1,3,H,W) photo at network size.
        features: the encoder's features of it, batch 1.
        initial: (1,1,H,W) raw output of them, divided by ``unit``.
        members: number of rows.
        unit: the divisor of the model's raw outputs.
        streams: number of CUDA streams for decoders that run member by member.
        adjustment: brings the raw output, in the unit, to the scale of a clip; None changes nothing.
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
        adjustment: Adjustment | None = None,
    ) -> None:
        check_supported(name, model)
        self.learns = PARAMETERIZATIONS[name]
        self.members = members
        self._unit = unit
        self._adjustment = adjustment
        # The backward pass frees the encoder's outputs while other streams may still read them. Parameters
        # and fixed features stay allocated.
        self._streams = SideStreams(image.device, 1 if "encoder" in self.learns else streams)
        self._model = model
        self._image = image
        self._features = features
        self.offset = nn.Parameter(initial.new_zeros(members, 1, 1, 1))
        self._embeddings = [
            nn.Parameter(_repeat(w, members)) for w in features.maps if "embeddings" in self.learns
        ]
        self._depth = [nn.Parameter(_repeat(initial, members))] if "depth" in self.learns else []
        self._initial = initial
        sizes = correction_grids(*initial.shape[-2:]) if "correction" in self.learns else []
        self._correction = [nn.Parameter(initial.new_zeros(members, 1, *size)) for size in sizes]
        self._decoder = self._copies("decoder", model.decoder_parameters)
        self._encoder = self._copies("encoder", model.encoder_parameters)

    def _copies(self, group: str, source: Callable[[], dict[str, Tensor]]) -> dict[str, nn.Parameter]:
        """Return name -> (members, ...), where each row is a copy in the memory layout of the original."""
        weights = source() if group in self.learns else {}
        copies = {}
        for name, weight in weights.items():
            strides = (weight.numel(), *torch.empty_like(weight).stride())
            rows = weight.new_empty_strided((self.members, *weight.shape), strides)
            copies[name] = nn.Parameter(rows.copy_(weight.detach()))
        return copies

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the learnable parameters by group name, the scale offset included."""
        groups = {
            "offset": [self.offset],
            "depth": self._depth,
            "correction": self._correction,
            "embeddings": self._embeddings,
            "decoder": list(self._decoder.values()),
            "encoder": list(self._encoder.values()),
        }
        return {name: params for name, params in groups.items() if params}

    def raw(self) -> Tensor:
        """Return the members' current raw outputs in the unit, (members, 1, H, W)."""
        if self._depth:
            return self._depth[0].clamp(min=0.0)
        if self._correction:
            return corrected(self._initial, self._correction)
        raw = self._decoded() / self._unit
        return raw if self._adjustment is None else self._adjustment(raw)

    def learned(self) -> dict[str, Tensor]:
        """Return a copy of what does not belong to one photo: the weights, the correction, the offset."""
        return {name: parameter.detach().clone() for name, parameter in self._lasting().items()}

    @torch.no_grad()
    def adopt(self, learned: Mapping[str, Tensor]) -> None:
        """Go on from what `learned` returned on another frame of the same size."""
        for name, parameter in self._lasting().items():
            parameter.copy_(learned[name])

    def _lasting(self) -> dict[str, nn.Parameter]:
        return {
            "offset": self.offset,
            **{f"correction.{level}": grid for level, grid in enumerate(self._correction)},
            **{f"decoder.{name}": weight for name, weight in self._decoder.items()},
            **{f"encoder.{name}": weight for name, weight in self._encoder.items()},
        }

    def _decoded(self) -> Tensor:
        if not self._decoder:
            return self._model.decode(self._features_of(self._embeddings))
        encoded = [self._model.encode(self._image, weights) for weights in _by_member(self._encoder)]
        if isinstance(self._model, BatchesDecoders) and self._model.batches_decoders:
            rows = _joined(encoded) if encoded else self._feature_rows()
            return self._model.decode(rows, self._decoder)
        if not encoded:
            maps = [w.split(1) for w in self._embeddings]
            encoded = [self._features_of([w[i] for w in maps]) for i in range(self.members)]
        calls = [
            partial(self._model.decode, features, weights)
            for features, weights in zip(encoded, _by_member(self._decoder), strict=True)
        ]
        return torch.cat(self._streams.run(calls))

    def _features_of(self, maps: Sequence[Tensor]) -> Features:
        return self._features.with_maps(maps) if maps else self._features

    def _feature_rows(self) -> Features:
        """Return features with a row for each member: learned ones, or the same for all."""
        shared = (w.expand(self.members, *w.shape[1:]) for w in self._features.maps)
        return self._features.with_maps(self._embeddings or tuple(shared))


def _joined(encoded: Sequence[Features]) -> Features:
    """Return the features of several encoders as rows of one record."""
    maps = tuple(torch.cat(rows) for rows in zip(*(f.maps for f in encoded), strict=True))
    constants = tuple(torch.cat(rows) for rows in zip(*(f.constants for f in encoded), strict=True))
    return replace(encoded[0], maps=maps, constants=constants)


def _by_member(weights: dict[str, nn.Parameter]) -> list[dict[str, Tensor]]:
    """Return each member's weights by name. `unbind` makes the backward pass stack the gradients once."""
    rows = zip(*(weight.unbind() for weight in weights.values()), strict=True)
    return [dict(zip(weights, row, strict=True)) for row in rows]


def _repeat(values: Tensor, members: int) -> Tensor:
    return values.detach().expand(members, *values.shape[1:]).clone()
