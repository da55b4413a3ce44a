"""The model card of an adapted checkpoint: where it is from, how it was made, how to use it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redepth.adaptation.checkpoint import START_KEY, UNKNOWN_LICENCE, Start
from redepth.adaptation.record import Adapted, Job
from redepth.config import preset_names
from redepth.config.units import duration
from redepth.io.markup import dump_yaml

LISTED = 64
"""Most photos whose hashes are listed; of more, one hash of all hashes is given."""

_METHODS = {
    "distil": "Each photo was refined on its own, and the model learned from the refined maps that can be "
    "trusted.",
    "score": "The model learned by the loss of refinement itself, averaged over the photos.",
}
_LEARNS = {
    "decoder": "the decoder",
    "low-rank": "low-rank adapters of all layers, merged into the weights",
    "all": "all weights",
}


_OTHER_SIZE = (
    "The start had no `preprocessor_config.json`, so redepth wrote one. transformers may choose another "
    "size for a photo than redepth does, and its prediction then differs a little."
)


def model_card(job: Job, result: Adapted, start: Start, scale: float | str | None) -> str:
    """Return the card as Markdown, with the metadata of the Hugging Face hub in front.

    It names no photo: hashes alone.

    Args:
        job: what was adapted, and how.
        result: of the adaptation.
        start: the checkpoint that it started from.
        scale: ``depth_model.scale`` of the starting model.
    """
    sections = [
        _front_matter(start),
        f"# {_title(start)}, adapted to {result.training} photos",
        _origin(job, result, start),
        f"## Use\n\n{_use(job, start, scale)}",
        f"## Measured\n\n{_measured(result)}",
        f"## Photos\n\n{_photos(job, result)}",
        f"## Settings\n\nSeed {job.seed}. The preset:\n\n```yaml\n{_settings(job).strip()}\n```",
        f"## Versions\n\n{_versions(job.identity.versions)}",
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def hash_of_hashes(photos: Mapping[str, str]) -> str:
    """Return one SHA-256 for a set of photos: of their own ones, sorted, a line each."""
    return hashlib.sha256("".join(f"{value}\n" for value in sorted(photos.values())).encode()).hexdigest()


def _front_matter(start: Start) -> str:
    head: dict[str, Any] = {"pipeline_tag": "depth-estimation", "tags": ["depth-estimation", "redepth"]}
    if start.of_transformers:
        head["library_name"] = "transformers"
    if start.on_hub:
        head |= {"base_model": start.checkpoint, "base_model_relation": "finetune"}
    if start.licence == UNKNOWN_LICENCE:
        head |= {"license": "other", "license_name": "unknown"}
    else:
        head["license"] = start.licence
    if start.checkpoint:
        head[START_KEY] = {"checkpoint": start.checkpoint}
    if start.commit:
        head[START_KEY]["commit"] = start.commit
    return f"---\n{dump_yaml(head)}---"


def _settings(job: Job) -> str:
    """Return the preset as YAML. Of a path on this machine the last part is left: a card is published."""
    return dump_yaml(_without_paths(job.preset.model_dump(mode="json")))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_paths(part) for part in value]
    if isinstance(value, str) and (os.path.isabs(value) or os.path.isdir(value)):
        return Path(value).name
    return value


def _title(start: Start) -> str:
    return start.checkpoint.rstrip("/").rpartition("/")[2] or "A depth model"


def _origin(job: Job, result: Adapted, start: Start) -> str:
    settings = job.preset.adapt
    revision = f", commit {start.commit}" if start.commit else ""
    licence = (
        "The licence of the starting weights is not known to redepth: look at where they are from."
        if start.licence == UNKNOWN_LICENCE
        else f"The starting weights are under the licence `{start.licence}`, which holds for these, too."
    )
    kept = (
        f" On {result.keep} other photos it was trained to stay as it was."
        if result.keep
        else " No photos of other kinds were kept: expect it to be worse on those."
    )
    return (
        f"`redepth adapt` (method `{settings.method}`) made it from `{start.checkpoint}`{revision}, without "
        f"ground truth. {_METHODS[settings.method]} It learned {_LEARNS[settings.learns]}: "
        f"{result.learned[0]:,} of {result.learned[1]:,} numbers.{kept}\n\n{licence}"
    )


def _use(job: Job, start: Start, scale: float | str | None) -> str:
    preset = job.preset.name if job.preset.name in preset_names() else "PRESET.yaml"
    lines = [
        "In redepth, as the start of a refinement:",
        "",
        f"    redepth refine photo.jpg --preset {preset} --set depth_model.checkpoint=FOLDER",
        "",
        f"The depth model is `{job.preset.depth_model.name}`, and `depth_model.scale` must be {scale}, as in "
        "the settings below: the unit of the output did not change.",
    ]
    if start.of_transformers:
        lines += [
            "",
            "Without redepth, one prediction a photo:",
            "",
            "```python",
            "from transformers import pipeline",
            "",
            'depth = pipeline("depth-estimation", model="FOLDER")("photo.jpg")["predicted_depth"]',
            "```",
        ]
        if start.preprocessor is None:
            lines += ["", _OTHER_SIZE]
    return "\n".join(lines)


def _measured(result: Adapted) -> str:
    rows = [f"The training took {result.steps} steps and ended: {result.stopped}."]
    if result.validations:
        rows += [
            f"The weights are the average at step {result.chosen}, the best of {len(result.validations)} "
            f"validations on {len(result.held_out)} photos that were held out.",
            "",
            "| | mean distance to the refinements of held-out photos |",
            "| --- | --- |",
            f"| before | {result.before:.2f} % |",
            f"| after | {result.after:.2f} % |",
            "",
            "The distance is SI-log with the refinement of the photo as the truth; no ground truth was used.",
        ]
        if result.chosen == 0:
            rows += ["", "No step was better than the start: these are the weights of the start."]
    if result.predict_seconds and result.refine_seconds:
        rows += [
            "",
            f"A prediction took {1000 * result.predict_seconds:.0f} ms, a refinement of a photo "
            f"{duration(result.refine_seconds)}.",
        ]
    return "\n".join(rows)


def _photos(job: Job, result: Adapted) -> str:
    left_out = f", {len(result.left_out)} left out" if result.left_out else ""
    parts = f"{result.training} learned from, {len(result.held_out)} held out{left_out}"
    lines = [
        f"{len(job.photos)} photos: {parts}.",
        "",
        *_hashes(job.photos),
    ]
    if job.keep:
        kept = f"{len(job.keep)} photos on which the model was kept as it was."
        lines += ["", kept, "", *_hashes(job.keep)]
    return "\n".join(lines)


def _hashes(photos: Mapping[str, str]) -> list[str]:
    lines = [f"SHA-256 of all their SHA-256 (sorted, a line each): `{hash_of_hashes(photos)}`"]
    if len(photos) <= LISTED:
        lines += ["", *(f"- `{value}`" for value in sorted(photos.values()))]
    return lines


def _versions(versions: Mapping[str, str]) -> str:
    return "\n".join(f"- {name} {version}" for name, version in sorted(versions.items()))
