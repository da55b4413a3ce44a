"""Which photos are done: a result counts if it was made from the same inputs by the same settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from redepth import components
from redepth.batch.records import Photo, Settings
from redepth.exports import RECORD
from redepth.runtime.resume import Identity, first_difference, read_record, why_again


def why_refine(photo: Photo, settings: Settings) -> str | None:
    """Return None if the folder holds this refinement, complete; else why it does not, in words.

    A refinement is done if its record names the same photo, preset, seed and prompt, the same contents of all
    files that it was made from and the same versions of the components, and if its files are as they were
    written. The reason is empty where there is no result, or no photo any more.
    """
    try:
        record = read_record(photo.folder / RECORD)
        if record is None or not os.path.isfile(photo.path):
            return ""
        changes = list(_changed_settings(record, settings))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} is damaged"
    if changes:
        return "; ".join(changes)
    if not record.get("files"):
        return f"{RECORD} names no files"
    named = components.named_files(settings.preset, photo.path)
    identity = identity_of(photo.with_hashes(), settings, named)
    return why_again(record, identity, photo.folder) or None


def _changed_settings(record: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    if record["partial"]:
        yield "it was ended early"
    if failed := record.get("write_errors"):
        yield f"{', '.join(failed)} could not be written"
    stored, preset = _decides_maps(record["preset"]), _decides_maps(settings.preset.model_dump(mode="json"))
    if stored != preset:
        stored = _decides_maps(components.as_resolved_now(record["preset"]))
    if stored != preset:
        yield f"another preset ({first_difference(stored, preset)})"
    if record["seed"] != settings.seed:
        yield first_difference(record["seed"], settings.seed, "seed")
    if settings.prompt is None:
        if record["prompt_origin"]["from"] == "user":
            yield "the prompt is not given any more"
    elif record["prompt"] != settings.prompt:
        yield "another prompt"


def _decides_maps(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset without what changes no map of a photo."""
    without = {"description", "diagnostics", "adapt", "clip"}
    return {key: value for key, value in preset.items() if key not in without}


def identity_of(
    photo: Photo,
    settings: Settings,
    named: Mapping[str, list[Path]],
    shared: Mapping[str, str] | None = None,
) -> Identity:
    """Return the identity of a refinement.

    Args:
        photo: with its hashes.
        settings: of the batch.
        named: the files that options of components name for the photo.
        shared: hashes that were taken earlier, which count.
    """
    identity = Identity.of(named, settings.versions, **photo.hashes)
    return identity.model_copy(update={"inputs": {**identity.inputs, **(shared or {})}})
