"""What is learnable at test time: embeddings, decoder, both, everything, or the output map itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from redepth.contracts import DepthModel, Features
from redepth.errors import ConfigError, nearest

PARAMETERIZATIONS: dict[str, frozenset[str]] = {
    "embeddings+decoder": frozenset({"embeddings", "decoder"}),
    "embeddings": frozenset({"embeddings"}),
    "decoder": frozenset({"decoder"}),
    "full": frozenset({"encoder", "decoder"}),
    "depth": frozenset({"depth"}),
}
"""Name -> the groups of parameters it makes learnable."""


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


class Parameterization:
    """The learnable state of a group of members; row i of every output is member i's.

    Embeddings, the output map and the scale offset are batched over the members; network weights are one
    copy per member, because a convolution has no batch axis for its weights.

    Args:
        name: one of `PARAMETERIZATIONS`.
        model: the shared depth model.
        image: (1,3,H,W) photo at network size.
        features: the encoder's features of it, batch 1.
        initial: (1,1,H,W) raw output of them.
        members: rows.
    """

    def __init__(
        self,
        name: str,
        model: DepthModel,
        image: Tensor,
        features: Features,
        initial: Tensor,
        members: int,
    ) -> None:
        check_supported(name, model)
        self.learns = PARAMETERIZATIONS[name]
        self.members = members
        self._model = model
        self._image = image
        self._features = features
        self.offset = nn.Parameter(initial.new_zeros(members, 1, 1, 1))
        self._embeddings = [
            nn.Parameter(_repeat(w, members)) for w in features.maps if "embeddings" in self.learns
        ]
        self._depth = [nn.Parameter(_repeat(initial, members)) for _ in self.learns & {"depth"}]
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
        if self._depth:
            found["depth"] = self._depth
        if self._embeddings:
            found["embeddings"] = self._embeddings
        for name, copies in (("decoder", self._decoders), ("encoder", self._encoders)):
            if copies:
                found[name] = [p for copy in copies for p in copy.values()]
        return found

    def raw(self) -> Tensor:
        """Return the members' current raw outputs, (members, 1, H, W)."""
        if self._depth:
            return self._depth[0].clamp(min=0.0)
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
