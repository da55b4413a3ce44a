"""The files that the components of a preset read for each image: its map, its prompt depth, its albedo."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth import depth_models, renderers
from redepth.config import Preset
from redepth.contracts import FollowsPhoto, TakesMap
from redepth.errors import ConfigError, cut

OPTIONS = ("depth_model.path", "depth_model.prompt_depth", "renderer.albedo")
"""The options that name a file of one photo, or a folder with one for each photo."""


def photo_file(image: str) -> Path:
    """Return the name by which the files of an image are found: its own, with ``_`` for ``/``.

    The name of the photo's file would not do: two drives of KITTI have photos of one name.
    """
    # The part after a point of the name is no ending.
    return Path(f"{image.replace('/', '_')}.png")


def check_photo_files(presets: Mapping[str, Preset], images: Sequence[str], *, renders: bool) -> None:
    """Look for the files of every image before the first is measured.

    Args:
        presets: resolved, by name.
        images: names of the images.
        renders: whether the renderers run, too.

    Raises:
        ConfigError: a file is for several images, or two images have files of one name.
        InputError: an image has no file, or a map is given by Python alone.
    """
    for name, preset in presets.items():
        sections = {"depth_model": (depth_models.REGISTRY, preset.depth_model)}
        if renders:
            sections["renderer"] = (renderers.REGISTRY, preset.renderer)
        for section, (registry, chosen) in sections.items():
            component = registry.get(chosen.name)(**chosen.options)
            if isinstance(component, TakesMap):
                component.take_map(None)
            if isinstance(component, FollowsPhoto) and _reads_files(name, section, chosen.options, images):
                for image in images:
                    component.next_photo(photo_file(image))


def _reads_files(preset: str, section: str, options: Mapping[str, Any], images: Sequence[str]) -> bool:
    """Return whether a folder has the files of the images."""
    found = False
    for key, value in options.items():
        path = os.path.expanduser(str(value))
        if f"{section}.{key}" not in OPTIONS or not os.path.exists(path):
            continue
        if len(images) > 1 and not os.path.isdir(path):
            raise ConfigError(
                f"preset {cut(preset)}: {section}.{key}={value} is one file, and belongs to one photo; there "
                f"are {len(images)} images: give a folder with a file for each, such as "
                f"{photo_file(images[0]).stem}{Path(path).suffix}"
            )
        found = True
    names = Counter(photo_file(image) for image in images)
    if found and (twice := [name for name, count in names.items() if count > 1]):
        raise ConfigError(f"preset {cut(preset)}: two images have files of the name {twice[0].stem}")
    return found
