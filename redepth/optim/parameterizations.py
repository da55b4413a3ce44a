"""What is learnable at test time: embeddings, decoder, both, everything, the output map or a correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import DepthModel, Features
from redepth.errors import ConfigError, nearest

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

    Embeddings, the output map, the correction and the scale offset are batched over the members; network
    weights are one copy per member, because a convolution has no batch axis for its weights.

    Args:
        name: one of `PARAMETERIZATIONS`.
        model: the shared depth model.
        image: (1,3,H,W) photo at network size.
        features: the encoder's features of it, batch 1.
        initial: (1,1,H,W) raw output of them, divided by ``unit``.
        members: rows.
        unit: what the model's raw outputs are divided by.
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
    ) -> None:
        check_supported(name, model)
        self.learns = PARAMETERIZATIONS[name]
        self.members = members
        self._unit = unit
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
        self._decoders = self._copies("decoder", model.decoder_parameters)
        self._encoders = self._copies("encoder", model.encoder_parameters)

    def _copies(self, group: str, source: Callable[[], dict[str, Tensor]]) -> list[dict[str, nn.Parameter]]:
        if group not in self.learns:
            return []
        weights = source()
        return [
            {k: nn.Parameter(v.detach().clone()) for k, v in weights.items()} for _ in range(self.members)
        ]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the learnable parameters by group name, the scale offset included."""
        found: dict[str, list[nn.Parameter]] = {"offset": [self.offset]}
        batched = {"depth": self._depth, "correction": self._correction, "embeddings": self._embeddings}
        found |= {name: params for name, params in batched.items() if params}
        for name, copies in (("decoder", self._decoders), ("encoder", self._encoders)):
            if copies:
                found[name] = [p for copy in copies for p in copy.values()]
        return found

    def raw(self) -> Tensor:
        """Return the members' current raw outputs in the unit, (members, 1, H, W)."""
        if self._depth:
            return self._depth[0].clamp(min=0.0)
        if self._correction:
            return corrected(self._initial, self._correction)
        return self._decoded() / self._unit

    def _decoded(self) -> Tensor:
        if not self._decoders:
            return self._model.decode(self._member_features(slice(None)))
        rows = [
            self._model.decode(self._member_features(slice(i, i + 1)), self._decoders[i])
            for i in range(self.members)
        ]
        return torch.cat(rows)

    def _member_features(self, rows: slice) -> Features:
        if self._encoders:
            return self._model.encode(self._image, self._encoders[rows.start])
        if self._embeddings:
            return self._features.with_maps([w[rows] for w in self._embeddings])
        return self._features


def _repeat(values: Tensor, members: int) -> Tensor:
    return values.detach().expand(members, *values.shape[1:]).clone()
