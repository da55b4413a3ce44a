"""A generic prior: told a caption and never the photo. Captioned pictures, training steps, validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from redepth.data.scenes.captions import RELIEF, RELIEF_WORDS, ROOM_CAPTIONS, upcoming_relief
from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import benchmark_scenes
from redepth.ops.color import srgb_to_linear
from redepth.ops.filters import gaussian_blur
from redepth.ops.geometry import relative_depth
from redepth.priors.pixel_unet import Layout, PixelUNet
from redepth.priors.words import BLURRED, LIGHT_WORDS, WORD, light_rows, word_rows
from training.mixture import RELIEF_SCALE, mixture_and_families
from training.networks import PATCH, SIZE, conditional_prior, loaded_prior, noise_schedule
from training.photo_prior import renderer
from training.posters import PATTERNS, posters
from training.relighting import Told, draw_timesteps, scores_when_told
from training.stored_scenes import StoredScenes

Domain = Literal["scenes", "other"]
NAMES: dict[Domain, str] = {"scenes": "captioned-prior", "other": "captioned-poster-prior"}

SCENE_WORDS = WORD.findall(", ".join([RELIEF, *RELIEF_WORDS.values(), *ROOM_CAPTIONS.values()]))
WORDS = tuple(dict.fromkeys([*SCENE_WORDS, *LIGHT_WORDS, BLURRED, "poster", *PATTERNS]))
"""The words that the captioned priors of both domains know; ``with`` and ``in`` say nothing and are none."""
WORDS = tuple(word for word in WORDS if word not in ("with", "in"))

BLURRED_SHARE, SILENT_SHARE, DROPPED_SHARE = 0.12, 0.12, 0.15
"""Shares of blurred pictures, of pictures without a caption, and of words that a caption leaves out."""

LOW_NOISE_SHARE = 0.3
SIGMAS = (1.5, 3.0, 6.0)
VALIDATION_SEED, PER_SET = 5_500, 20


@dataclass(frozen=True)
class Captioned:
    """Pictures (N,3,S,S) in [-1, 1] and which of `WORDS` describe each, (N, len(WORDS))."""

    picture: Tensor
    words: Tensor


def build_captioned_prior(seed: int, start: str | None = None) -> PixelUNet:
    """Return the network with fresh weights, or with those of a re-lighting prior as far as they fit.

    The first convolution takes over the channels of the noisy picture. The weights of words start at 0, so
    that every caption first means what no condition means to the re-lighting prior.

    Args:
        seed: of fresh weights.
        start: the re-lighting prior's checkpoint, as ``prior.checkpoint`` takes it.
    """
    model = conditional_prior(seed, Layout(size=SIZE, patch=PATCH, words=WORDS))
    if start is None:
        return model
    known = loaded_prior(start).unet.state_dict()
    for name, value in model.unet.state_dict().items():
        if known[name].shape == value.shape:
            value.copy_(known[name])
        elif name == "conv_in.weight":
            value.copy_(known[name][:, : value.shape[1]])
        else:
            value.zero_()
    return model


# --- pictures ---------------------------------------------------------------------------------------------


def captioned_composites(count: int, generator: Generator, rooms: StoredScenes) -> Captioned:
    """Draw re-lit pictures of surfaces at the prior's size, some of them of blurred surfaces."""
    captions = upcoming_relief(count // 2, generator)
    drawn, families = mixture_and_families(count, generator, rooms, height=SIZE, width=SIZE)
    captions += [ROOM_CAPTIONS[list(TRAINING)[i]] for i in families.tolist()]
    lights = renderer().draw(count, generator)
    depth, blurred = partly_blurred(relative_depth(drawn.disparity), generator)
    pictures = renderer()(depth, srgb_to_linear(drawn.image), lights)[:, 0]
    rows = word_rows(WORDS, captions) + light_rows(WORDS, lights.flatten())
    return Captioned(pictures * 2 - 1, with_blurred(rows, blurred))


def captioned_posters(count: int, generator: Generator) -> Captioned:
    """Draw flat pictures, some of them blurred."""
    picture, captions = posters(count, generator, SIZE)
    blurred = torch.rand(count, generator=generator) < BLURRED_SHARE
    picture = torch.where(blurred.view(-1, 1, 1, 1), gaussian_blur(picture, _sigma(generator)), picture)
    return Captioned(picture * 2 - 1, with_blurred(word_rows(WORDS, captions), blurred))


def partly_blurred(depth: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blur the log depth of some surfaces and scale it by 0.2 to 0.8; also return of which, (N,)."""
    blurred = torch.rand(len(depth), generator=generator) < BLURRED_SHARE
    scale = 0.2 + 0.6 * torch.rand(len(depth), 1, 1, 1, generator=generator)
    worse = torch.exp(scale * gaussian_blur(depth.log(), _sigma(generator)))
    return torch.where(blurred.view(-1, 1, 1, 1), worse, depth), blurred


def _sigma(generator: Generator) -> float:
    return SIGMAS[int(torch.randint(len(SIGMAS), (), generator=generator))]


def with_blurred(rows: Tensor, blurred: Tensor) -> Tensor:
    """Add the word for blurred pictures to their rows."""
    rows = rows.clone()
    rows[:, WORDS.index(BLURRED)] = blurred.to(rows.dtype)
    return rows


def draw_captioned(domain: Domain, count: int, generator: Generator, rooms: StoredScenes) -> Captioned:
    """Draw pictures of a domain."""
    if domain == "other":
        return captioned_posters(count, generator)
    return captioned_composites(count, generator, rooms)


# --- training ---------------------------------------------------------------------------------------------


def told_rows(words: Tensor, generator: Generator) -> Tensor:
    """Leave out words and whole captions at random: the vectors (N, len(WORDS) + 1) of a training step."""
    said = (torch.rand(words.shape, generator=generator) >= DROPPED_SHARE).to(words.dtype)
    told = (torch.rand(len(words), 1, generator=generator) >= SILENT_SHARE).to(words.dtype)
    return torch.cat([words * said * told, told], dim=1)


def caption_steps(
    model: PixelUNet,
    draw: Callable[[], Captioned],
    generator: Generator,
    device: torch.device,
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    alphas = noise_schedule()

    def step() -> Tensor:
        seen = draw()
        timestep = draw_timesteps(len(seen.picture), generator, LOW_NOISE_SHARE)
        noise = torch.randn(seen.picture.shape, generator=generator)
        a = alphas[timestep].sqrt().view(-1, 1, 1, 1)
        s = (1 - alphas[timestep]).sqrt().view(-1, 1, 1, 1)
        vector = told_rows(seen.words, generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            noisy = (a * seen.picture + s * noise).to(device)
            prediction = model(noisy, timestep.to(device), None, vector)
        return F.mse_loss(prediction.float(), (a * noise - s * seen.picture).to(device))

    return step


# --- validation -------------------------------------------------------------------------------------------


def validate_captioned(model: PixelUNet, domain: Domain, device: torch.device) -> dict[str, Any]:
    """Measure the scores on pictures of the domain that training does not draw (`scores_when_told`).

    The wrong picture of a scene is re-lit from half of the true log depth, blurred; that of a poster is
    blurred. The model is told the scene and the light, the scene alone, or nothing.
    """
    generator = Generator().manual_seed(VALIDATION_SEED)
    if domain == "other":
        picture, captions = posters(PER_SET, generator, SIZE)
        truth, wrong = picture * 2 - 1, gaussian_blur(picture, 4.0) * 2 - 1
        told = _conditions(word_rows(WORDS, captions))
        return {"posters": scores_when_told(model, truth, wrong, told, generator, device)}
    found = {}
    for name, (image, depth, captions) in _validation_sets(generator).items():
        lights = renderer().draw(PER_SET, generator)
        flat = torch.exp(0.5 * gaussian_blur(depth.log(), 4.0))
        linear = srgb_to_linear(image)
        truth, wrong = (renderer()(z, linear, lights)[:, 0] * 2 - 1 for z in (depth, flat))
        told = _conditions(word_rows(WORDS, captions), light_rows(WORDS, lights.flatten()))
        found[name] = scores_when_told(model, truth, wrong, told, generator, device)
    return found


def _validation_sets(generator: Generator) -> dict[str, tuple[Tensor, Tensor, list[str]]]:
    """Return pictures, relative depth and captions of rooms of unseen families, and of unseen relief."""
    each = PER_SET // len(UNSEEN)
    rooms = [
        room_scenes(each, generator, height=SIZE, width=SIZE, families={name: layout})
        for name, layout in UNSEEN.items()
    ]
    relief = benchmark_scenes(PER_SET, "relief", generator, height=SIZE, width=SIZE)
    return {
        "unseen rooms": (
            torch.cat([drawn.image for drawn in rooms]),
            relative_depth(torch.cat([drawn.disparity for drawn in rooms])),
            [ROOM_CAPTIONS[name] for name in UNSEEN for _ in range(each)],
        ),
        "relief": (relief.image, 1 + RELIEF_SCALE * (relief.depth - 1), [RELIEF] * PER_SET),
    }


def _conditions(scene: Tensor, light: Tensor | None = None) -> dict[str, Told]:
    flag = torch.ones(len(scene), 1)
    told: dict[str, Told] = (
        {} if light is None else {"scene and light": (None, torch.cat([scene + light, flag], 1))}
    )
    return told | {"scene": (None, torch.cat([scene, flag], dim=1)), "untold": (None, None)}
