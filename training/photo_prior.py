"""The re-lighting prior of the pair for photos: composites at several scales, training steps, validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import Scenes, benchmark_scenes
from redepth.ops.color import srgb_to_linear
from redepth.ops.filters import gaussian_blur
from redepth.ops.geometry import relative_depth
from redepth.priors.pixel_diffusion import cut_window
from redepth.priors.pixel_unet import PixelUNet, light_vector
from redepth.renderers.blinn_phong import BlinnPhong
from training.mixture import RELIEF_SCALE, mixture
from training.networks import SIZE, noise_schedule
from training.relighting import Composites, PriorBatch, measured_scores, prior_batch
from training.stored_scenes import StoredScenes

PRIOR_NAME = "photo-relighting-prior"
LARGE_SHARE, LARGE_SIDES = 0.4, (128, 160, 192)
"""Share of the batches that are cut from larger pictures, and the sides of these."""

VALIDATION_SEED, VALIDATION_SCENES = 5_000, 16


def renderer() -> BlinnPhong:
    """Return the pair's renderer: a pinhole with the default field of view."""
    return BlinnPhong(camera="pinhole")


def photo_composites(count: int, generator: Generator, rooms: StoredScenes) -> Composites:
    """Draw re-lit pictures of true surfaces at the prior's size.

    Six batches in ten are whole pictures of that size. The others are windows of larger ones, as
    ``view: multiscale`` cuts them: of each picture a quarter is whole, half have any side and a quarter the
    prior's own.
    """
    if float(torch.rand((), generator=generator)) >= LARGE_SHARE:
        return relit(mixture(count, generator, rooms, height=SIZE, width=SIZE), generator)
    side = LARGE_SIDES[int(torch.randint(len(LARGE_SIDES), (), generator=generator))]
    whole = relit(mixture(4, generator, rooms, height=side, width=side), generator)
    return windows(whole, count // 4, generator)


def relit(drawn: Scenes, generator: Generator) -> Composites:
    """Re-light scenes from their true depth; the sky is as far as a depth model can say."""
    lights = renderer().draw(len(drawn.image), generator)
    depth = relative_depth(drawn.disparity)
    pictures = renderer()(depth, srgb_to_linear(drawn.image), lights)[:, 0]
    return Composites(pictures * 2 - 1, drawn.image * 2 - 1, light_vector(lights.flatten()))


def windows(whole: Composites, number: int, generator: Generator) -> Composites:
    """Cut ``number`` windows of each picture, the same of photo and composite."""
    views = ("whole", "multiscale", "multiscale", "own-scale")
    rows = []
    for pair in torch.cat([whole.relit, whole.photo], dim=1):
        for index in range(number):
            place = torch.rand(3, generator=generator).tolist()
            rows.append(cut_window(pair, SIZE, views[index % len(views)], *place))
    relit_rows, photo_rows = torch.stack(rows).split(3, dim=1)
    return Composites(relit_rows, photo_rows, whole.light.repeat_interleave(number, dim=0))


def draw_noisy(rooms: StoredScenes, batch: int, step: int, generator: Generator) -> PriorBatch:
    """Draw the noised composites of a step."""
    return prior_batch(photo_composites(batch, generator, rooms), generator, noise_schedule())


def validate_photo_prior(model: PixelUNet, device: torch.device) -> dict[str, Any]:
    """Measure the scores on rooms of unseen families and on unseen relief (`relighting.measured_scores`).

    The wrong surface has half of the true log depth, blurred.
    """
    generator = Generator().manual_seed(VALIDATION_SEED)
    rooms = room_scenes(VALIDATION_SCENES, generator, height=SIZE, width=SIZE, families=UNSEEN)
    relief = benchmark_scenes(VALIDATION_SCENES, "relief", generator, height=SIZE, width=SIZE)
    sets = {
        "unseen rooms": Scenes(rooms.image, rooms.depth, rooms.sky),
        "relief": Scenes(relief.image, 1 + RELIEF_SCALE * (relief.depth - 1)),
    }
    found = {}
    for name, drawn in sets.items():
        lights = renderer().draw(VALIDATION_SCENES, generator)
        depth = relative_depth(drawn.disparity)
        flat = torch.exp(0.5 * gaussian_blur(depth.log(), 4.0))
        linear, vector = srgb_to_linear(drawn.image), light_vector(lights.flatten())
        truth, wrong = (renderer()(z, linear, lights)[:, 0] * 2 - 1 for z in (depth, flat))
        seen = Composites(truth, drawn.image * 2 - 1, vector)
        found[name] = measured_scores(model, seen, wrong, generator, device)
    return found
