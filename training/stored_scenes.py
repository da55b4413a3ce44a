"""Rooms drawn once and kept on disk, because drawing one takes longer than a training step on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import PER_FAMILY, mean_disparity, room_scenes
from redepth.errors import InputError

SIDE, PER_FILE = 192, 240
"""Side of a picture in pixels, and scenes of a file."""


@dataclass(frozen=True)
class StoredScenes:
    """Scenes of many files, mapped into memory.

    Attributes:
        image: (N, 3, S, S) uint8 of each file.
        depth: (N, 1, S, S) float16 of each file, infinite in the sky.
        family: (N,) index into the names of `TRAINING`, of each file.
    """

    image: list[np.ndarray]
    depth: list[np.ndarray]
    family: list[np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.image))

    def views(
        self, count: int, generator: Generator, *, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return random views of random scenes.

        A view is a part of a picture, at least ``height`` x ``width`` pixels large and shrunk to that size,
        or its mirror image, in other colours. Its depth again has a harmonic mean of 1.

        Returns:
            The pictures (count, 3, height, width) in [0, 1], their depth (count, 1, height, width) and the
            families (count,).
        """
        images, depths, families = [], [], []
        for index in torch.randint(len(self), (count,), generator=generator).tolist():
            file, row = divmod(index, PER_FILE)
            part = _part(height, width, generator)
            image = torch.from_numpy(self.image[file][row][part].astype(np.float32) / 255)
            depth = torch.from_numpy(self.depth[file][row][part].astype(np.float32))
            if float(torch.rand((), generator=generator)) < 0.5:
                image, depth = image.flip(-1), depth.flip(-1)
            size = (height, width)
            images.append(F.interpolate(image[None], size, mode="bilinear", antialias=True)[0])
            depths.append(F.interpolate(depth[None], size, mode="nearest-exact")[0])
            families.append(int(self.family[file][row]))
        depth = torch.stack(depths)
        mean = mean_disparity(depth.flatten(1))
        return (
            recoloured(torch.stack(images), generator),
            depth * mean.view(-1, 1, 1, 1),
            torch.tensor(families),
        )


def _part(height: int, width: int, generator: Generator) -> tuple[slice, slice, slice]:
    """Draw a window of a stored picture, with the aspect ratio of the size, not smaller than it."""
    larger = max(height, width)
    share, down, along = torch.rand(3, generator=generator).tolist()
    side = larger + (SIDE - larger) * share
    rows, columns = int(side * height / larger), int(side * width / larger)
    top, left = int(down * (SIDE - rows + 1)), int(along * (SIDE - columns + 1))
    return (slice(None), slice(top, top + rows), slice(left, left + columns))


def recoloured(image: Tensor, generator: Generator) -> Tensor:
    """Change brightness by up to 20 %, the tint by up to 10 % and the gamma by up to 0.2."""
    shape = (len(image), 1, 1, 1)
    gain = 0.8 + 0.4 * torch.rand(shape, generator=generator)
    gamma = torch.exp(0.4 * torch.rand(shape, generator=generator) - 0.2)
    tint = 0.9 + 0.2 * torch.rand((len(image), 3, 1, 1), generator=generator)
    return (image.clamp(min=1e-4) ** gamma * gain * tint).clamp(max=1)


def file_of(folder: Path, number: int) -> Path:
    """Return the folder of a numbered file's arrays."""
    return folder / f"rooms-{number:04d}"


def draw_file(folder: Path, seed: int, number: int) -> None:
    """Draw the scenes of one file; they depend on the seed and the number alone."""
    target = file_of(folder, number)
    if target.is_dir():
        return
    generator = Generator().manual_seed(1_000_003 * (seed + 1) + number)
    names = list(TRAINING)
    family = torch.randint(len(names), (PER_FILE // PER_FAMILY,), generator=generator)
    parts = [
        room_scenes(PER_FAMILY, generator, height=SIDE, width=SIDE, families={names[i]: TRAINING[names[i]]})
        for i in family.tolist()
    ]
    partial = target.with_suffix(f".partial-{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    image = torch.cat([(p.image * 255).round().to(torch.uint8) for p in parts])
    np.save(partial / "image.npy", image.numpy())
    np.save(partial / "depth.npy", torch.cat([p.depth for p in parts]).half().numpy())
    np.save(partial / "family.npy", family.repeat_interleave(PER_FAMILY).to(torch.uint8).numpy())
    os.replace(partial, target)


def stored_scenes(folder: Path) -> StoredScenes:
    """Open the scenes in a folder.

    Raises:
        InputError: if there are none.
    """
    files = sorted(p for p in folder.glob("rooms-????") if p.is_dir())
    if not files:
        raise InputError(
            f"{folder}: no stored scenes; draw them with `python -m training.train_photo scenes`"
        )
    arrays = {
        name: [np.load(file / f"{name}.npy", mmap_mode="r") for file in files]
        for name in ("image", "depth", "family")
    }
    return StoredScenes(**arrays)
