"""The random numbers of a run: one stream per member, drawn before each step, recordable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from redepth.contracts import Illumination, Noise, Prior, Renderer, StepDraws
from redepth.errors import InputError
from redepth.optim.component_checks import check_draw, title

FRAME = "x right, y up, z towards the viewer"
"""The frame of light directions, stored with recorded draws."""


def member_generator(seed: int, member: int) -> Generator:
    """Return member i's CPU generator, seeded by (seed, i) alone."""
    return key_generator(seed, member)


def key_generator(*key: int) -> Generator:
    """Return a CPU generator seeded by some numbers >= 0, of any size, alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def draw_steps(
    renderer: Renderer, prior: Prior, seed: int, members: Sequence[int], steps: int
) -> Iterator[StepDraws]:
    """Yield the draws of step 0, 1, ..., steps - 1 for some members, a row each.

    A member's numbers depend on the seed, its index and the number of steps alone. They are the same
    whether members run together, one by one or on another device.
    """
    generators = [member_generator(seed, member) for member in members]
    for step in range(steps):
        check = step == 0
        yield StepDraws.cat([draw_step(renderer, prior, g, step / steps, check=check) for g in generators])


def draw_step(
    renderer: Renderer, prior: Prior, generator: Generator, progress: float, *, check: bool
) -> StepDraws:
    """Draw the step of one member.

    Args:
        renderer: draws the light first.
        prior: draws the noise then.
        generator: of the member.
        progress: share of the steps that are done.
        check: whether to raise RedepthError unless both draw what they should.
    """
    lights = renderer.lights
    light = renderer.draw(1, generator)
    if check:
        check_draw(title("renderer", renderer), light, Illumination, (1, lights))
    noise = prior.draw(lights, generator, progress)
    if check:
        check_draw(title("prior", prior), noise, Noise, (lights,))
    return StepDraws(light, noise.as_member())


def record_draws(renderer: Renderer, prior: Prior, seed: int, members: int, steps: int) -> list[StepDraws]:
    """Return all draws of a run, a record per step with a row per member, ready to save and replay.

    They depend on the seed, the renderer and the prior, not on the course of the run.
    """
    return list(draw_steps(renderer, prior, seed, range(members), steps))


def save_draws(path: Path, draws: Sequence[StepDraws]) -> None:
    """Write the recorded draws of a run as safetensors."""
    from safetensors.torch import save_file

    tensors = {}
    for step, draw in enumerate(draws):
        for kind, record in (("illumination", draw.illumination), ("noise", draw.noise)):
            for name, tensor in record.tensors.items():
                tensors[f"{step}.{kind}.{name}"] = tensor.contiguous()
    save_file(tensors, path, metadata={"frame": FRAME})


def load_draws(path: Path) -> list[StepDraws]:
    """Read the draws that `save_draws` wrote.

    Raises:
        InputError: if the file is not such a record, or its lights are in the frame of earlier versions.
    """
    from safetensors import SafetensorError, safe_open

    steps: dict[int, dict[str, dict[str, torch.Tensor]]] = {}
    try:
        with safe_open(path, "pt") as file:
            frame = (file.metadata() or {}).get("frame")
            for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                step, kind, name = key.split(".", 2)
                records = steps.setdefault(int(step), {"illumination": {}, "noise": {}})
                records[kind][name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"'{path}' is not a record of draws: {error}") from None
    if frame != FRAME:
        raise InputError(
            f"'{path}' was recorded by an earlier version, with light directions in another frame: record "
            "the draws anew with `record_draws`; the same seed gives the same lights"
        )
    return [
        StepDraws(Illumination(steps[i]["illumination"]), Noise(steps[i]["noise"])) for i in sorted(steps)
    ]
