"""Split a batch into images with their ground truth and their mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.errors import InputError


@dataclass(frozen=True)
class ImagePair:
    """One image of a batch: prediction and ground truth.

    Attributes:
        name: of the image in messages; may be empty.
        prediction: (H, W) or (C, H, W).
        truth: the same shape.
        mask: (H, W) bool, the measured pixels: the given mask where the ground truth is known.
    """

    name: str
    prediction: Tensor
    truth: Tensor
    mask: Tensor

    def error(self, problem: object) -> InputError:
        """Return an error that names the image."""
        return InputError(f"{self.name}: {problem}" if self.name else str(problem))


def known_depth(truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return where ground-truth depth is known: finite, > 0 and inside the mask (bool, same shape)."""
    known = torch.isfinite(truth) & (truth > 0)
    return known if mask is None else known & mask


def split_batch(
    prediction: Tensor,
    truth: Tensor,
    known: Tensor,
    mask: Tensor | None,
    names: Sequence[str],
    channels: tuple[int, ...] = (),
) -> list[ImagePair]:
    """Split a batch into its images.

    Args:
        prediction: (..., *channels, H, W).
        truth: the same shape, or (*channels, H, W) for all images.
        known: (..., H, W) or (H, W) bool, where the ground truth is known.
        mask: likewise; None is everywhere.
        names: of the images, for messages; empty to number them.
        channels: the shape in front of (H, W) that belongs to one image.

    Raises:
        InputError: naming the image: sizes differ, or no pixel is left to measure.
        ValueError: the number of names is not that of the images.
    """
    inner = prediction.shape[prediction.dim() - len(channels) - 2 :]
    lead = prediction.shape[: prediction.dim() - len(inner)]
    count = lead.numel()
    if names and len(names) != count:
        raise ValueError(f"{len(names)} names for {count} images")
    if not names:
        names = [f"image {i + 1} of {count}" for i in range(count)] if count > 1 else [""]
    only_name = names[0] if count == 1 else ""
    predictions = prediction.reshape(count, *inner)
    truths = _expand(truth, lead, inner, "ground truth", only_name)
    measured = _expand(known, lead, inner[-2:], "ground truth", only_name)
    if mask is not None:
        measured = measured & _expand(mask, lead, inner[-2:], "mask", only_name)
    images = [ImagePair(*row) for row in zip(names, predictions, truths, measured, strict=True)]
    for image in images:
        if not bool(image.mask.any()):
            raise image.error("the mask holds no pixel with known ground truth: nothing can be measured")
    return images


def _expand(values: Tensor, lead: torch.Size, inner: torch.Size, what: str, name: str) -> Tensor:
    """Return (N, *inner) from one array for all images or one for each."""
    values_lead = values.shape[: values.dim() - len(inner)]
    if values.shape[len(values_lead) :] != inner or values_lead not in (torch.Size(), lead):
        text = f"sizes differ: prediction {(*lead, *inner)}, {what} {tuple(values.shape)}; make them one size"
        raise InputError(f"{name}: {text}" if name else text)
    return values.expand(*lead, *inner).reshape(-1, *inner)


def stack_rows(rows: Sequence[Mapping[str, Tensor]], lead: torch.Size) -> dict[str, Tensor]:
    """Stack one row of values per image to one tensor per name, of the batch's shape."""
    return {name: torch.stack([row[name] for row in rows]).reshape(lead) for name in rows[0]}
