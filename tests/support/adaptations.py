"""Small adaptations: photos of a few pixels, the smallest preset, a few steps."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.support.small_photos import write_photo

SETTINGS = (
    "depth_model.longer_side=56",
    "optim.members=1",
    "optim.steps=6",
    "optim.blend=none",
    "optim.learning_rates.embeddings=0.1",
    "adapt.trust.flagged=true",
    "adapt.held_out=0.3",
    "adapt.batch=2",
    "adapt.steps=6",
    "adapt.validate_every=2",
    "adapt.warm_up=1",
    "adapt.learning_rate=1e-4",
    "adapt.ema=0",
    "adapt.anchor.weight=0",
)
"""Of the preset smoke: large changes, which the model learns in a few steps."""

PHOTOS = 5


def write_photos(folder: Path) -> list[Path]:
    """Write photos that show nearly the same, so that what is learned of some holds for the others."""
    whole = Image.open(write_photo(folder.with_name("whole.png"), 3, (56, 72)))
    files = [folder / f"photo-{number}.png" for number in range(PHOTOS)]
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        whole.crop((number, number, number + 64, number + 48)).save(file)
    return files
