"""The adapted model as a checkpoint folder, which ``depth_model.checkpoint`` and transformers read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from redepth import checkpoints, io
from redepth.checkpoints.guard import read_object
from redepth.contracts import Adaptable, DepthModel
from redepth.depth_models.backbone import PREPROCESSOR, Backbone, Preprocessing
from redepth.depth_models.catalog import APACHE, CATALOG, RAIL
from redepth.depth_models.depth_anything import SCALE_KEY
from redepth.errors import OutputError, WeightsError
from redepth.io.markup import parse_yaml

CARD = "README.md"
FILES = ("config.json", "model.safetensors", PREPROCESSOR, CARD)
RECORD = "model.safetensors"
"""The file that makes a checkpoint complete."""

START_KEY = "redepth_start"
"""The entry of the card's metadata that names the first start, so that further adaptations name it, too."""

UNKNOWN_LICENCE = "unknown"
_ON_HUB = {RAIL: "openrail++", "Apple AMLR (research only)": "apple-amlr"}
"""Licences of the catalog that the hub has other names for."""


@dataclass(frozen=True)
class Start:
    """The checkpoint that an adaptation starts from.

    Attributes:
        checkpoint: hub id, ``embedded:NAME``, or the name of a folder without its path. Of a model that was
            adapted before, it is what the first adaptation started from.
        revision: that was asked for.
        commit: on the hub; None elsewhere.
        licence: of its weights, as the hub names licences, or `UNKNOWN_LICENCE`.
        preprocessor: the content of its ``preprocessor_config.json``; None if it has none.
        of_transformers: whether transformers loads its class.
    """

    checkpoint: str
    revision: str | None = None
    commit: str | None = None
    licence: str = UNKNOWN_LICENCE
    preprocessor: Mapping[str, Any] | None = None
    of_transformers: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether it is a repository of the hub."""
        return self.commit is not None


def start_of(model: DepthModel) -> Start:
    """Return what a loaded depth model started from."""
    described = model.describe()
    checkpoint = str(described.get("checkpoint", ""))
    revision, commit = described.get("revision"), described.get("commit")
    if not checkpoint:
        return Start("", revision, commit)
    source = checkpoints.Source(checkpoint, commit or revision, commit)
    of_transformers = bool(getattr(model, "library_class", ""))
    licence, preprocessor = licence_of(source), _json(source, PREPROCESSOR)
    if os.path.isdir(checkpoint):
        first = _front_matter(source).get(START_KEY)
        first = first if isinstance(first, dict) else {}
        # Cards are published: they name no path of this machine.
        checkpoint = str(first.get("checkpoint") or Path(checkpoint).resolve().name)
        revision, commit = None, first.get("commit")
    return Start(checkpoint, revision, commit, licence, preprocessor, of_transformers)


def licence_of(source: checkpoints.Source) -> str:
    """Return the licence of a checkpoint's weights as the hub names it.

    It is from the catalog of depth models, or from the card in the checkpoint's folder.
    """
    if source.checkpoint.startswith(checkpoints.EMBEDDED):
        return APACHE.lower()
    for row in CATALOG:
        if row.checkpoint == source.checkpoint:
            # Some rows say that the licence is the family's.
            return _ON_HUB.get(row.licence, row.licence.partition(" (the family's)")[0].lower())
    return _licence_of_card(source)


def _licence_of_card(source: checkpoints.Source) -> str:
    head = _front_matter(source)
    licence = head.get("license")
    if not isinstance(licence, str) or not licence:
        return UNKNOWN_LICENCE
    # As the card of an adapted model says that it is not known.
    unknown = licence == "other" and head.get("license_name") == UNKNOWN_LICENCE
    return UNKNOWN_LICENCE if unknown else licence


def _front_matter(source: checkpoints.Source) -> dict[str, Any]:
    """Return the metadata of a checkpoint's card; empty if it has none as the hub's are."""
    try:
        head = parse_yaml(io.read_text(source.path() / CARD).split("---\n")[1])
    except Exception:
        return {}
    return head if isinstance(head, dict) else {}


def _json(source: checkpoints.Source, name: str) -> dict[str, Any] | None:
    try:
        return source.json(name) if source.holds(name) else None
    except WeightsError:
        return None


def write_checkpoint(model: DepthModel, start: Start, card: str, folder: Path) -> None:
    """Write a depth model as a checkpoint; an older one in the folder is replaced as a whole.

    Args:
        model: `Adaptable`, with the weights that are written.
        start: what it started from, whose preprocessing is kept.
        card: the model card.
        folder: of the checkpoint.

    Raises:
        OutputError: it cannot be written.
    """
    assert isinstance(model, Adaptable)
    io.require_room(folder, sum(p.numel() * p.element_size() for p in model.network().parameters()))
    try:
        _write(model, start, card, folder)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: cannot be written: {error}; the same command tries again") from error


def _write(model: Adaptable, start: Start, card: str, folder: Path) -> None:
    with io.replaced_folder(folder, FILES, RECORD) as new:
        model.save_checkpoint(new)
        # The library of the weights lets nobody but their owner read them.
        shutil.copymode(new / "config.json", new / RECORD)
        if isinstance(model, Backbone) and not (new / PREPROCESSOR).is_file():
            settings = start.preprocessor or preprocessor_settings(model.preprocessing)
            io.save_json(new / PREPROCESSOR, settings)
        _keep_scale(new / "config.json", getattr(model, "scale", None))
        io.save_text(new / CARD, card)


def _keep_scale(config: Path, scale: object) -> None:
    """Store the relative scale of the raw output, which the checkpoint's own name decided before."""
    if isinstance(scale, int | float) and config.is_file():
        io.save_json(config, read_object(config) | {SCALE_KEY: scale})


def preprocessor_settings(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return a ``preprocessor_config.json`` that says the same, for a checkpoint that has none.

    `Preprocessing.updated` reads it back. transformers knows no rule ``upper_bound``: there it keeps the
    aspect ratio, as under ``minimal``.
    """
    height, width = preprocessing.target
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "keep_aspect_ratio": preprocessing.rule != "stretch",
        "ensure_multiple_of": preprocessing.multiple,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_pad": False,
    }
