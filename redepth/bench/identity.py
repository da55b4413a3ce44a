"""What a row of a benchmark or an experiment was measured from: the contents of image and truth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth import io
from redepth.bench.photo_files import photo_file
from redepth.components import component_versions, named_files
from redepth.config import Preset
from redepth.data.datasets import Sample
from redepth.runtime.resume import Identity

TRUTH = ("the ground truth", "the kind of the ground truth", "the mask", "the normals", "the camera")
"""The inputs that a prediction is measured against: two rows are comparable if these are equal."""


def identify(sample: Sample, preset: Preset) -> Identity:
    """Return the identity of a refinement of an image by a preset, as the data set has read it.

    The hash of a photo's file is taken here: call it before the file is decoded.
    """
    return _with_inputs(_of_preset(preset), {**_inputs(sample), **_files_of(sample.name, preset)})


def identities(
    load: Callable[[str], Sample], presets: Mapping[str, Preset]
) -> Callable[[str, str], Identity]:
    """Return the function from the names of a preset and of an image to the identity.

    It reads an image once, and raises InputError if that is impossible.
    """

    @cache
    def inputs(image: str) -> dict[str, str]:
        return _inputs(load(image))

    @cache
    def of_preset(name: str) -> Identity:
        return _of_preset(presets[name])

    return lambda preset, image: _with_inputs(
        of_preset(preset), {**inputs(image), **_files_of(image, presets[preset])}
    )


def _of_preset(preset: Preset) -> Identity:
    return Identity.of(named_files(preset), component_versions(preset))


def _files_of(image: str, preset: Preset) -> dict[str, str]:
    """Return the hashes of the files that a preset has for an image, in folders of one for each image."""
    usual = named_files(preset)
    own = {k: v for k, v in named_files(preset, photo_file(image)).items() if usual.get(k) != v}
    return Identity.of(own, {}).inputs


def _with_inputs(identity: Identity, inputs: Mapping[str, str]) -> Identity:
    return identity.model_copy(update={"inputs": {**identity.inputs, **inputs}})


def _inputs(sample: Sample) -> dict[str, str]:
    arrays = {
        "the ground truth": sample.truth,
        "the mask": sample.mask,
        "the normals": sample.normals,
        "the sky": sample.sky,
        "the albedo": sample.albedo,
    }
    photo = sample.photo
    inputs = {"the photo": io.sha256_of(photo) if isinstance(photo, Path) else _array_sha256(photo)}
    inputs |= {name: _array_sha256(array) for name, array in arrays.items() if array is not None}
    inputs["the kind of the ground truth"] = f"{sample.kind} in {sample.unit}"
    if sample.camera is not None:
        inputs["the camera"] = repr(sample.camera)
    return inputs


def _array_sha256(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
